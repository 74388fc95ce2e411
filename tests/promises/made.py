"""What the promises are tried on."""

from __future__ import annotations

from typing import Any

from tests.kinds.models import Bolt, Crew, Member, Part, Project


def make_project(name: str = "bridge", parts: int = 0, bolts: int = 0) -> Project:
    """A project with its descendants, of which no save has set anything in motion."""
    (project,) = Project.objects.bulk_create([Project(name=name)])
    made = Part.objects.bulk_create(
        [Part(name=f"part {number}", project=project) for number in range(parts)]
    )
    Bolt.objects.bulk_create(
        [Bolt(name=f"bolt {number}", part=part) for part in made for number in range(bolts)]
    )
    return project


def make_crew() -> tuple[Crew, Member]:
    (crew,) = Crew.objects.bulk_create([Crew(name="night")])
    (member,) = Member.objects.bulk_create([Member(name="Ada", crew=crew)])
    return crew, member


def effects(project: Project) -> int:
    return Project.objects.values_list("effects", flat=True).get(pk=project.pk)


def name_of(obj: Any) -> str:
    name: str = type(obj).objects.values_list("name", flat=True).get(pk=obj.pk)
    return name
