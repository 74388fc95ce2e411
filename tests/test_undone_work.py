"""What was set in motion and then undone is set in motion again by the next save."""

from __future__ import annotations

import pytest

from tests.deliveries import deliver, undone
from tests.kinds.models import Clock

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]


def test_a_savepoint_that_work_rolls_back_takes_no_work_of_the_next_save_with_it() -> None:
    def save_after_a_failure(clock: Clock) -> None:
        with undone():
            clock.save()
        clock.save()

    Clock.script = save_after_a_failure
    [clock] = Clock.objects.bulk_create([Clock()])
    task = clock.wind.enqueue()
    deliver()

    task.result()
    clock.refresh_from_db()
    assert clock.strikes == 1
