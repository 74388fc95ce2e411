"""One item of a task in a worker: its tries, and how it ended."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.utils.translation import gettext_noop

from powercrud_models import lifecycle
from powercrud_models.context import Run, fenced, running
from powercrud_models.deadlocks import attempts, noticed
from powercrud_models.declarations import works_of
from powercrud_models.exceptions import LeaseLost, StoreUnavailable, TaskCancelled
from powercrud_models.loading import load
from powercrud_models.messages import Message
from powercrud_models.models import TaskItem
from powercrud_models.queues import get_queue
from powercrud_models.sessions import end_if_lost, end_interrupted, session_of
from powercrud_models.stopping import stopping
from powercrud_models.stores import get_store
from powercrud_models.timeouts import WorkTimeout, call_limited
from powercrud_models.types import ObjectKey, WorkDeclaration, python_pk

logger = logging.getLogger("powercrud_models")


class SessionLost(Exception):
    """A connection was lost in mid work, to the database or to the store of the locks.

    Nobody knows yet how the item stands.
    """


class CannotRun(Exception):
    """No try can do this item; the message says why."""

    def __init__(self, message: Message) -> None:
        super().__init__(message)
        self.message = message


class CalledExit(Exception):
    """Work called ``sys.exit()``: it has failed, and the worker goes on."""


def run_item(claim: lifecycle.Claim, item: TaskItem, run: Run, *, ends_task: bool) -> float | None:
    """Do the item, and record how it ended; ``ends_task``: and the task with it.

    Returns None when it has ended, else the seconds after which it is to be tried again.

    Raises LeaseLost, SessionLost, TaskCancelled, and what is to stop the process.
    """
    while not _try(claim, item, run, ends_task=ends_task):
        pause = lifecycle.options_of(item).backoff(item.tries)
        if (pause and get_queue().waits) or stopping.is_due:
            return pause
        if lifecycle.is_cancelled(claim):
            raise TaskCancelled(claim.task)
    return None


def _try(claim: lifecycle.Claim, item: TaskItem, run: Run, *, ends_task: bool) -> bool:
    """Whether the item has ended: it is done, or it failed for the last time."""
    connection, options = connections[claim.alias], lifecycle.options_of(item)
    session = session_of(connection)
    try:
        _do(claim, item, run, ends_task=ends_task)
    except (LeaseLost, SessionLost):
        raise
    except StoreUnavailable as error:  # no fault of the work
        raise SessionLost from error
    except TaskCancelled:
        if lifecycle.has_ended(claim, item):  # an on_commit callback raised it
            return True
        raise
    except CannotRun as error:
        _fail(claim, item, error.message, ends_task=ends_task)
    except Exception as error:  # the outermost frame of work, which may raise anything
        if _has_lost(connection, session, error, atomic=options.atomic):
            raise SessionLost from error
        if lifecycle.has_ended(claim, item):  # it raised after the commit
            logger.exception("%s is done, but an on_commit callback of its work failed", item)
            return True
        said = f"{item}\n{traceback.format_exc()}"
        if item.tries < options.retries and not isinstance(error, options.dont_retry_for):
            logger.exception("%s failed; it is tried again", item)
            lifecycle.record_try(claim, item, said)
            return False
        logger.exception("%s failed", item)
        _fail(claim, item, said, ends_task=ends_task)
    return True


def _has_lost(
    connection: BaseDatabaseWrapper, session: Any, error: Exception, *, atomic: bool
) -> bool:
    """Whether nobody knows how the item stands, because its session was lost."""
    if isinstance(error, WorkTimeout) and end_interrupted(connection, session):
        return False  # it was stopped here, before it could commit
    # work in autocommit may have closed the connection itself
    may_be_lost = atomic or _is_of_database(error)
    return may_be_lost and end_if_lost(connection, session if atomic else None)


def _is_of_database(error: Exception) -> bool:
    return any(isinstance(each, Error) for each in (error, error.__cause__, error.__context__))


def _fail(claim: lifecycle.Claim, item: TaskItem, error: str, *, ends_task: bool) -> None:
    with transaction.atomic(using=claim.alias):
        lifecycle.hold_fence(claim)
        failed = TaskItem.Status.FAILED
        lifecycle.end_item(claim, item, failed, error=error, ends_task=ends_task)


def _do(claim: lifecycle.Claim, item: TaskItem, run: Run, *, ends_task: bool) -> None:
    obj, work = _load(item, claim.alias)
    end = partial(lifecycle.end_item, claim, item, TaskItem.Status.DONE, ends_task=ends_task)
    if work.options.atomic:
        for attempt in attempts(claim.alias):
            # the callbacks that follow the commit are no part of the run
            with attempt, transaction.atomic(using=claim.alias), noticed(claim.alias):
                lifecycle.hold_fence(claim)
                with running(run), fenced(claim):
                    returned = _call_in_time(run, obj, work, item)
                if not ends_task:  # whose release confirms it
                    get_store().confirm(claim.task.key, claim.alias)
                end(returned=returned)
            if attempt.is_to_be_repeated:  # what it did to the object is undone
                obj, work = _load(item, claim.alias)
    else:
        with running(run):
            returned = _call_in_time(run, obj, work, item)
        session = session_of(connections[claim.alias])
        try:
            for attempt in attempts(claim.alias):
                with attempt, transaction.atomic(using=claim.alias):
                    lifecycle.hold_fence(claim)
                    end(returned=returned)
        except Error as error:
            if end_if_lost(connections[claim.alias], session):
                raise SessionLost from error
            raise


def _call_in_time(run: Run, obj: Model, work: WorkDeclaration, item: TaskItem) -> Any:
    try:
        return call_limited(work.options.timeout, str(item), partial(call, run, obj, work))
    except SystemExit as error:
        if type(error) is not SystemExit:
            raise  # that of a queue whose time limit has passed
        raise CalledExit(f"{item} called sys.exit({error.code!r}).") from error


def _load(item: TaskItem, alias: str) -> tuple[Model, WorkDeclaration]:
    model = item.model_class
    work = works_of(model).get(item.work) if model else None
    if model is None or work is None:
        said = gettext_noop(
            "%(model)s declares no work named “%(work)s” any more. If the method was renamed, keep "
            "its identity: @async_save(name='%(work)s')."
        )
        raise CannotRun(Message(said, model=item.model, work=item.work))
    obj = load(model, python_pk(model, item.object_id), alias)
    if obj is None:
        said = gettext_noop("%(model)s %(pk)s was deleted before “%(work)s” could run on it.")
        name = Message.of(model._meta.verbose_name or "")
        raise CannotRun(Message(said, model=name, pk=item.object_id, work=item.work))
    return obj, work


def call(
    run: Run, obj: Model, work: WorkDeclaration, args: Sequence[Any] = (), kwargs: Any = None
) -> Any:
    """Call the work as part of this run."""
    step = (ObjectKey.of(obj), work.name)
    run.active.append(step)
    try:
        return getattr(obj, work.method)(*args, **(kwargs or {}))
    finally:
        run.active.remove(step)
