"""A11: claimed batches skipped. A replay of the segment differs; the memorization test gives a hint of what is missing.

The forger's transcript is complete and consistent: every step names the batch that the order gives, and the states are
those that it really had. Only the updates of some steps never happened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from memorizing_run import hint, texts, train, write_texts

STEPS, EVERY = 64, 16
THIRD = range(2 * EVERY + 1, 3 * EVERY + 1)
LINES = texts(1024, 1)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(tmp_path_factory.mktemp("honest") / "program", LINES)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("pool") / "pool.jsonl", texts(400, 7))


def skipped(folder: Path, steps: list[int]) -> Any:
    run = train(folder / "program", LINES, cheat={"skip": steps})
    assert run.codes() == []  # the chain alone cannot see it
    return run


@pytest.mark.parametrize("part", [1, 3, 8])
def test_a_replay_meets_skipped_batches_however_few(tmp_path: Path, part: int) -> None:
    """5, 20 and 50 % of a segment's sixteen batches."""
    run = skipped(tmp_path, list(THIRD)[-part:])
    found = run.replay(3)
    assert found.outcome == "MISMATCH"
    assert run.replay(2).outcome == "MATCH"  # a challenge that does not draw the segment sees nothing


def test_the_memorization_test_sees_a_segment_that_was_skipped(tmp_path: Path, honest: Any, pool: Path) -> None:
    run = skipped(tmp_path, list(THIRD))
    for control in (pool, None):  # a held-out pool, or committed records not yet taken
        found = hint(run, control, segments=[2, 3]).memorization
        before = hint(honest, control, segments=[2, 3]).memorization
        assert found is not None
        assert before is not None
        assert [item.status for item in before.segments] == ["consistent", "consistent"]
        assert [item.status for item in found.segments] == ["consistent", "no-sign"]
        assert (found.segments[1].auc, found.segments[1].p) == ("0.5", "1")  # no loss moved at all


def test_the_memorization_test_sees_other_data_in_a_segment(tmp_path: Path, pool: Path) -> None:
    """Claimed batches replaced by others: there are updates, but not by these records."""
    run = train(tmp_path / "program", LINES, cheat={"instead": list(THIRD), "with": texts(256, 3)})
    assert run.codes() == []
    found = hint(run, pool, segments=[2, 3]).memorization
    assert found is not None
    assert found.segments[0].status == "consistent"
    assert float(found.segments[1].p) > 1e-4
    assert abs(float(found.segments[1].auc) - 0.5) < 0.2


def test_half_of_the_batches_skipped_leave_silent_steps(tmp_path: Path, honest: Any, pool: Path) -> None:
    """The whole segment still looks trained on; step by step it does not."""
    run = skipped(tmp_path, [step for step in range(1, STEPS + 1) if step % 2])
    options = {"segments": [2, 3, 4], "records": 256}
    found, before = hint(run, pool, **options).memorization, hint(honest, pool, **options).memorization
    assert found is not None
    assert before is not None
    assert sum(int(item.silent or 0) for item in before.segments) <= 1
    assert sum(int(item.silent or 0) for item in found.segments) >= 3
    assert float(found.mean_auc) < float(before.mean_auc) - 0.08


def test_one_skipped_batch_is_too_few_for_the_memorization_test(tmp_path: Path, pool: Path) -> None:
    """What it cannot see, and a replay does: it is a hint for what is missing at large, and never lifts a level."""
    run = skipped(tmp_path, [THIRD[4]])
    found = hint(run, pool, segments=[3]).memorization
    assert found is not None
    assert float(found.segments[0].p) <= 0.01
    assert run.replay(3).outcome == "MISMATCH"
