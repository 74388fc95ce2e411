"""What is declared about the distribution agrees with itself and with the code.

`.ci/run` builds the wheel, installs it alone and uses it; here stands what can go wrong without
failing there.
"""

import configparser
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "powercrud_models"


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    return read_ini("setup.cfg")


def read_ini(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    assert parser.read(ROOT / name)
    return parser


def requirements(text: str) -> list[Requirement]:
    lines = (line.strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def classified(setup_cfg: configparser.ConfigParser, prefix: str) -> set[str]:
    """The versions that the classifiers name, written as tox does: 3.11 is 311."""
    text = setup_cfg["metadata"]["classifiers"]
    found = re.findall(rf"^{prefix} :: (\d+)\.(\d+)$", text, re.MULTILINE)
    return {major + minor for major, minor in found}


def test_the_core_needs_django_and_wrapt_only(setup_cfg: configparser.ConfigParser) -> None:
    core = requirements(setup_cfg["options"]["install_requires"])
    assert {requirement.name for requirement in core} == {"Django", "wrapt"}


def test_every_requirement_has_both_ends_and_stands_once(
    setup_cfg: configparser.ConfigParser,
) -> None:
    extras = dict(setup_cfg["options.extras_require"])
    core = setup_cfg["options"]["install_requires"]
    everything = requirements("\n".join([core, *extras.values()]))
    own_name = setup_cfg["metadata"]["name"]
    foreign = [requirement for requirement in everything if requirement.name != own_name]
    own = [requirement for requirement in everything if requirement.name == own_name]

    for requirement in foreign:
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">=", "<"}, requirement
    names = [requirement.name.lower() for requirement in foreign]
    assert sorted(names) == sorted(set(names))
    # pip only warns of an extra that does not exist.
    assert {extra for requirement in own for extra in requirement.extras} <= set(extras)


def test_the_extras_that_readers_are_told_to_install_exist(
    setup_cfg: configparser.ConfigParser,
) -> None:
    texts = [ROOT / "README.md", *PACKAGE.rglob("*.py")]
    pattern = re.compile(r"(?:django-powercrud-models|\.)\[([a-z0-9,]+)\]")
    named = {
        extra
        for path in texts
        for group in pattern.findall(path.read_text())
        for extra in group.split(",")
    }
    assert named
    assert named <= set(setup_cfg["options.extras_require"])


def test_pyproject_says_how_to_build_and_nothing_else() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(pyproject) == {"build-system"}


def test_tox_tries_every_version_that_the_classifiers_promise(
    setup_cfg: configparser.ConfigParser,
) -> None:
    env_list = read_ini("tox.ini")["tox"]["env_list"]

    def factors(name: str) -> set[str]:
        return set(",".join(re.findall(rf"\b{name}{{?([\d,]+)", env_list)).split(","))

    assert factors("py") == classified(setup_cfg, "Programming Language :: Python")
    assert factors("django") == classified(setup_cfg, "Framework :: Django")


def test_every_directory_with_code_is_a_package() -> None:
    """`packages = find:` leaves out a directory that has no `__init__.py`."""
    directories = {path.parent for path in PACKAGE.rglob("*.py")}
    assert PACKAGE in directories
    missing = [path for path in directories if not (path / "__init__.py").exists()]
    assert missing == []


def test_types_are_shipped(setup_cfg: configparser.ConfigParser) -> None:
    assert (PACKAGE / "py.typed").exists()
    assert "py.typed" in setup_cfg["options.package_data"]["powercrud_models"].split()


def test_the_changelog_knows_this_version(setup_cfg: configparser.ConfigParser) -> None:
    version = setup_cfg["metadata"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
