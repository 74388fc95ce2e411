"""Look after overdue tasks from cron, a systemd timer or by hand."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from powercrud_models.lifecycle import sweep


class Command(BaseCommand):
    help = (
        "Send again what the queue has lost, take up what dead workers left, release locks "
        "without a task, and delete the record of tasks that ended long ago."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        counts = sweep()
        self.stdout.write(", ".join(f"{kind}: {count}" for kind, count in counts.items()))
