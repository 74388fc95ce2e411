"""What locks cost: ``python -m benchmarks.locks``, from the root of the repository.

The same objects are locked, looked up and released by this package, by django-powercrud (with the
cache that its manual recommends, on the same server), and by a bare floor, in turn, in one run. A
figure is good for its ratio, not for its milliseconds. It makes the databases that it needs, and
drops them; in Redis it uses keys of its own, and deletes them.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.columns import in_columns
from benchmarks.command import new_parser
from benchmarks.databases import DoesNotAnswer, in_fresh_database, stop_in_order
from benchmarks.lock_figures import MANY, Figures, Noise, faster_than_reference
from benchmarks.settings import cache_of

SERVERS = ("sqlite", "postgresql", "mariadb", "redis")
HEADINGS = (
    *("server", "objects", "reference", "ours", "floor"),
    *("reference / ours", "must", "aim", "met?", "ours / floor", "must", "aim", "met?"),
)
FLOOR = (2.0, 1.3)
"""How many times the floor's time will do, and what to aim at."""


def main() -> None:
    options = _options()
    stop_in_order()
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for server in options.server or SERVERS:
        try:
            figures, noise = in_fresh_database(
                "sqlite" if server == "redis" else server,
                "benchmarks.locks_rounds.run",
                server,
                options.objects,
                options.rounds,
                options.foreign,
                **cache_of(server),
                synchronous="NORMAL",
            )
        except DoesNotAnswer as error:
            if options.server:
                sys.exit(f"{server} does not answer: {error}")
            notes.append(f"{server} is left out, for it does not answer: {error}")
        else:
            rows += [_row(server, each) for each in figures]
            notes += [*_slopes(server, figures), _noise(server, noise, options.foreign)]
    print("acquire + holders + release; medians of all rounds", "")
    print(in_columns(HEADINGS, rows, numbers={1, 2, 3, 4, 5, 6, 7, 9, 10, 11}), "", sep="\n")
    print(*notes, sep="\n")
    sys.exit(any("NO" in row for row in rows) or any(note.endswith("NO") for note in notes))


def _options() -> argparse.Namespace:
    parser = new_parser("locks", __doc__)
    parser.add_argument(
        "--objects",
        type=lambda text: [int(number) for number in text.split(",")],
        default=[20, 200, 1000, 5000],
        help="how many, separated by commas (20,200,1000,5000)",
    )
    parser.add_argument(
        "--server", choices=SERVERS, action="append", help="default: each that answers"
    )
    parser.add_argument("--rounds", type=int, default=20, help="fewer for many (%(default)s)")
    parser.add_argument(
        "--foreign",
        type=int,
        default=1_000_000,
        help="locks of others that the store holds in the last comparison (%(default)s)",
    )
    options = parser.parse_args()
    if min(options.objects) < 1 or options.rounds < 1 or options.foreign < 1:
        parser.error("--objects, --rounds, --foreign: at least 1")
    return options


def _row(server: str, figures: Figures) -> tuple[str, ...]:
    limits = faster_than_reference(server, figures.objects)
    must, aim = (f"{limit:g}x" if limit else "" for limit in limits or (0, 0))
    met = _met(figures.faster, *limits) if limits else ""
    is_judged = figures.objects == MANY
    floor_must, floor_aim = (f"{limit:g}x" if is_judged else "" for limit in FLOOR)
    floor_met = _met(-figures.over_floor, *(-limit for limit in FLOOR)) if is_judged else ""
    return (
        server,
        f"{figures.objects:,}",
        *(f"{1000 * seconds:.2f} ms" for seconds in figures.seconds),
        *(f"{figures.faster:.1f}x", must, aim, met),
        *(f"{figures.over_floor:.2f}x", floor_must, floor_aim, floor_met),
    )


def _met(figure: float, must: float, aim: float) -> str:
    """``must`` and ``aim`` are the lowest figures that will do."""
    return "aim" if figure >= aim else "must" if figure >= must else "NO"


def _slopes(server: str, figures: list[Figures]) -> list[str]:
    """Seconds for one object more, from the fewest to the most."""
    fewest, most = figures[0], figures[-1]
    if most.objects <= fewest.objects:
        return []
    slopes = (
        f"{name} {1e6 * (high - low) / (most.objects - fewest.objects):.1f} us"
        for name, low, high in zip(
            ("reference", "ours", "floor"), fewest.seconds, most.seconds, strict=True
        )
    )
    return [f"{server}, for each object more: {', '.join(slopes)}"]


def _noise(server: str, noise: Noise, foreign: int) -> str:
    said = "within noise" if noise.is_within else "NO"
    return (
        f"{server}, {MANY:,} objects: {1000 * noise.empty:.2f} ms in an empty store (rounds from "
        f"{1000 * noise.fastest:.2f} to {1000 * noise.slowest:.2f}), {1000 * noise.full:.2f} ms "
        f"beside {foreign:,} locks of others: {said}"
    )


if __name__ == "__main__":
    main()
