"""The life of a task: launch, claim, end, sweep. The only writer of ``AsyncTask.status``."""

from powercrud_models.lifecycle.cancelling import cancel, cancel_rest, is_cancelled, retry
from powercrud_models.lifecycle.claiming import claim
from powercrud_models.lifecycle.ending import (
    Claim,
    end_item,
    finish,
    has_ended,
    hold_fence,
    record_try,
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
from powercrud_models.lifecycle.limits import options_of
from powercrud_models.lifecycle.returning import give_back, give_up, put_off
from powercrud_models.lifecycle.statements import has_one_writer, waits_before_it_looks
from powercrud_models.lifecycle.sweeping import seconds_until_due, sweep

__all__ = [
    "Claim",
    "cancel",
    "cancel_rest",
    "claim",
    "end_hold",
    "end_item",
    "finish",
    "give_back",
    "give_up",
    "has_ended",
    "has_one_writer",
    "hold_fence",
    "is_cancelled",
    "launch",
    "lock_objects",
    "lock_rows",
    "options_of",
    "put_off",
    "record_try",
    "renew",
    "retry",
    "seconds_until_due",
    "send",
    "start_hold",
    "sweep",
    "tasks_alias",
    "waits_before_it_looks",
]
