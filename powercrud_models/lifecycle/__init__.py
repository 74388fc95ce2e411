"""The life of a task: launch, claim, end, sweep. The only writer of ``AsyncTask.status``."""

from powercrud_models.lifecycle.cancelling import cancel, cancel_rest, is_cancelled, retry
from powercrud_models.lifecycle.claiming import claim
from powercrud_models.lifecycle.ending import (
    Claim,
    end_item,
    finish,
    has_ended,
    has_one_writer,
    hold_fence,
    renew,
)
from powercrud_models.lifecycle.holding import end_hold, start_hold
from powercrud_models.lifecycle.launching import (
    launch,
    lock_objects,
    lock_rows,
    send,
    tasks_alias,
)
from powercrud_models.lifecycle.sweeping import sweep

__all__ = [
    "Claim",
    "cancel",
    "cancel_rest",
    "claim",
    "end_hold",
    "end_item",
    "finish",
    "has_ended",
    "has_one_writer",
    "hold_fence",
    "is_cancelled",
    "launch",
    "lock_objects",
    "lock_rows",
    "renew",
    "retry",
    "send",
    "start_hold",
    "sweep",
    "tasks_alias",
]
