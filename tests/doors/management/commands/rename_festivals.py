from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from tests.doors.models import Festival


class Command(BaseCommand):
    help = "Give every festival this name, in one transaction."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        with transaction.atomic():
            for festival in Festival.objects.order_by("pk"):
                festival.name = name
                festival.save()
