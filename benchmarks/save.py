"""What a save costs: ``python -m benchmarks.save``, from the root of the repository.

Each thing is measured against a floor, in turn, in one run. A figure is good for its ratio, not
for its milliseconds. It makes the databases that it needs, and drops them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import median

from benchmarks.databases import DoesNotAnswer, in_fresh_database, stop_in_order
from benchmarks.timing import WARM_UP_ROUNDS, Compared, Row, table

IMPORT = """
import json, sys, time
start = time.perf_counter()
import django
between = time.perf_counter()
import powercrud_models
end = time.perf_counter()
print(json.dumps([between - start, end - between, "django_q" in sys.modules]))
"""
IMPORT_MUST_MS, IMPORT_AIM_MS = 50, 15
MOST_IMPORTS = 50


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.save",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--database",
        choices=("sqlite", "postgresql", "all"),
        help="default: sqlite, and postgresql when it answers",
    )
    parser.add_argument("--rounds", type=int, default=200, help="of each comparison (%(default)s)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    stop_in_order()
    rows, notes = _on_databases(options.database, options.rounds)
    row, note = _import(min(options.rounds, MOST_IMPORTS))
    print(table([*rows, row]), "", *notes, note, sep="\n")


def _on_databases(asked_for: str | None, rounds: int) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    notes: list[str] = []
    databases = ["sqlite", "postgresql"] if asked_for in (None, "all") else [asked_for]
    for database in databases:
        try:
            measured = in_fresh_database(database, "benchmarks.save_rows.measure", rounds)
        except DoesNotAnswer as error:
            if asked_for is not None:
                sys.exit(f"{database} does not answer: {error}")
            notes.append(f"{database} is left out, for it does not answer: {error}")
        else:
            rows += measured[0]
            notes += measured[1]
    return rows, notes


def _import(rounds: int) -> tuple[Row, str]:
    """Each child imports Django and then this package, and takes the time of both."""
    children = [
        json.loads(subprocess.check_output([sys.executable, "-c", IMPORT]))
        for _ in range(WARM_UP_ROUNDS + rounds)
    ][WARM_UP_ROUNDS:]
    compared = Compared(
        floor=median(django for django, _, _ in children),
        ours=median(ours for _, ours, _ in children),
        ratio=median(ours / django for django, ours, _ in children),
    )
    what = "import powercrud_models, on top of / import django"
    row = Row(what, "", compared, IMPORT_MUST_MS, IMPORT_AIM_MS, in_ms=True)
    with_queue = any(with_queue for _, _, with_queue in children)
    return (
        row,
        f"import powercrud_models imports django_q: {'YES, not met' if with_queue else 'no'}",
    )


if __name__ == "__main__":
    main()
