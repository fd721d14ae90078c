"""pot status, pot show, pot challenge: exit codes and sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attest.cli.main import main
from attest.cli.terminal import progress_lines
from pot.canonical import canonical_bytes
from pot.recording.writing.journal import RunLock


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


def test_pot_run_says_what_to_do_with_the_folder_that_is_there(
    recorded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--run", str(recorded.run_dir), "--commitment", "c.json", "--", "python", "train.py"]
    ways = "go on with it by --resume, or name another folder by --run"
    assert main(command) == 2
    assert f"{recorded.run_dir}: holds a run already; {ways}" in capsys.readouterr().err
    (recorded.run_dir / "transcript.jsonl").unlink()
    assert main(command) == 2
    assert (
        f"{recorded.run_dir}: holds a run in which nothing was trained yet; delete it, {ways}"
        in capsys.readouterr().err
    )


def test_status_counts_closed_segments_out_of_all(recorded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    every, steps = int(recorded.precommit.state_every or recorded.precommit.checkpoint_every), 30
    assert main(["status", str(recorded.run_dir)]) == 0
    assert f"segments    {steps // every}, 0 steps" in capsys.readouterr().out
    events = recorded.events()
    second = [place for place, event in enumerate(events) if event["type"] == "checkpoint" and event["files"]][2]
    recorded.write(events[: second + 1])
    assert main(["status", str(recorded.run_dir)]) == 3
    assert f"segments    2 of {steps // every} complete, 0 steps" in capsys.readouterr().out


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


def test_show_tells_of_gaps_and_of_roots_without_files(recorded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    events = recorded.events()
    at = next(place for place, event in enumerate(events) if event["type"] == "checkpoint" and event["step"] == "10")
    events[at]["files"] = []
    events.insert(at, {"type": "gap", "step": "10", "missing": "state", "reason": "disk full"})
    recorded.restate(events)
    assert main(["show", str(recorded.run_dir), "--steps", "10:15"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "gap 10  no state kept: disk full" in lines
    checkpoints = {line.split()[1]: line for line in lines if line.startswith("checkpoint")}
    assert checkpoints["10"].endswith("  root only, no files")
    assert "root only" not in checkpoints["15"]
    assert main(["show", str(recorded.run_dir), "--steps", "10:10", "--json"]) == 0
    kinds = [json.loads(line)["type"] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["step", "gap", "checkpoint"]


def test_status_before_the_first_step(recorded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = recorded.run_dir
    (run / "transcript.jsonl").unlink()
    assert main(["status", str(run)]) == 3
    assert capsys.readouterr().out == f"{run}: begun, no step yet\n"
    for source, beacon in (("verifier", ""), ("beacon", " --beacon ROUND.json")):
        document = json.loads((run / "precommit.json").read_bytes()) | {"seed_source": source}
        document |= {"beacon": {"chain": "ab" * 32, "round": "7"}} if beacon else {}
        (run / "precommit.json").write_bytes(canonical_bytes(document))
        assert main(["status", str(run)]) == 3
        assert capsys.readouterr().out == f"{run}: begun, no step yet\n"  # its nonce has come
        nonce = (run / "nonce.json").read_bytes()
        (run / "nonce.json").unlink()
        assert main(["status", str(run)]) == 3
        out = capsys.readouterr().out
        assert out == (
            f"{run}: begun, no step yet; waits for {run}/nonce.json:"
            f" pot challenge seed {run}/precommit.json{beacon} --out {run}/nonce.json\n"
        )
        (run / "nonce.json").write_bytes(nonce)
    assert main(["status", str(run), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["state"] == "begun"


def test_status_while_a_run_is_recorded(recorded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    recorded.write(recorded.events()[:9])
    lock = RunLock(recorded.run_dir)
    try:
        assert main(["status", str(recorded.run_dir)]) == 3
        out = capsys.readouterr().out
        assert "is being recorded" in out
        assert "stopped" not in out
    finally:
        lock.release()
    assert main(["status", str(recorded.run_dir)]) == 3
    assert "not finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        "status RUN", "show RUN --steps 1:2", "challenge new RUN --dry-run", "challenge answer RUN --challenge c",
        "audit RUN --challenge c --data d --key k --out o", "audit dispute RUN RUN",
        "audit memorization RUN --evaluate e --data d --out o",
        "audit canaries test RUN --registration r --opening o --evaluate e --out h",
        "prove RUN --kit k --data d --secret s --steps 1 --out o", "certify m --run RUN --key k",
    ],
)  # fmt: skip
def test_no_run_folder_is_said_in_the_same_words(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.replace("RUN", "nope").split()) == 2
    assert capsys.readouterr().err == (
        "pot: nope: is no run folder (it has no precommit.json); give the folder that the recorder wrote\n"
    )


def test_progress_in_a_file_is_told_in_tenths(capsys: pytest.CaptureFixture[str]) -> None:
    for total, lines in ((3, 3), (40, 10), (1000, 10)):
        report = progress_lines()
        for done in range(1, total + 1):
            report("replaying segments", done, total)
        told = capsys.readouterr().err.splitlines()
        assert len(told) == lines
        assert told[-1] == f"replaying segments: {total} of {total}"


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
    out.unlink()
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
