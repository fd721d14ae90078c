"""pot status, pot show, pot challenge: exit codes and sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attest.cli.main import main


def test_status_of_a_finished_run(finished_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(finished_run.run_dir)]) == 0
    assert "step 30 of 30, complete" in capsys.readouterr().out
    assert main(["status", str(finished_run.run_dir), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["transcript_sha256"] == finished_run.transcript.sha256()
    assert facts["problems"] == []


def test_status_of_unfinished_and_broken_runs(recorded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    events = recorded.events()
    recorded.write(events[:9])
    assert main(["status", str(recorded.run_dir)]) == 3
    del events[4]
    recorded.write(events)
    assert main(["status", str(recorded.run_dir)]) == 1
    assert "problem     index: line 4: expected 4, found 5" in capsys.readouterr().out


def test_status_tells_of_gaps(recorded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    events = recorded.events()
    at = next(place for place, event in enumerate(events) if event["type"] == "checkpoint" and event["step"] == "10")
    events[at]["files"] = []
    events.insert(at, {"type": "gap", "step": "10", "missing": "state", "reason": "disk full"})
    recorded.restate(events)
    assert main(["status", str(recorded.run_dir)]) == 0
    assert "gap         no state was kept after step 10: disk full" in capsys.readouterr().out
    assert main(["status", str(recorded.run_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gaps"] == [{"reason": "disk full", "step": "10"}]


def test_show(finished_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(finished_run.run_dir), "--steps", "4:6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["step", "4"], ["step", "5"], ["checkpoint", "5"], ["step", "6"]]
    assert main(["show", str(finished_run.run_dir), "--steps", "5:5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["step"] == "5"


@pytest.mark.parametrize("steps", ["6:4", "a:b", "1", "", "1:2:3", "-1:2", "900:901"])
def test_show_refuses_other_ranges(finished_run: Any, steps: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(finished_run.run_dir), "--steps", steps]) == 2
    assert steps in capsys.readouterr().err


def test_challenge_new_and_its_price(finished_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c.json"
    arguments = ["challenge", "new", str(finished_run.run_dir), "--forged", "0.2", "--detect", "0.5", "--out", str(out)]
    assert main([*arguments, "--nonce", "0a" * 32]) == 0
    captured = capsys.readouterr()
    assert "2 of 6 segments" in captured.err
    assert json.loads(out.read_bytes())["nonce_source"] == "verifier"
    assert main([*arguments, "--prover-derived", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nonce_source"] == "prover"


@pytest.mark.parametrize(
    "more", [["--forged", "2"], ["--forged", "x"], ["--detect", "0"], ["--unit", "epoch"], ["--nonce", "00"]]
)
def test_challenge_new_refuses(finished_run: Any, tmp_path: Path, more: list[str]) -> None:
    assert main(["challenge", "new", str(finished_run.run_dir), "--out", str(tmp_path / "c.json"), *more]) == 2
    assert not (tmp_path / "c.json").exists()


def test_challenge_seed(recorded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pot.canonical import canonical_bytes
    from pot.recording.begin import read_nonce

    path = recorded.run_dir / "precommit.json"
    assert main(["challenge", "seed", str(path), "--out", str(tmp_path / "n.json")]) == 2
    assert "took a nonce of its own" in capsys.readouterr().err
    document = json.loads(path.read_bytes())
    document["seed_source"] = "verifier"
    path.write_bytes(canonical_bytes(document))
    assert main(["challenge", "seed", str(path), "--out", str(tmp_path / "n.json")]) == 0
    assert len(read_nonce(tmp_path / "n.json", recorded.precommit.sha256())) == 32
    assert main(["challenge", "seed", str(path), "--out", str(tmp_path / "n.json")]) == 2
    assert "would be a choice of seeds" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["absent", "empty", "binary", "folder", "link"])
@pytest.mark.parametrize("command", [["status"], ["show", "--steps", "1:2"], ["challenge", "new", "--out", "x"]])
def test_bad_run_directories_are_one_sentence(
    tmp_path: Path, name: str, command: list[str], finished_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    if name != "absent":
        run.mkdir()
        for file in ("precommit.json", "transcript.jsonl"):
            if name == "folder":
                (run / file).mkdir()
            elif name == "link":
                (run / file).symlink_to(finished_run.run_dir / file)
            else:
                (run / file).write_bytes(b"" if name == "empty" else b"\xff\x00\n")
    words = 2 if command[0] == "challenge" else 1
    assert main([*command[:words], str(run), *command[words:]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pot: ")
    assert len(error.splitlines()) == 1
