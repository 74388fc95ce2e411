"""A table of text."""

from __future__ import annotations

from collections.abc import Container, Sequence


def in_columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Container[int]
) -> str:
    """The rows under their headings; the columns in ``numbers`` to the right."""
    lines = [tuple(headings), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
