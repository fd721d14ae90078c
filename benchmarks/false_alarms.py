"""How often screening flags honest training, and how near honest training comes to each threshold.

    python benchmarks/false_alarms.py [RUNS]

Trains small models with the recipes of `tests/simulator/small_training.py` (72 of them; further runs take other seeds),
records each through `pot.record`, and screens it. One core, under three minutes for the default of 72 runs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from table import Row, finish

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "simulator"))

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["false_alarm_rows"]

COUNTED = ("files", "shape", "finite", "rate", "counter", "reach", "history")  # 0 in every honest run, or a defect


def recipes() -> Iterator[Any]:
    """Honest recipes without end: all of them, then all with other seeds."""
    from small_training import honest_recipes

    for turn in count():
        for recipe in honest_recipes():
            yield replace(recipe, seed=recipe.seed + 1000 * turn)


def false_alarm_rows(runs: int = 72) -> list[Row]:
    """Train and screen `runs` honest runs: false alarms, and the closest score per check beside its threshold."""
    from small_training import train

    from pot.audit.screening.checks import screen
    from pot.audit.screening.scoring import THRESHOLDS, scores

    closest: dict[str, tuple[float, str]] = {}
    alarms: list[str] = []
    segments = 0
    training = screening = 0.0
    for recipe in islice(recipes(), runs):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            run = train(Path(folder), recipe)
            trained = time.perf_counter()
            chain = run.chain()
            found, _ = scores(run.run_dir, chain)
            screening += time.perf_counter() - trained
            training += trained - start
            segments += len(found)
            if screen(run.run_dir, run.precommit, chain).suspicious:
                alarms.append(recipe.name)
        for one in found:
            for check, score in one.items():
                if score > closest.get(check, (-1.0, ""))[0]:
                    closest[check] = (score, recipe.name)
    rows = [
        Row("honest runs screened", runs, "runs", "50 runs", 50 / runs, 1),
        Row("false alarms", len(alarms), f"runs {', '.join(alarms)[:60]}".rstrip(), "none", len(alarms), 0),
        Row("time to screen", screening / segments * 1e3, "ms a segment", "training", screening / training, 1),
    ]
    for check, threshold in THRESHOLDS.items():
        score, name = closest.get(check, (0.0, ""))
        rows.append(Row(f"closest {check}", score, f"in {name}" if score > 0 else "", f"threshold {threshold:g}",
                        score / threshold, 0 if check in COUNTED else 0.8))  # fmt: skip
    return rows


if __name__ == "__main__":
    finish("false-alarms", false_alarm_rows(int(sys.argv[1]) if len(sys.argv) > 1 else 72))
