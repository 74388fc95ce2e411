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
from benchmarks.timing import WARM_UP_ROUNDS, Row, table

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.save")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "all"))
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    stop_in_order()
    rows, notes = [], []
    for database in _databases(options.database):
        try:
            more_rows, more_notes = in_fresh_database(
                database, "benchmarks.save_rows.measure", options.rounds
            )
        except DoesNotAnswer as error:
            if options.database is not None:
                sys.exit(f"{database} does not answer: {error}")
            notes.append(f"{database} is left out, it does not answer: {error}")
        else:
            rows += more_rows
            notes += more_notes
    row, note = _import(options.rounds)
    print(table([*rows, row]), "", *notes, note, sep="\n")


def _databases(asked_for: str | None) -> list[str]:
    return ["sqlite", "postgresql"] if asked_for in (None, "all") else [asked_for]


def _import(rounds: int) -> tuple[Row, str]:
    """Each child imports Django, then this package: the two are measured side by side."""
    children = [
        json.loads(subprocess.check_output([sys.executable, "-c", IMPORT]))
        for _ in range(WARM_UP_ROUNDS + min(rounds, 50))
    ][WARM_UP_ROUNDS:]
    django, ours = (median(seconds) for seconds in list(zip(*children, strict=True))[:2])
    row = Row(
        what="import powercrud_models / import django",
        database="",
        floor=django,
        ours=ours,
        figure=ours * 1000,
        must=IMPORT_MUST_MS,
        aim=IMPORT_AIM_MS,
        unit=" ms",
    )
    imported = any(django_q for *_, django_q in children)
    return row, f"import powercrud_models imports django_q: {'YES, not met' if imported else 'no'}"


if __name__ == "__main__":
    main()
