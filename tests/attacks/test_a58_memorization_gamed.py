"""A58, A59: the memorization test fed with records that become easy anyway, or against held-out ones trained on.

A58 is caught by the strata (without them the forgery passes, `raw_auc` shows it) and by the control "unseen". A59 shows
as no sign and is reported as such; committed pool records are left out and counted.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from memorizing_run import hint, texts, train, write_texts
from memorizing_training import losses

from pot.audit.statistics.hints import ALPHA
from pot.audit.statistics.strata import compare
from pot.errors import UsageError

EASY = texts(1024, 11, words=8, own=0)  # common words only
ALIKE = texts(1024, 12, words=8, own=0)
HARD = texts(300, 13, words=0, own=40)  # letters drawn at random


@pytest.fixture(scope="module")
def hard_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("pool") / "pool.jsonl", HARD)


@pytest.fixture(scope="module")
def gamed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Committed to easy records, trained on others of their kind from the first step to the last."""
    folder = tmp_path_factory.mktemp("gamed") / "program"
    return train(folder, EASY, cheat={"instead": list(range(1, 65)), "with": ALIKE})


def test_easy_records_pass_without_strata_and_not_with_them(gamed: Any, hard_pool: Path) -> None:
    assert gamed.codes() == []
    found = hint(gamed, hard_pool, segments=[2, 3, 4])
    assert found.memorization is not None
    for item in found.memorization.segments:
        assert float(item.raw_auc) > 0.8  # any training makes them easier, so all against all they look trained on
        assert item.status != "consistent"  # no held-out record was as easy at the start: nothing to compare with
    assert found.status != "consistent"


def test_the_forgery_would_be_consistent_all_against_all(gamed: Any) -> None:
    """The same losses through the same code, with one stratum for all."""
    segment = gamed.chain().segments[1]
    folder = gamed.run_dir / "checkpoints"
    states = [folder / f"step-{int(event.step):06d}" for event in (segment.start_state, segment.end_state)]
    pairs = [
        list(zip(*(losses(state, [{"text": text} for text in some]) for state in states), strict=True))
        for some in (EASY[:100], HARD[:100])
    ]
    assert compare(*pairs, stratum=0).status() == "consistent"
    assert compare(*pairs).status() != "consistent"


def test_records_of_the_same_kind_do_not_let_themselves_be_gamed(gamed: Any, tmp_path: Path) -> None:
    """Committed records that no step had taken are as easy as the claimed ones: the order alone tells them apart."""
    found = hint(gamed, segments=[1, 2, 3]).memorization
    assert found is not None
    assert min(Fraction(item.p) for item in found.segments) > Fraction(1, 10_000)
    assert float(found.mean_auc) < 0.6
    honest = train(tmp_path / "program", EASY)
    found = hint(honest, segments=[2, 3]).memorization
    assert found is not None
    assert all(Fraction(item.p) <= ALPHA for item in found.segments)


def test_a_held_out_pool_that_was_trained_on_shows_no_difference(tmp_path: Path) -> None:
    """A59: no hint in favour, although the claimed records were trained on; the control "unseen" sees them."""
    pool = texts(48, 21)
    run = train(tmp_path / "program", texts(1024, 1), cheat={"also": list(range(1, 65, 2)), "with": pool})
    assert run.codes() == []
    found = hint(run, write_texts(tmp_path / "pool.jsonl", pool), segments=[2, 3])
    assert found.status != "consistent"
    assert found.memorization is not None
    for item in found.memorization.segments:  # the pool's losses fell more, or are so low that nothing is like them
        assert float(item.auc) <= 0.5
        assert float(item.p) > 0.1
        assert item.status == ("no-sign" if min(int(item.claimed), int(item.control)) >= 20 else "undecided")
    other = hint(run, segments=[1, 2])
    assert other.memorization is not None
    assert float(other.memorization.mean_auc) > 0.55


def test_a_pool_inside_the_commitment_is_left_out_and_counted(tmp_path: Path) -> None:
    lines = texts(1024, 1)
    run = train(tmp_path / "program", lines)
    found = hint(run, write_texts(tmp_path / "pool.jsonl", lines[-100:] + texts(200, 7)), segments=[3]).memorization
    assert found is not None
    assert (found.pool_records, found.overlap) == ("300", "100")
    assert found.segments[0].status == "consistent"
    with pytest.raises(UsageError, match="almost"):
        hint(run, write_texts(tmp_path / "tail.jsonl", lines[-100:]), segments=[3])
