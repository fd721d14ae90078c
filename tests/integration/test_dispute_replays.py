"""Disputes with replays: to the step and the tensor, and who is right on the auditor's machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from two_parties import TwoParties, two_parties
from typer.testing import CliRunner

from attest.cli.main import build
from pot.audit.dispute import dispute, own_dispute


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> TwoParties:
    return two_parties(tmp_path_factory.mktemp("dispute"), fault=14)


def test_one_auditor_says_whose_state_the_program_gives(parties: TwoParties) -> None:
    found = dispute(*parties.parties(replayed=True))
    assert (found.equal_after, found.differs_by, found.tensor, found.holds) == ("10", "14", "weights", "first")
    assert found.sentence.endswith("a replay gives the first run's state")
    first, second = parties.parties(replayed=True)
    assert dispute(second, first).holds == "second"


@pytest.mark.parametrize("asked", [1, 64])
def test_two_machines_are_narrowed_to_the_step_that_one_got_wrong(
    parties: TwoParties, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    monkeypatch.setattr("pot.audit.dispute.ASKED", asked)
    found = dispute(*parties.parties(replayed=True, own_machines=True))
    assert (found.equal_after, found.differs_by) == ("13", "14")
    assert (found.component, found.tensor, found.holds) == ("model", "weights", "both")
    rounds = 1 if asked == 64 else 4  # 10 steps: at once, or halved
    assert int(found.replays) <= 2 * (rounds + 1)


def test_one_run_against_the_auditors_own_replay(parties: TwoParties) -> None:
    first, second = parties.parties(replayed=True)
    found = own_dispute(second, 2)
    assert (found.equal_after, found.differs_by, found.tensor, found.holds) == ("10", "14", "weights", "replay")
    assert "step 14: loss committed" in found.sentence
    assert own_dispute(first, 2).holds == "run"


def test_lost_files_leave_what_the_transcripts_say(parties: TwoParties, tmp_path: Path) -> None:
    import shutil

    from recorded_run import RecordedRun

    shutil.copytree(parties.second.folder, tmp_path / "second")
    second = RecordedRun(tmp_path / "second", parties.second.arguments)
    (second.run_dir / "checkpoints/step-000010/model.safetensors").unlink()
    lost = TwoParties(parties.first, second, parties.fault)
    found = dispute(*lost.parties(replayed=True))
    assert (found.equal_after, found.differs_by, found.holds) == ("10", "14", None)
    assert "not narrowed further" in found.sentence


def test_the_command_replays_where_data_is_given(parties: TwoParties) -> None:
    folder = parties.first.folder
    words = ["--data", str(folder / "train.jsonl"), "--code", str(folder)]
    runs = [str(run.run_dir) for run in (parties.first, parties.second)]
    shown = CliRunner().invoke(build("audit"), ["audit", "dispute", *runs, *words])
    assert shown.exit_code == 1, shown.output
    assert "a replay gives the first run's state" in shown.output
    alone = CliRunner().invoke(build("audit"), ["audit", "dispute", runs[0], "--segment", "2", *words])
    assert alone.exit_code == 0, alone.output
    assert "the replay gives the run's own states" in alone.output
