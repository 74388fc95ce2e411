"""What docs/declarations.md shows works, and its tables are complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test.utils import isolate_apps

from powercrud_models import async_save
from powercrud_models.declarations import works_of
from powercrud_models.types import RunOptions, WorkOptions

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "declarations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TABLE = re.compile(r"^\| `([^`]+)` \|(?: `([^`]+)` \|)?", re.MULTILINE)


@pytest.fixture
def models() -> Iterator[dict[str, Any]]:
    with isolate_apps("tests.kinds") as registry:
        names: dict[str, Any] = {"__name__": "tests.kinds.documented"}
        for block in BLOCKS:
            exec(block, names)
        assert registry
        assert not run_checks(list(registry.get_app_configs()), tags=["powercrud_models"])
        yield names


def test_the_examples_declare_what_the_page_says(models: dict[str, Any]) -> None:
    chapter = works_of(models["Chapter"])
    assert list(chapter) == ["recount", "publish", "proofread"]
    appendix = works_of(models["Appendix"])
    assert [path.path for path in appendix["recount"].paths] == ["footnotes"]
    assert appendix["recount"].batch_methods == ("those_that_refer_to_it",)
    assert not appendix["publish"].batch_methods
    assert works_of(models["Quotation"])["recount"].options.on == "create"


def test_every_option_is_in_the_table_with_its_default() -> None:
    rows = {name: default for name, default in TABLE.findall(PAGE) if default}
    defaults = {field.name: field.default for field in fields(WorkOptions)} | {"on": "save"}
    written = {
        name: str(default).join('""' if isinstance(default, str) else ("", ""))
        for name, default in defaults.items()
    }
    assert rows == written
    assert list(rows)[3:] == list(RunOptions.__annotations__)
    assert list(rows)[:3] == list(signature(async_save).parameters)[1:-1]


def test_every_check_of_a_declaration_is_in_the_table() -> None:
    package = ROOT / "powercrud_models"
    source = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    in_code = set(re.findall(r'"(?:powercrud_models\.)?([EW]\d{3})"', source))
    of_settings = {
        check
        for check in in_code
        if "E010" <= check <= "E015" or "E018" <= check <= "E020" or check > "W010"
    }
    in_page = {name for name, _ in TABLE.findall(PAGE) if re.fullmatch(r"[EW]\d{3}", name)}
    assert in_page == in_code - of_settings
