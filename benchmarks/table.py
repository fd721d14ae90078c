"""What every benchmark shares: rows, a printed table, a JSON file, an exit code that says whether goals are met."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NoReturn

__all__ = ["OUT", "Row", "finish"]

OUT: Final = Path(__file__).resolve().parent / "out"


@dataclass(frozen=True)
class Row:
    """One number beside the one it is compared with in the same run.

    `goal` bounds the ratio from above; None: the row explains others, and no goal is set for it.
    """

    name: str
    value: float
    unit: str
    reference: str
    ratio: float
    goal: float | None

    @property
    def met(self) -> bool:
        """Whether the ratio is within its goal."""
        return self.goal is None or self.ratio <= self.goal


def finish(name: str, rows: list[Row]) -> NoReturn:
    """Print the table, write `benchmarks/out/NAME.json`, and end: 0 only if every goal is met."""
    head = ("name", "value", "unit", "reference", "ratio", "goal", "met")
    body = [(r.name, f"{r.value:.4g}", r.unit, r.reference, f"{r.ratio:.3g}", *_verdict(r)) for r in rows]
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
    for line in (head, *body):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps([{**asdict(row), "met": row.met} for row in rows], indent=1) + "\n")
    sys.exit(0 if all(row.met for row in rows) else 1)


def _verdict(row: Row) -> tuple[str, str]:
    return ("-", "-") if row.goal is None else (f"<= {row.goal:g}", "yes" if row.met else "NO")
