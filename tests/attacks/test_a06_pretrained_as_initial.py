"""A06: a run that starts from weights of the forger's choice, which look as if they had been drawn.

The values are those of the initialisation that the seed gives, in another order: no test of their distribution tells.
Every later segment is trained honestly from them. The initial state is made again from the seed, in every audit.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded_run import RecordedRun
from retold_run import first_weights, retell

from pot.audit import audit as auditing
from pot.audit.audit import audit
from pot.audit.challenges.challenge import Challenge, new_challenge
from pot.audit.result import AuditResult


@pytest.fixture
def forged(recorded: RecordedRun) -> RecordedRun:
    drawn = first_weights(recorded)
    chosen = drawn[::-1]
    assert chosen != drawn
    assert sorted(chosen) == sorted(drawn)
    retell(recorded, weights=chosen)
    assert recorded.codes() == []  # the chain alone cannot see it
    return recorded


def without_the_first(run: RecordedRun) -> Challenge:
    """A challenge that does not draw the segment after the initial state."""
    digests = (run.precommit.sha256(), run.transcript.sha256())
    for number in range(1000):
        found = new_challenge(*digests, 6, forged="0.5", detect="0.7", nonce=f"{number:064x}")
        if "1" not in found.chosen:
            return found
    raise AssertionError("every challenge draws the first segment")


def audited(run: RecordedRun) -> AuditResult:
    data: list[Path] = [run.folder / "train.jsonl"]
    return audit(run.run_dir, without_the_first(run), data, run.folder, screening=False)


def test_an_audit_makes_the_initial_state_again(forged: RecordedRun) -> None:
    result = audited(forged)
    assert result.init == "MISMATCH"
    assert "the regenerated initial state differs in: model" in (result.init_detail or "")
    assert {unit.outcome for unit in result.replays} == {"MATCH"}  # nothing else stops it


def test_without_that_it_would_pass(forged: RecordedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "_init", lambda *_: ("MATCH", ""))
    result = audited(forged)
    assert result.init == "MATCH"
    assert {unit.outcome for unit in result.replays} == {"MATCH"}


def test_the_first_segment_does_not_replay_either(forged: RecordedRun) -> None:
    assert [forged.replay(index).outcome for index in (1, 2)] == ["MISMATCH", "MATCH"]
