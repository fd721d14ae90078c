"""A60: canaries recognised and left out before a training on "the full set": the rank test gives no sign of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from memorizing_run import texts, train
from memorizing_training import losses

from pot.audit.statistics.canaries import Canaries, CanaryOpening, canary_hint, compare_canaries, new_canaries, planted
from pot.errors import Refused

SECRET = "c3" * 32
CANDIDATES = [{"text": text} for text in texts(240, 31, words=1, own=16)]
PLANTED = 12


@pytest.fixture(scope="module")
def canaries() -> tuple[Canaries, CanaryOpening]:
    return new_canaries(CANDIDATES, PLANTED, SECRET)


@pytest.fixture(scope="module")
def filtered(canaries: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("filtered") / "program"
    planted_texts = [CANDIDATES[at]["text"] for at in planted(canaries[1])]
    return train(folder, [*texts(400, 1), *planted_texts], steps=75, every=25, cheat={"without": planted_texts})


def test_planted_canaries_that_were_trained_on_stand_out(canaries: Any, tmp_path: Path) -> None:
    registration, opening = canaries
    lines = [*texts(400, 1), *(CANDIDATES[at]["text"] for at in planted(opening))]
    run = train(tmp_path / "program", lines, steps=75, every=25)
    found = canary_hint(run.run_dir, registration, opening, losses)
    assert found.status == "consistent"
    assert found.canaries is not None
    assert found.canaries.method == "exact"
    assert float(found.canaries.p) < 1e-6


def test_filtered_canaries_look_like_ones_that_were_never_planted(canaries: Any, filtered: Any) -> None:
    assert filtered.codes() == []  # committed with them, and the chain cannot see that they were passed over
    registration, opening = canaries
    found = canary_hint(filtered.run_dir, registration, opening, losses)
    assert found.canaries is not None
    assert float(found.canaries.p) > 1e-4
    assert "MISMATCH" in {filtered.replay(index).outcome for index in (1, 2, 3)}


def test_over_many_secrets_the_probability_is_uniform(filtered: Any) -> None:
    """None of the candidates was trained on, so every choice among them is a draw by chance, whatever the model."""
    found = losses(filtered.run_dir / "checkpoints/step-000075", CANDIDATES)
    probabilities = []
    for number in range(300):
        _, opening = new_canaries(CANDIDATES, PLANTED, f"{number:064x}")
        probabilities.append(float(compare_canaries(opening, found).test.p))
    for level in (0.1, 0.5, 0.9):
        part = sum(p <= level for p in probabilities) / len(probabilities)
        assert abs(part - level) < 0.1
    assert sum(p <= 0.01 for p in probabilities) <= 12


def test_others_cannot_be_named_planted_afterwards(canaries: Any, filtered: Any) -> None:
    """The registration fixes candidates and choice: whoever picks the lowest losses afterwards has another opening.

    Without the registration the picked ones would pass.
    """
    registration, _ = canaries
    found = losses(filtered.run_dir / "checkpoints/step-000075", CANDIDATES)
    best = sorted(range(len(CANDIDATES)), key=lambda at: found[at])
    lowest = [CANDIDATES[at] for at in best]
    front, rest = lowest[:PLANTED], lowest[PLANTED:]
    where = planted(new_canaries(lowest, PLANTED, SECRET)[1])
    arranged = [front.pop() if at in where else rest.pop() for at in range(len(lowest))]
    told, forged = new_canaries(arranged, PLANTED, SECRET)
    scores = losses(filtered.run_dir / "checkpoints/step-000075", list(forged.candidates))
    assert compare_canaries(forged, scores).test.p < 1e-12
    assert canary_hint(filtered.run_dir, told, forged, losses).status == "consistent"  # its own registration
    with pytest.raises(Refused, match="registered"):
        canary_hint(filtered.run_dir, registration, forged, losses)
