"""The app: it registers the system checks, and imports no queue."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class PowercrudModelsConfig(AppConfig):
    name = "powercrud_models"
    verbose_name = _("Asynchronous saves")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from powercrud_models import checks  # noqa: F401  it needs the models
