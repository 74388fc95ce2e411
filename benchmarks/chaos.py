"""Kill and stop what runs tasks, and count what became of them: ``python -m benchmarks.chaos``.

Run it from the root of the repository, on Linux. Workers, sentinel, monitor, pusher, the whole
cluster and the process that launches the tasks get SIGKILL, SIGTERM, or SIGSTOP and later SIGCONT;
a supervisor starts again what has ended. It makes the database that it needs, and drops it.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.columns import in_columns
from benchmarks.command import BROKERS, DATABASES, in_fresh_queue, new_parser
from benchmarks.databases import DoesNotAnswer, stop_in_order
from benchmarks.outcome import Outcome

LEASE_SECONDS = 5
TAKEOVER_SECONDS = 5
"""How long after the end of its lease a dead worker's task may wait, while a worker runs."""
POWERCRUD = {"LEASE_SECONDS": LEASE_SECONDS, "HEARTBEAT_SECONDS": 1}
Q_CLUSTER = {
    "workers": 2,
    "queue_limit": 2,
    "bulk": 1,
    "poll": 0.05,
    "scheduler": False,
    # So long that django-q2's own second delivery plays no part.
    "timeout": 600,
    "retry": 3600,
    "save_limit": -1,
    "ack_failures": True,
}
HEADINGS = ("what", "figure", "must", "met?")


def main() -> None:
    options = _options()
    stop_in_order()
    try:
        outcome: Outcome = in_fresh_queue(
            options.database,
            options.broker,
            "benchmarks.chaos_run.run",
            options.tasks,
            options.kill_every,
            options.seed,
            options.keep,
            q_cluster=Q_CLUSTER,
            powercrud=POWERCRUD,
        )
    except DoesNotAnswer as error:
        sys.exit(f"{options.database} or {options.broker} does not answer: {error}")
    rows = list(_rows(outcome))
    where = f"{options.broker} broker, {options.database}, seed {options.seed}"
    print(f"{where}, something struck every {options.kill_every:g} s; {POWERCRUD}", "")
    print(in_columns(HEADINGS, rows, numbers={1, 2}), "", *_notes(outcome), sep="\n")
    sys.exit(any(row[-1] == "NO" for row in rows))


def _options() -> argparse.Namespace:
    parser = new_parser("chaos", __doc__)
    parser.add_argument("--tasks", type=int, default=60, help="(%(default)s)")
    parser.add_argument("--kill-every", type=float, default=1.5, help="seconds (%(default)s)")
    parser.add_argument("--broker", choices=BROKERS, default="orm")
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (%(default)s)")
    parser.add_argument("--keep", default="", help="a folder for the logs of the processes")
    options = parser.parse_args()
    if options.tasks < 1 or options.kill_every <= 0:
        parser.error("--tasks: at least 1; --kill-every: more than 0")
    return options


def _rows(outcome: Outcome) -> list[tuple[str, str, str, str]]:
    def exactly(what: str, figure: int, must: int) -> tuple[str, str, str, str]:
        return what, str(figure), str(must), "yes" if figure == must else "NO"

    longest = LEASE_SECONDS + TAKEOVER_SECONDS
    return [
        exactly("tasks whose effects were seen exactly once", outcome.once, outcome.tasks),
        exactly("tasks with an effect more than once", outcome.more, 0),
        exactly("tasks with an effect never", outcome.never, 0),
        exactly("tasks that failed", outcome.failed, 0),
        exactly("tasks that had not ended", outcome.unfinished, 0),
        exactly("locks left", outcome.locks, 0),
        exactly("false successes", outcome.false_successes, 0),
        (
            "longest that a dead worker kept a task, with a worker running",
            f"{outcome.held_by_dead:.1f} s",
            f"{longest} s",
            "yes" if outcome.held_by_dead <= longest else "NO",
        ),
        ("longest that a stopped one did", f"{outcome.held_by_stopped:.1f} s", "", ""),
        ("longest that a task waited for a worker", f"{outcome.waiting:.1f} s", "", ""),
    ]


def _notes(outcome: Outcome) -> list[str]:
    how = "by force" if outcome.stopped_by_force else "in order"
    return [
        f"struck: {_counted(outcome.strikes)}",
        f"started again because: {_counted(outcome.restarts)}",
        f"{outcome.claims} claims, {outcome.recoveries} after a lease had run out, "
        f"{outcome.seconds:.0f} s; the last cluster ended {how}",
        *(f"failed: {error}" for error in outcome.errors),
    ]


def _counted(times: dict[str, int]) -> str:
    return ", ".join(f"{what} {n}" for what, n in sorted(times.items())) or "nothing"


if __name__ == "__main__":
    main()
