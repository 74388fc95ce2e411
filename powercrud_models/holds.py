"""``hold()``: reserve objects from any code, as a task does for its work."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from django.db import Error, connections, router
from django.db.models import Model, QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext_noop

from powercrud_models import guard, lifecycle
from powercrud_models.context import Run, current_run, current_user, running
from powercrud_models.deadlocks import attempts
from powercrud_models.exceptions import LeaseLost, PowerCRUDError
from powercrud_models.heartbeat import Heartbeat
from powercrud_models.launches import in_transaction
from powercrud_models.messages import Message
from powercrud_models.models import AsyncTask
from powercrud_models.resolution import keys_in
from powercrud_models.stores import get_store
from powercrud_models.types import ObjectKey

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

logger = logging.getLogger("powercrud_models")

P = ParamSpec("P")
R = TypeVar("R")

RUN_LATER = (iscoroutinefunction, isgeneratorfunction, isasyncgenfunction)
SAID_BY = "hold()"


class hold:  # noqa: N801  reads like a function
    """Reserve the objects for the length of a block: nobody else can save, delete or hold them.

    ``objects`` are an object, a queryset, ``(model, pks)``, or an iterable of these; ``label``
    what people read who run into it, ``user`` whom it is done for, else the acting user. It holds
    with async off as well: other processes are kept out. What this code saves in the block runs
    inline, under these locks.

    The block gets the AsyncTask: in progress for as long as it runs, then a success, or failed
    with the traceback of the error, which goes on. Its lease is that of a task, LEASE_SECONDS,
    and is renewed by a heartbeat: when the process dies, the objects are free soon after, and
    nobody runs it again.

    Inside a task, and inside another ``hold``, the objects join that one's, are released with
    it, and the block gets that task; None in work that runs inline, which has no task.

    It decorates functions, too, and then looks for the objects at each call. In a coroutine, call
    a function that uses it with ``sync_to_async``.

    Raises ConflictError, and holds nothing, when another task holds one of the objects;
    PowerCRUDError inside a transaction, with which the locks would commit too late; ValueError
    for an object without a key; and at the end of the block, or at a save in it, LeaseLost when
    the process was stopped for so long that others were let in, or Redis has lost the locks.

    >>> with hold(Book.objects.filter(shelf=3), label="nightly import") as task:
    ...     import_books()
    """

    def __init__(self, objects: Any, *, label: StrOrPromise = "", user: Any = None) -> None:
        if not isinstance(label, str | Promise):
            raise TypeError(f"hold(label={label!r}): label must be text.")
        if isinstance(objects, Iterator):  # it may be asked more than once
            objects = tuple(objects)
        self._reserve = partial(_hold, objects, label, user)
        self._here = threading.local()  # several threads may share it

    def __enter__(self) -> AsyncTask | None:
        block = self._reserve()
        task = block.__enter__()
        vars(self._here).setdefault("open", []).append(block)
        return task

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._here.open.pop().__exit__(kind, error, traceback)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Hold the objects during each call of the function."""
        if any(kind(function) for kind in RUN_LATER):
            raise TypeError(
                f"@hold on {function.__qualname__}: its call would end, and let go of the objects, "
                "before any of it has run. Decorate a plain function."
            )

        @wraps(function)
        def held(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._reserve():  # several threads may call it at the same time
                return function(*args, **kwargs)

        return held


@contextmanager
def _hold(objects: Any, label: StrOrPromise, user: Any) -> Iterator[AsyncTask | None]:
    alias, run = lifecycle.tasks_alias(), current_run()
    if run is not None and run.is_joined_by(connections[alias]):
        keys = _keys(objects, alias)
        with guard.writing(keys, alias, SAID_BY):
            lifecycle.lock_objects(keys, alias, run.owner)
        yield run.task
        return
    _refuse_transaction(alias)
    keys = _keys(objects, alias)
    text = label if isinstance(label, str) else Message.of(label)
    held = _reserve(keys, text or _label(keys), user, alias)
    run = Run(owner=held.task.key, claim=held)
    try:
        with Heartbeat(held, run.live), running(run):
            yield held.task
            get_store().confirm(held.task.key, alias)
    except BaseException:  # whatever it is, it is raised again
        _fail(held, traceback.format_exc())
        raise
    lifecycle.end_hold(held)


def _keys(objects: Any, alias: str) -> set[ObjectKey]:
    keys = set(keys_in(objects, f"{SAID_BY} was given", alias))
    aliases = {router.db_for_write(key.model_class) for key in keys}
    aliases.update(filter(None, map(_alias_of, _listed(objects))))
    if aliases - {alias}:
        raise PowerCRUDError(
            f"{SAID_BY}: the objects are on the database {min(aliases - {alias})!r}, locks are on "
            f"{alias!r}, and nobody looks for one there. Use select_for_update() in a transaction."
        )
    return keys


def _listed(objects: Any) -> Iterable[Any]:
    return objects if isinstance(objects, list | tuple | set | frozenset) else [objects]


def _alias_of(each: Any) -> str | None:
    """Where an object is written to, which may be elsewhere than others of its model."""
    match each:
        case Model():
            return router.db_for_write(type(each), instance=each)
        case QuerySet():
            return router.db_for_write(each.model, **each._hints)  # type: ignore[attr-defined]
    return None


def _refuse_transaction(alias: str) -> None:
    connection = connections[alias]
    if in_transaction(alias) or not (connection.in_atomic_block or connection.get_autocommit()):
        raise PowerCRUDError(
            f"{SAID_BY} inside a transaction: others would see the locks only when it commits, and "
            "then the block is over. Call it outside of atomic(); a view under ATOMIC_REQUESTS "
            "needs @transaction.non_atomic_requests. To keep others out for the length of one "
            "transaction, select_for_update() is enough."
        )


def _reserve(keys: set[ObjectKey], label: str, user: Any, alias: str) -> lifecycle.Claim:
    if getattr(user, "pk", None) is None:  # nobody who can be named
        user = current_user()
    held: lifecycle.Claim | None = None
    for attempt in attempts(alias):
        with attempt, guard.writing(keys, alias, SAID_BY):
            held = lifecycle.start_hold(keys, label, user, alias)
    assert held is not None, "the last attempt succeeds or raises"
    return held


def _label(keys: set[ObjectKey]) -> Message:
    """What people read when the code gives no label."""
    if not keys:
        return Message(gettext_noop("hold nothing"))
    key, more = min(keys), len(keys) - 1
    model = Message.of(key.model_class._meta.verbose_name or "")
    if not more:
        return Message(gettext_noop("hold %(model)s %(pk)s"), model=model, pk=key.pk)
    return Message(
        gettext_noop("hold %(model)s %(pk)s and %(more)s more"), model=model, pk=key.pk, more=more
    )


def _fail(held: lifecycle.Claim, error: str) -> None:
    """Record the error; the one that the block raised is the one that goes on."""
    try:
        lifecycle.end_hold(held, error)
    except (LeaseLost, Error):
        logger.exception("“%s” has failed, and this could not be recorded", held.task.label)
