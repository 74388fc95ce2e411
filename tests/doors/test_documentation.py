"""docs/django.md has a line for every door that is tested here, and no other."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import tests.doors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "django.md"
COLUMNS = ["Door", "What happens", "When an object is held"]


def doors_of(tested: Any) -> set[str]:
    """The doors that a test function, or one of its parameters, names."""
    marks = list(getattr(tested, "pytestmark", []))
    parameters = [mark.args[1] for mark in marks if mark.name == "parametrize"]
    for parameter in (each for several in parameters for each in several):
        marks += getattr(parameter, "marks", [])
    return {mark.args[0] for mark in marks if mark.name == "door"}


def all_tests() -> Iterator[tuple[str, Any]]:
    for module in pkgutil.iter_modules(tests.doors.__path__):
        if module.name.startswith("test_") and module.name != "test_documentation":
            found = vars(import_module(f"tests.doors.{module.name}"))
            yield from ((name, each) for name, each in found.items() if name.startswith("test_"))


def table() -> list[list[str]]:
    """The rows of the page's table, without the code marks in their first column."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [re.split(r"\s*(?<!\\)\|\s*", line.strip().strip("|")) for line in lines if "|" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    header = cells.index(COLUMNS)
    return [[row[0].replace("`", ""), *row[1:]] for row in cells[header + 2 :]]


def test_every_door_that_is_tested_has_its_line_and_the_other_way_round() -> None:
    tested = {door for _, each in all_tests() for door in doors_of(each)}
    assert {row[0] for row in table()} == tested


def test_every_test_names_its_door() -> None:
    found = list(all_tests())
    assert len(found) > 50
    assert [name for name, each in found if not doors_of(each)] == []


def test_every_line_says_what_happens_and_what_when_an_object_is_held() -> None:
    rows = table()
    assert len({row[0] for row in rows}) == len(rows)
    for row in rows:
        assert len(row) == len(COLUMNS), row
        assert all(row), row
