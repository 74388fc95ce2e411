"""The app: it registers the system checks, and is told when a queue starts a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from powercrud_models.queues.base import WorkerProcess


class PowercrudModelsConfig(AppConfig):
    name = "powercrud_models"
    verbose_name = _("Asynchronous saves")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from powercrud_models import checks  # noqa: F401  it needs the models
        from powercrud_models.queues import django_q2

        if django_q2.missing() is None:
            django_q2.when_a_worker_begins(_begin)


def _begin(process: WorkerProcess) -> None:
    from powercrud_models import worker

    worker.begin(process)
