"""The table of this package agrees with its tests, and with those that it names elsewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests import faults
from tests.cluster import ROOT

FOLDER = Path(__file__).parent
FAULTS = 20


def table() -> str:
    assert faults.__doc__
    return faults.__doc__


def named() -> set[tuple[Path, str]]:
    """The tests that the table names: file and function."""
    found = re.findall(r"^ +(\S+\.py)::(test_\w+)$", table(), re.MULTILINE)
    assert found
    return {(ROOT / path if "/" in path else FOLDER / path, test) for path, test in found}


def written_in(file: Path) -> set[tuple[Path, str]]:
    """The tests of this file, read without running it."""
    tree = ast.parse(file.read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {(file, node.name) for node in functions if node.name.startswith("test_")}


def test_every_test_that_the_table_names_is_there() -> None:
    files = {file for file, _ in named()}
    assert {file for file in files if not file.exists()} == set()
    there = set().union(*(written_in(file) for file in files))
    assert named() - there == set()


def test_the_table_names_every_test_of_a_fault() -> None:
    here = set().union(*(written_in(file) for file in FOLDER.glob("test_*.py")))
    assert here - written_in(Path(__file__)) - named() == set()


def test_every_fault_has_a_test() -> None:
    rows = re.split(r"^(\d+)\. ", table(), flags=re.MULTILINE)[1:]
    numbers, texts = rows[::2], rows[1::2]
    assert [int(number) for number in numbers] == list(range(1, FAULTS + 1))
    assert [number for number, text in zip(numbers, texts, strict=True) if "::" not in text] == []
