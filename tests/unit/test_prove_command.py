"""pot prove: what it refuses and what it writes, with a prover that answers at once."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pointed_run import SECRET, PointedRun, StandIn, small_program, stand_in_kit

from attest.cli.main import main
from pot import begin, record
from pot.audit.challenges.challenge import new_challenge
from pot.canonical import sha256_hex
from pot.data.readers import RecordDataset
from pot.recording.checking.chain import check_chain
from pot.recording.precommit import Precommit
from pot.recording.transcript import read_transcript
from pot.zk.circuit import Circuit
from pot.zk.kit import commit_points
from pot.zk.semantics.batches import batch_arrays
from pot.zk.training import ExactTrainer
from pot.zk.verifier import read_step_proof


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> PointedRun:
    folder = tmp_path_factory.mktemp("prove")
    return PointedRun(folder, stand_in_kit(folder / "kit", small_program(), columns=2), StandIn(folder / "training"))


@pytest.fixture
def prover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """In the place of ezkl, whatever the command asks it for."""
    made = StandIn(tmp_path / "prover")
    monkeypatch.setattr("pot.zk.engine.EzklEngine", made)
    return made


@pytest.fixture
def command(finished: PointedRun, prover: StandIn, tmp_path: Path) -> Any:
    """Runs `pot prove` on the finished run with some options replaced (None: left out)."""

    def prove(*flags: str, **change: object) -> int:
        options: dict[str, object] = {
            "kit": finished.kit.folder, "data": finished.data, "secret": finished.secret, "out": tmp_path / "proofs",
            "steps": "2,4-5", "workers": 1, **change,
        }  # fmt: skip
        given = [text for name, value in options.items() if value is not None for text in (f"--{name}", str(value))]
        return main(["prove", str(finished.run_dir), *given, *flags])

    return prove


def ids(run: PointedRun) -> tuple[Precommit, Any]:
    precommit = Precommit.from_bytes((run.run_dir / "precommit.json").read_bytes(), what="precommit")
    return precommit, read_transcript((run.run_dir / "transcript.jsonl").read_bytes())


def test_steps_are_proven_with_the_points_of_the_transcript(
    command: Any, finished: PointedRun, prover: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--json") == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["steps"] == [2, 4, 5]
    assert "6 of 6 proofs" in told.err
    assert sorted(path.name for path in (tmp_path / "proofs").iterdir()) == [
        "step-000002.json", "step-000004.json", "step-000005.json",
    ]  # fmt: skip
    precommit, transcript = ids(finished)
    events = {event.step: event for segment in check_chain(transcript, precommit).segments for event in segment.steps}
    for path in found["proofs"]:
        proof = read_step_proof(Path(path).read_bytes())
        assert proof.points == events[proof.step].points
        assert proof.precommit_sha256 == precommit.sha256()
        assert len(proof.proofs) == 2
    assert prover.proofs == 6


def test_proven_steps_are_left_alone_also_after_a_failure(
    command: Any, prover: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prover.fails = {4}
    assert command() == 4
    error = capsys.readouterr().err
    assert "step 4: ezkl's prove failed: out of memory" in error
    assert "the same command goes on" in error
    names = [str(path.relative_to(tmp_path / "proofs")) for path in (tmp_path / "proofs").rglob("step-*")]
    assert sorted(names) == ["parts/step-000004-00.proof", "step-000002.json", "step-000005.json"]
    assert command() == 0
    assert prover.proofs == 7  # only the part that failed
    assert "2 of 3 steps are proven already" in capsys.readouterr().err
    assert command(steps="5,4") == 0
    assert prover.proofs == 7
    assert not (tmp_path / "proofs" / "parts").exists()


def test_a_challenge_names_the_steps(
    command: Any, finished: PointedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precommit, transcript = ids(finished)
    names = (precommit.sha256(), transcript.sha256())
    path = tmp_path / "challenge.json"
    challenge = new_challenge(*names, 8, unit="step", forged="0.5", detect="0.8")
    path.write_bytes(challenge.to_bytes())
    assert command("--json", steps=None, challenge=path) == 0
    assert [str(number) for number in json.loads(capsys.readouterr().out)["steps"]] == list(challenge.chosen)
    segments = len(check_chain(transcript, precommit).segments)
    path.write_bytes(new_challenge(*names, segments, unit="segment", forged="0.5", detect="0.8").to_bytes())
    assert command(steps=None, challenge=path) == 2
    assert "--unit step" in capsys.readouterr().err
    path.write_bytes(new_challenge("ab" * 32, names[1], 8, unit="step", forged="0.5", detect="0.8").to_bytes())
    assert command(steps=None, challenge=path) == 1
    path.write_bytes(b"{}")
    assert command(steps=None, challenge=path) == 2


def test_exactly_one_of_challenge_and_steps(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(steps=None) == 2
    assert command(challenge=tmp_path / "c.json") == 2
    assert capsys.readouterr().err.count("one of them") == 2


def test_workers_here_or_a_cluster(command: Any, prover: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(ray="127.0.0.1:1") == 2
    assert "one of them" in capsys.readouterr().err
    assert command(ray="127.0.0.1:1", workers=None) == 4
    assert "cannot be reached" in capsys.readouterr().err
    assert command(workers=0) == 2
    assert prover.proofs == 0


@pytest.mark.parametrize(
    "steps", ["", "0", "9", "5-4", "1-", "-1", "1,,2", "1;2", "1.0", "\u0661", "1-99999999999", "0x1", "1 2", "1\n2"]
)
def test_other_steps_are_refused(command: Any, prover: StandIn, steps: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(steps=steps) == 2
    assert "--steps" in capsys.readouterr().err
    assert prover.proofs == 0


def test_another_secret_is_refused_before_anything_is_proven(
    command: Any, prover: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (bytes(32), SECRET[:31], SECRET + b"\0", b""):
        (tmp_path / "wrong").write_bytes(wrong)
        assert command(secret=tmp_path / "wrong") in (1, 2)
    assert command(secret=tmp_path / "none") == 2
    assert prover.proofs == 0
    assert "pre-committed" in capsys.readouterr().err


def test_other_data_is_refused_before_anything_is_proven(
    command: Any, finished: PointedRun, prover: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = finished.data.read_bytes().splitlines(keepends=True)
    (tmp_path / "fewer.jsonl").write_bytes(b"".join(lines[:-1]))
    assert command(data=tmp_path / "fewer.jsonl") == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 'fewer.jsonl'}: holds {len(lines) - 1} records, the run committed to {len(lines)}" in told
    (tmp_path / "turned.jsonl").write_bytes(b"".join(lines[::-1]))
    capsys.readouterr()
    assert command(data=tmp_path / "turned.jsonl") == 1
    assert "are not those in the transcript" in capsys.readouterr().err
    assert prover.proofs == 0
    assert not (tmp_path / "proofs").exists()


def test_another_circuit_and_a_broken_kit_are_refused(
    command: Any, finished: PointedRun, prover: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = tmp_path / "kit"
    shutil.copytree(finished.kit.folder, kit)
    circuit = json.loads((kit / "circuit.json").read_bytes())
    bent = Circuit.from_value(circuit | {"constants_point": "11" * 64}, what="circuit")
    (kit / "circuit.json").write_bytes(bent.to_bytes())
    assert command(kit=kit) == 1
    assert "pre-committed to" in capsys.readouterr().err
    (kit / "part-1" / "vk").write_bytes(b"another key")
    assert command(kit=kit) == 1
    assert command(kit=tmp_path / "nowhere") == 2
    (kit / "circuit.json").unlink()
    capsys.readouterr()
    assert command(kit=kit) == 2
    assert f"{kit}: holds no finished circuit" in capsys.readouterr().err
    assert prover.proofs == 0


def test_a_run_without_points_and_one_without_a_circuit_are_named(
    finished: PointedRun, prover: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, config, points, words in (
        ("plain", {}, False, "its transcript has no points, so none of its steps can be proven; record a run with"),
        ("loose", {}, True, "pre-committed to no circuit; train with config={'circuit_sha256': ...}"),
    ):
        run_dir = recorded_steps(tmp_path / name, finished, config, points=points)
        options = ["--kit", finished.kit.folder, "--data", finished.data, "--secret", finished.secret, "--steps", "1"]
        assert main(["prove", str(run_dir), *map(str, options), "--out", str(tmp_path / "proofs")]) == 2
        assert f"{run_dir}: {words}" in capsys.readouterr().err
    assert prover.proofs == 0


def recorded_steps(folder: Path, like: PointedRun, config: dict[str, Any], *, points: bool) -> Path:
    """Two steps of the program on the same data, recorded with this config."""
    program = like.kit.program
    begun = begin(
        folder, commitments=[like.data.with_suffix(".json")], inputs=[like.data], semantics="exact",
        secret_sha256=sha256_hex(SECRET),
        config={**config, "batch_size": program.batch, "steps": 2, "checkpoint_every": 2},
    )  # fmt: skip
    make_points = partial(commit_points, like.kit.verifying, engine=StandIn(folder / "maker"))
    trainer = ExactTrainer(program, like.start, secret=SECRET, make_points=make_points)
    pointless = SimpleNamespace(capture=trainer.capture, save=trainer.save, load=trainer.load)
    data = RecordDataset(like.data)
    with record(begun, state=trainer if points else pointless, data=data) as run:
        for records in run.batches(data):
            trainer.step(run.done + 1, batch_arrays(program, records))
            run.step()
    return folder


def test_another_ezkl_than_the_circuit_s_is_refused(
    command: Any, prover: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(StandIn, "version", lambda _: "23.0.6")
    assert command() == 4
    assert "ezkl 23.0.6 is installed, the circuit was made with 23.0.5" in capsys.readouterr().err
    assert prover.proofs == 0


def test_a_proof_of_something_else_in_the_folder_is_not_overwritten(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(steps="2") == 0
    path, other = (tmp_path / "proofs" / f"step-00000{number}.json" for number in (2, 4))
    path.rename(other)
    assert command() == 1
    assert "another run, step or circuit" in capsys.readouterr().err
    other.write_bytes(b"{")
    assert command() == 2
    assert f"{other}: not JSON at line 1 column 2; delete that file, and the same command" in capsys.readouterr().err
    assert other.read_bytes() == b"{"


def test_a_proof_in_the_folder_that_does_not_verify_is_told(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(steps="2") == 0
    path = tmp_path / "proofs" / "step-000002.json"
    proof = read_step_proof(path.read_bytes())
    last = "0" if proof.proofs[1][-1] != "0" else "1"
    path.write_bytes(proof.model_copy(update={"proofs": [proof.proofs[0], proof.proofs[1][:-1] + last]}).to_bytes())
    assert command() == 1
    error = capsys.readouterr().err
    assert "step 2: part 2 of its proof does not verify" in error
    assert "remove that step's file" in error


def test_a_dry_run_proves_nothing_and_needs_no_secret(
    command: Any, prover: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--dry-run", "--json", secret=tmp_path / "none") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["parts"], found["logrows"], found["columns"]) == (3, 2, 9, 2)
    assert len(found["rows"]) == 2
    assert all(0 < rows < 512 for rows in found["rows"])
    assert found["cpu_seconds"] > 0
    assert 0 < found["gigabytes"] < found["free_gigabytes"]
    assert command("--dry-run") == 0
    assert "3 steps of 51 parameters, 2 proofs a step" in capsys.readouterr().out
    assert prover.proofs == 0
    assert not (tmp_path / "proofs").exists()


def test_too_little_memory_is_said_before_the_work(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pot.zk.cost.available_bytes", lambda: 1_000_000)
    assert command(steps="2", workers=None) == 0  # one at a time
    assert "1 proof at a time may take 0.04 GB, 0.00 GB are free" in capsys.readouterr().err
