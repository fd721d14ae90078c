"""A04: honest training, one segment that ends at another run's weights, and honest training on from there.

The chain holds, and every other segment replays. Screening flags the segment of the jump, and no other.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pot.audit.screening.checks import screen

RATES = {"adam": 2e-3, "adamw": 2e-3, "momentum": 0.05, "sgd": 0.1}


@pytest.fixture(scope="module", params=sorted(RATES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two finished runs of one recipe with other seeds: the forger's, and the donor's."""
    from small_training import Recipe, train

    folder = tmp_path_factory.mktemp(request.param)
    recipes = [Recipe("", optimizer=request.param, rate=RATES[request.param], seed=seed) for seed in (1, 2)]
    return [train(folder / str(recipe.seed), recipe) for recipe in recipes]


@pytest.mark.parametrize("moments", ["own", "donor"])
@pytest.mark.parametrize("at", [1, 9, 20])
def test_one_jump(pair: Any, tmp_path: Path, at: int, moments: Any) -> None:
    from forgeries import forge_jump, states
    from small_training import TrainedRun

    mine, donor = pair
    shutil.copytree(mine.folder, tmp_path / "program")
    run = TrainedRun(tmp_path / "program", [], mine.recipe)
    assert screen(run.run_dir, run.precommit, run.chain()).flagged == "0"
    forge_jump(run, donor, at=at, moments=moments)
    stolen = states(donor)[200].vector()
    assert (states(run)[10 * at].vector() == stolen).all()
    assert run.codes() == []
    found = screen(run.run_dir, run.precommit, run.chain())
    assert found.suspicious[0] == str(at)
    assert int(found.flagged) <= 2  # after other moments, the first segment of training on may stick out too
