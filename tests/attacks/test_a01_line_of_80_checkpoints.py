"""A01 as published: 80 checkpoints on a line to random weights, with a learning rate of 1e-9 in the claimed groups.

The chain holds, distances between neighbours are tiny and all alike; screening flags every segment. `line` and `reach`
(Adam), `push` (SGD with momentum) are what catches it; the honest run that was bent passes all of them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pot.audit.screening.checks import screen

CHECKPOINTS = 80
RATES = {"adam": 2e-3, "adamw": 2e-3, "momentum": 0.05}


def _run(folder: Path, optimizer: str) -> Any:
    from small_training import Recipe, train

    return train(folder, Recipe("", optimizer=optimizer, rate=RATES[optimizer], segments=CHECKPOINTS, every=3))


def _fired(run: Any) -> tuple[int, Counter[str]]:
    assert run.codes() == []  # the chain alone cannot see it
    found = screen(run.run_dir, run.precommit, run.chain())
    return int(found.flagged), Counter(one.check for item in found.details for one in item.checks)


@pytest.mark.parametrize("optimizer", sorted(RATES))
def test_a_line_at_a_tiny_rate(tmp_path: Path, optimizer: str) -> None:
    from forgeries import forge_line, states

    run = _run(tmp_path, optimizer)
    assert _fired(run) == (0, Counter())
    forge_line(run, rate=1e-9)
    bent = states(run)
    assert {state.document["groups"][0]["lr"]["real"] for state in bent.values()} == {"1e-09"}
    flagged, checks = _fired(run)
    assert flagged == CHECKPOINTS
    assert checks["line"] == 50  # all that are told in detail
    assert checks["push" if optimizer == "momentum" else "reach"] == 50


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_a_line_with_moments_that_fit_it(tmp_path: Path, optimizer: str) -> None:
    """Moments and rates of gradients that lead along the line break no bound; that it is a line remains."""
    from forgeries import forge_line

    run = _run(tmp_path, optimizer)
    forge_line(run, rate=0, moments="fitting")
    flagged, checks = _fired(run)
    assert flagged == CHECKPOINTS
    assert set(checks) == {"line"}


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_a_line_hidden_in_noise(tmp_path: Path, optimizer: str) -> None:
    """Noise hides the line; the rate of 1e-9 and moments from an honest run do not explain the movement."""
    from forgeries import forge_line

    run = _run(tmp_path, optimizer)
    forge_line(run, rate=1e-9, noise=0.3)
    flagged, checks = _fired(run)
    assert flagged == CHECKPOINTS
    assert checks["line"] == 0
    assert checks["push" if optimizer == "momentum" else "reach"] == checks["agreement"] == 50


def test_invented_gradients_pass_screening(tmp_path: Path) -> None:
    """What screening does not show: noise, and moments and rates to go with it, leave nothing for it to see."""
    from forgeries import forge_line

    run = _run(tmp_path, "momentum")
    forge_line(run, rate=0, noise=0.3, moments="fitting")
    assert _fired(run) == (0, Counter())  # a replay of any segment is a MISMATCH: test_a01_a04_weights_from_elsewhere
