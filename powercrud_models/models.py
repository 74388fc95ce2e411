"""The four tables. Their rows are the only truth about tasks, items, locks and signs of life."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ObjectDoesNotExist
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from powercrud_models.clock import DatabaseClock
from powercrud_models.exceptions import PowerCRUDError, TaskCancelled, TaskFailed
from powercrud_models.fields import KeyField, MessageField, new_key
from powercrud_models.messages import Message
from powercrud_models.types import TaskProgress
from powercrud_models.waiting import await_end, wait_until_ended


class AsyncTask(models.Model):
    """One run in the background: what was asked for, how it stands, how it ended."""

    class Status(models.TextChoices):
        PENDING = "pending", _("pending")
        WAITING = "waiting", _("waiting")
        IN_PROGRESS = "in_progress", _("in progress")
        SUCCESS = "success", _("success")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    UNFINISHED = (Status.PENDING, Status.WAITING, Status.IN_PROGRESS)
    PAYLOAD_VERSION = 1

    key = KeyField(primary_key=True, max_length=100, default=new_key, editable=False)
    label = MessageField()
    status = models.CharField(max_length=11, choices=Status, default=Status.PENDING)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_constraint=False,  # a launch shall not wait for whoever changes the user's row
    )
    payload_version = models.PositiveSmallIntegerField(default=PAYLOAD_VERSION)
    fence = models.PositiveIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0)
    conflicts = models.PositiveIntegerField(default=0)
    recoveries = models.PositiveIntegerField(default=0)
    sends = models.PositiveIntegerField(default=0)
    queue_error = models.TextField(blank=True, default="")
    error = MessageField(blank=True, default="")
    created_at = models.DateTimeField(db_default=DatabaseClock())
    resend_at = models.DateTimeField(db_default=DatabaseClock())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        ordering = ("-created_at",)
        indexes = (models.Index(fields=("status", "resend_at"), name="powercrud_task_due"),)

    def __str__(self) -> str:
        return str(self.label)

    @property
    def is_finished(self) -> bool:
        return self.status not in self.UNFINISHED

    @property
    def progress(self) -> TaskProgress:
        """How far it has come, read now (two queries)."""
        [standing] = _above("standings").standings([self], self._state.db).values()
        return standing.progress  # type: ignore[no-any-return]

    def _items(self) -> models.QuerySet[TaskItem]:
        """Its items, from the database that it was read from: a router may name a replica."""
        return TaskItem.objects.using(self._state.db).filter(task_id=self.key)

    def describe(self) -> Message:
        """What it does, for whom, since when and how far: for messages (three queries)."""
        progress, label = self.progress, self.label
        if progress.items_total > 1:
            more = progress.items_total - 1
            label = Message(gettext_noop("%(label)s and %(more)s more"), label=label, more=more)
        since = timezone.localtime(self.created_at) if settings.USE_TZ else self.created_at
        return Message(
            gettext_noop(
                "the task “%(label)s”, started%(by)s at %(since)s, %(status)s, %(progress)s"
            ),
            label=label,
            by=self._by_whom(),
            since=f"{since:%H:%M:%S}",
            status=Message.of(self.Status(self.status).label),
            progress=progress.as_message(),
        )

    def _by_whom(self) -> str:
        try:
            return Message(gettext_noop(" by %(user)s"), user=str(self.user)) if self.user else ""
        except ObjectDoesNotExist:  # the user was deleted behind Django's back
            return ""

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end, and return what the work returned.

        A list with one value per item for a task of several items. ``timeout`` is in seconds;
        None waits for ever.

        Raises TaskFailed when the task has failed, TaskCancelled when it was cancelled,
        TimeoutError when it has not ended in time, and PowerCRUDError inside a transaction that
        keeps it from ending: the one that launched it, and on SQLite any that is open.

        >>> book.recount.enqueue().result(timeout=60)
        29551
        """
        wait_until_ended(self, timeout)
        return self._result()

    async def aresult(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109  as result()
        """``result()`` for async code, which goes on with other things meanwhile."""
        await await_end(self, timeout)
        return await sync_to_async(self._result)()

    def _result(self) -> Any:
        if self.status == self.Status.CANCELLED:
            raise TaskCancelled(self)
        if self.status != self.Status.SUCCESS:
            raise TaskFailed(self)
        values = [item.value for item in self._items().order_by("pk")]
        return values[0] if len(values) == 1 else values

    result.alters_data = True  # type: ignore[attr-defined]  # a page shall not wait for a task

    def cancel(self) -> None:
        """End the task without doing what is left of it.

        At once while nobody has begun it; in progress at its next item, or at the next step of a
        ``progress()`` loop, which raises TaskCancelled in the work. What is done stays done. A
        task that has ended stays as it is.

        Raises PowerCRUDError for a ``hold()``.

        >>> task.cancel()
        """
        _above("lifecycle").cancel(self)
        self.refresh_from_db(using=self._state.db)

    cancel.alters_data = True  # type: ignore[attr-defined]

    def retry(self) -> None:
        """Queue again what failed or was not done, under the same locks as at first.

        Raises ConflictError, and changes nothing, when another task holds what it touches, and
        PowerCRUDError for a task that has not ended or has succeeded, and for a ``hold()``.

        >>> task.retry()
        >>> task.result(timeout=60)
        """
        _above("lifecycle").retry(self)
        self.refresh_from_db(using=self._state.db)

    retry.alters_data = True  # type: ignore[attr-defined]


def _above(module: str) -> Any:
    """A module that stands above these tables, and is asked for when it is needed."""
    return import_module(f"powercrud_models.{module}")


class TaskItem(models.Model):
    """One unit of a task: this work on this object."""

    class Status(models.TextChoices):
        TODO = "todo", _("to do")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")
        SKIPPED = "skipped", _("skipped")

    task = models.ForeignKey(
        AsyncTask, on_delete=models.CASCADE, related_name="items", db_constraint=False
    )
    model = KeyField(max_length=200)
    object_id = KeyField(max_length=255)
    work = KeyField(max_length=100)
    status = models.CharField(max_length=7, choices=Status, default=Status.TODO)
    tries = models.PositiveIntegerField(default=0)
    error = MessageField(blank=True, default="")
    returned = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    returned_as_text = models.BooleanField(default=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("task", "model", "object_id", "work"), name="powercrud_item_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.model} {self.object_id}: {self.work}"

    @property
    def model_class(self) -> type[models.Model] | None:
        """The class that was saved, maybe a proxy; None when the code has it no more."""
        try:
            return apps.get_model(self.model)
        except LookupError:
            return None

    @property
    def value(self) -> Any:
        """What the work returned.

        Raises PowerCRUDError for a value that JSON cannot carry.
        """
        if self.returned_as_text:
            raise PowerCRUDError(
                f"{self} returned {self.returned}, which JSON cannot carry. The work is done; to "
                "get its result, let it return numbers, text, lists or dicts."
            )
        return self.returned


class ObjectLock(models.Model):
    """Who holds what: one object, one holder."""

    pk = models.CompositePrimaryKey("model", "object_id")
    model = KeyField(max_length=200)
    object_id = KeyField(max_length=255)
    task = models.ForeignKey(
        AsyncTask,
        on_delete=models.DO_NOTHING,  # a lock outlives no task: `finish` releases it
        related_name="locks",
        db_constraint=False,  # a foreign key would block heartbeats, and slow each lock down
    )
    since = models.DateTimeField(db_default=DatabaseClock())

    def __str__(self) -> str:
        return f"{self.model} {self.object_id}"


class TaskPulse(models.Model):
    """A running task's sign of life; written by connections other than the work's."""

    task = models.OneToOneField(
        AsyncTask,
        primary_key=True,
        on_delete=models.CASCADE,
        related_name="pulse",
        db_constraint=False,
    )
    fence = models.PositiveIntegerField()
    lease_until = models.DateTimeField()
    beat_at = models.DateTimeField()
    item_id = models.BigIntegerField(null=True)
    current = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(null=True)
    cancel_requested = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"pulse of {self.task_id}"
