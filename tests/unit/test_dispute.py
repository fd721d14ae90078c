"""Narrowing: halving finds the first difference, few inner states are asked for at a time, other runs are refused."""

from __future__ import annotations

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun
from typer.testing import CliRunner

from attest.cli.main import build, main
from pot.audit.dispute import Dispute, dispute, first_difference, own_dispute, spaced
from pot.audit.party import load_party
from pot.canonical import canonical_bytes
from pot.errors import Refused, UsageError


def test_halving_finds_what_a_scan_finds_in_logarithmic_time() -> None:
    for length in range(1, 40):
        ours = [f"{place}" for place in range(length)]
        for first in range(length + 1):
            theirs = ours[:first] + [f"{place}'" for place in range(first, length)]
            found, compared = first_difference(ours, theirs)
            assert found == (first if first < length else None)
            assert compared <= math.ceil(math.log2(length)) + 1


def test_a_shorter_account_is_compared_as_far_as_it_goes() -> None:
    assert first_difference(["a", "b", "c"], ["a", "b"])[0] is None
    assert first_difference(["a"], [])[0] is None


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 2), (3, 9), (0, 66), (5, 10_000), (0, 10**9)])
def test_the_steps_asked_for_divide_what_is_left(low: int, high: int) -> None:
    asked = spaced(low, high)
    assert asked == sorted(set(asked))
    assert len(asked) <= 64
    places = [low, *asked, high]
    assert all(one < other for one, other in pairwise(places))
    widest = max(other - one for one, other in pairwise(places))
    assert widest <= max(1, (high - low) // 60 + 1)


def _copy(run: RecordedRun, folder: Path) -> RecordedRun:
    shutil.copytree(run.folder, folder)
    return RecordedRun(folder, run.arguments)


def _another_end(run: RecordedRun) -> None:
    """The model after step 15 is another one, in every digest that follows."""
    run.bend_tensors(15, "model", lambda values: [values[0], values[1] + 1, *values[2:]])


def test_equal_transcripts_differ_nowhere(finished_run: Any) -> None:
    party = load_party(finished_run.run_dir)
    found = dispute(party, party)
    assert (found.equal_after, found.differs_by, found.holds) == (None, None, None)
    assert "the same states at every checkpoint" in found.sentence


def test_transcripts_alone_name_checkpoint_and_component(finished_run: Any, tmp_path: Path) -> None:
    other = _copy(finished_run, tmp_path / "other")
    _another_end(other)
    for run in (finished_run, other):
        if run is other:
            shutil.rmtree(run.run_dir / "checkpoints")  # the files are lost
    found = dispute(load_party(finished_run.run_dir), load_party(other.run_dir))
    assert (found.equal_after, found.differs_by, found.component, found.tensor) == ("10", "15", "model", None)
    assert found.replays == "0"
    assert Dispute.from_bytes(found.to_bytes(), what="dispute") == found


def test_files_name_the_tensor_without_any_replay(finished_run: Any, tmp_path: Path) -> None:
    other = _copy(finished_run, tmp_path / "other")
    _another_end(other)
    found = dispute(load_party(finished_run.run_dir), load_party(other.run_dir))
    assert (found.differs_by, found.tensor, found.replays) == ("15", "weights", "0")


def test_initial_states_can_differ(finished_run: Any, tmp_path: Path) -> None:
    other = _copy(finished_run, tmp_path / "other")
    other.bend_tensors(0, "model", lambda values: [values[0] + 1, *values[1:]])
    found = dispute(load_party(finished_run.run_dir), load_party(other.run_dir))
    assert (found.equal_after, found.differs_by) == (None, "0")
    assert found.sentence.startswith("the initial states differ")


def test_a_step_that_the_transcripts_tell_apart_bounds_it(finished_run: Any, tmp_path: Path) -> None:
    other = _copy(finished_run, tmp_path / "other")
    events = other.events()
    next(event for event in events if event["type"] == "step" and event["step"] == "12")["loss"] = "1"
    other.relink(events)
    _another_end(other)
    found = dispute(load_party(finished_run.run_dir), load_party(other.run_dir))
    assert (found.equal_after, found.differs_by) == ("10", "12")


def test_accounts_of_other_runs_are_no_dispute(finished_run: Any, tmp_path: Path) -> None:
    other = _copy(finished_run, tmp_path / "other")
    path = other.run_dir / "precommit.json"
    document = json.loads(path.read_bytes())
    document["run_id"] = "77" * 32
    path.write_bytes(canonical_bytes(document))
    with pytest.raises(Refused, match="does not hold"):
        load_party(other.run_dir)
    ours = load_party(finished_run.run_dir)
    from dataclasses import replace

    from pot.recording.precommit import Precommit

    theirs = replace(ours, precommit=Precommit.from_value(document, what="p"))
    with pytest.raises(Refused, match="different pre-commitments or nonces"):
        dispute(ours, theirs)


def test_one_run_alone_needs_its_files_and_a_segment(finished_run: Any) -> None:
    party = load_party(finished_run.run_dir)
    with pytest.raises(UsageError, match="there is no segment 99"):
        own_dispute(party, 99)
    with pytest.raises(UsageError, match="give --data and --code"):
        own_dispute(party, 1)


def test_a_lost_checkpoint_shows_nothing_false(
    finished_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = _copy(finished_run, tmp_path / "other")
    shutil.rmtree(other.run_dir / "checkpoints")
    words = ["audit", "dispute", str(other.run_dir), "--segment", "2", "--code", str(finished_run.folder), "--data"]
    assert main([*words, str(finished_run.folder / "train.jsonl")]) == 3
    assert "segment 2 could not be replayed: REFUSED" in capsys.readouterr().err
    assert main([*words, str(finished_run.folder / "train.json")]) == 2  # the auditor's slip
    assert "no file of --data has the SHA-256" in capsys.readouterr().err


def test_the_command_compares_transcripts(finished_run: Any, tmp_path: Path) -> None:
    other = _copy(finished_run, tmp_path / "other")
    _another_end(other)
    words = ["audit", "dispute", str(finished_run.run_dir)]
    shown = CliRunner().invoke(build("audit"), [*words, str(other.run_dir)])
    assert shown.exit_code == 1, shown.output
    assert "the same after step 10, another after step 15: component model" in shown.output
    same = CliRunner().invoke(build("audit"), [*words, str(finished_run.run_dir), "--json"])
    assert same.exit_code == 0
    assert json.loads(same.stdout)["digests"] == "3"
    alone = CliRunner().invoke(build("audit"), words)
    assert isinstance(alone.exception, UsageError)
