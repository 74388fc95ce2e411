"""No-op tasks per second, with two workers: ``python -m benchmarks.throughput``.

Run it from the root of the repository, on Linux. Plain django-q2 and this package do the same
number of no-op tasks, in turn, in one run; all are queued before a cluster starts, and the first
tenth is not counted. A task counts when its outcome is recorded, for nobody can know it before:
django-q2's monitor does that, one after another; here the worker does, with the work. A figure is
good for its ratio, not for its tasks per second. It makes the databases that it needs, and drops
them.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

from benchmarks.columns import in_columns
from benchmarks.command import BROKERS, DATABASES, in_fresh_queue, new_parser
from benchmarks.contenders import CONTENDERS, OURS, PLAIN, SAVES_NONE, Result
from benchmarks.databases import DoesNotAnswer, stop_in_order

LIMITS = {"orm": (2.0, 3.0), "redis": (4.0, 7.0)}
"""The lowest ratio that will do, and the one to aim at."""
HEADINGS = (
    "broker",
    "database",
    "plain",
    "plain, saves none",
    "ours",
    "ours / plain",
    "/ plain, saves none",
    "must",
    "aim",
    "met?",
)


def main() -> None:
    options = _options()
    stop_in_order()
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for broker in BROKERS if options.broker is None else (options.broker,):
        for database in DATABASES if options.database is None else (options.database,):
            try:
                results: list[dict[str, Result]] = in_fresh_queue(
                    database,
                    broker,
                    "benchmarks.throughput_rounds.run",
                    options.tasks,
                    options.rounds,
                )
            except DoesNotAnswer as error:
                if broker == options.broker or database == options.database:
                    sys.exit(f"{broker} broker or {database} does not answer: {error}")
                notes.append(f"{broker} broker, {database}: left out, no answer: {error}")
            else:
                rows.append(_row(broker, database, results))
                notes.append(_note(broker, database, results))
                notes += (
                    f"{broker} broker, {database}: {result.fault}"
                    for result in (each[OURS] for each in results)
                    if result.fault
                )
    print(f"tasks per second, medians of {options.rounds} rounds of {options.tasks} tasks", "")
    print(in_columns(HEADINGS, rows, numbers=range(2, 9)), "", sep="\n")
    print(*(f"{name}: {q_cluster}" for name, q_cluster in CONTENDERS.items()), sep="\n")
    print(*notes, sep="\n")
    sys.exit(any(row[-1] == "NO" for row in rows))


def _options() -> argparse.Namespace:
    parser = new_parser("throughput", __doc__)
    parser.add_argument("--broker", choices=BROKERS, help="default: each that answers")
    parser.add_argument("--database", choices=DATABASES, help="default: each that answers")
    parser.add_argument("--tasks", type=int, default=500, help="of each round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    options = parser.parse_args()
    if options.tasks < 10 or options.rounds < 1:
        parser.error("--tasks: at least 10; --rounds: at least 1")
    return options


def _row(broker: str, database: str, results: list[dict[str, Result]]) -> tuple[str, ...]:
    def ratio(to: str) -> float:
        return median(each[OURS].rate / each[to].rate for each in results)

    must, aim = LIMITS[broker]
    reached = ratio(PLAIN)
    ended_well = not any(each[OURS].fault for each in results)
    met = "aim" if reached >= aim else "must" if reached >= must else "NO"
    return (
        broker,
        database,
        *(f"{median(each[name].rate for each in results):.0f}/s" for name in CONTENDERS),
        f"{reached:.2f}x",
        f"{ratio(SAVES_NONE):.2f}x",
        f"{must:g}x",
        f"{aim:g}x",
        met if ended_well else "NO",
    )


def _note(broker: str, database: str, results: list[dict[str, Result]]) -> str:
    run = (f"{name} {median(each[name].run for each in results):.0f}/s" for name in CONTENDERS)
    return f"{broker} broker, {database}, runs, recorded or not: {', '.join(run)}"


if __name__ == "__main__":
    main()
