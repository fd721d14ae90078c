"""pot prove and pot zk: what they refuse and what they write, with a prover that answers at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from exact_run import SECRET, SPEC, ExactRun, digest_points

from attest.cli.main import main
from pot.audit.challenge import new_challenge
from pot.canonical import sha256_hex
from pot.zk.circuit import Circuit
from pot.zk.engine import EngineFailure
from pot.zk.packing import Vector, constants_vector, zero_vector
from pot.zk.verifier import read_step_proof

PROOF_BYTES = 512


def write_kit(folder: Path) -> Circuit:
    """A kit whose digests fit, with a key and an SRS that mean nothing."""
    folder.mkdir(parents=True)
    settings = b'{"num_rows":4000,"run_args":{},"total_assignments":10000}'
    srs = SPEC.logrows.to_bytes(4, "little") + bytes((128 << SPEC.logrows) + 256)
    constants, zero = digest_points([constants_vector(SPEC), zero_vector(SPEC)])
    circuit = Circuit(
        version="pot/circuit/v1", family="exact", spec=SPEC, ezkl_version="23.0.5", onnx_sha256="00" * 32,
        settings_sha256=sha256_hex(settings), vk_sha256=sha256_hex(b"key"), srs_sha256=sha256_hex(srs),
        proof_bytes=str(PROOF_BYTES), constants_point=constants, zero_point=zero,
    )  # fmt: skip
    for name, data in {"settings.json": settings, "vk": b"key", "srs": srs, "circuit.json": circuit.to_bytes()}.items():
        (folder / name).write_bytes(data)
    return circuit


class Prover:
    """Stands in for ezkl: a proof is the digests of its vectors. `calls` counts the proofs made."""

    calls = 0
    fails_at = 0

    def prove(self, folder: Path, inputs: Sequence[Vector], expected: Sequence[Vector]) -> bytes:
        Prover.calls += 1
        if Prover.calls == Prover.fails_at:
            raise EngineFailure("prove", "out of memory")
        points = digest_points([*inputs, *expected])
        return bytes.fromhex("".join(points)).ljust(PROOF_BYTES, b"\1")

    def verify(self, proofs: Sequence[bytes], *rest: bytes) -> list[bool]:
        return [True] * len(proofs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> ExactRun:
    folder = tmp_path_factory.mktemp("prove")
    circuit = write_kit(folder / "kit")
    run = ExactRun(folder / "program", circuit_sha256=circuit.sha256())
    run.train()
    (folder / "secret").write_bytes(SECRET)
    return run


@pytest.fixture
def command(finished: ExactRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `pot prove` on the finished run with some options replaced (None: left out)."""
    monkeypatch.setattr("pot.zk.engine.EzklEngine", Prover)
    Prover.calls, Prover.fails_at = 0, 0
    base = finished.folder.parent

    def prove(*flags: str, **change: object) -> int:
        options: dict[str, object] = {
            "kit": base / "kit", "data": finished.folder / "train.jsonl", "secret": base / "secret",
            "out": tmp_path / "proofs", "steps": "2,4-5", **change,
        }  # fmt: skip
        given = [text for name, value in options.items() if value is not None for text in (f"--{name}", str(value))]
        return main(["prove", str(finished.run_dir), *given, *flags])

    return prove


def test_steps_are_proven_with_the_points_of_the_transcript(
    command: Any, finished: ExactRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == [2, 4, 5]
    assert sorted(path.name for path in (tmp_path / "proofs").iterdir()) == [
        "step-000002.json", "step-000004.json", "step-000005.json",
    ]  # fmt: skip
    events = {event.step: event for segment in finished.chain().segments for event in segment.steps}
    for path in found["proofs"]:
        proof = read_step_proof(Path(path).read_bytes())
        assert proof.points == events[proof.step].points
        assert proof.precommit_sha256 == finished.precommit.sha256()


def test_proven_steps_are_left_alone_also_after_a_failure(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Prover.fails_at = 2
    assert command() == 4
    assert "out of memory" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "proofs").iterdir()] == ["step-000002.json"]
    Prover.calls, Prover.fails_at = 0, 0
    assert command() == 0
    assert Prover.calls == 2
    assert "1 of 3 steps are proven already" in capsys.readouterr().err
    assert command(steps="5,4") == 0
    assert Prover.calls == 2


def test_a_challenge_names_the_steps(
    command: Any, finished: ExactRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = (finished.precommit.sha256(), finished.transcript.sha256())
    path = tmp_path / "challenge.json"
    challenge = new_challenge(*ids, 8, unit="step", forged="0.5", detect="0.8")
    path.write_bytes(challenge.to_bytes())
    assert command("--json", steps=None, challenge=path) == 0
    assert [str(number) for number in json.loads(capsys.readouterr().out)["steps"]] == list(challenge.chosen)
    segments = len(finished.chain().segments)
    path.write_bytes(new_challenge(*ids, segments, unit="segment", forged="0.5", detect="0.8").to_bytes())
    assert command(steps=None, challenge=path) == 2
    assert "--unit step" in capsys.readouterr().err
    path.write_bytes(new_challenge("ab" * 32, ids[1], 8, unit="step", forged="0.5", detect="0.8").to_bytes())
    assert command(steps=None, challenge=path) != 0
    path.write_bytes(b"{}")
    assert command(steps=None, challenge=path) == 2


def test_exactly_one_of_challenge_and_steps(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(steps=None) == 2
    assert command(challenge=tmp_path / "c.json") == 2
    assert capsys.readouterr().err.count("one of them") == 2


@pytest.mark.parametrize(
    "steps", ["", "0", "9", "5-4", "1-", "-1", "1,,2", "1;2", "1.0", "\u0661", "1-99999999999", "0x1", "1 2", "1\n2"]
)
def test_other_steps_are_refused(command: Any, steps: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(steps=steps) == 2
    assert "--steps" in capsys.readouterr().err
    assert Prover.calls == 0


def test_another_secret_is_refused_before_anything_is_proven(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (bytes(32), SECRET[:31], SECRET + b"\0", b""):
        (tmp_path / "wrong").write_bytes(wrong)
        assert command(secret=tmp_path / "wrong") in (1, 2)
    assert command(secret=tmp_path / "none") != 0
    assert Prover.calls == 0
    assert "pre-committed" in capsys.readouterr().err


def test_other_data_is_refused(command: Any, finished: ExactRun, tmp_path: Path) -> None:
    lines = (finished.folder / "train.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "fewer.jsonl").write_bytes(b"".join(lines[:-1]))
    assert command(data=tmp_path / "fewer.jsonl") == 2
    assert Prover.calls == 0
    (tmp_path / "turned.jsonl").write_bytes(b"".join(lines[::-1]))
    assert command(data=tmp_path / "turned.jsonl") == 1  # the points differ from those in the transcript
    assert not (tmp_path / "proofs").exists()


def test_another_circuit_and_a_broken_kit_are_refused(
    command: Any, finished: ExactRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.folder.parent / "kit", tmp_path / "kit")
    circuit = json.loads((tmp_path / "kit" / "circuit.json").read_bytes())
    (tmp_path / "kit" / "circuit.json").write_text(json.dumps(circuit | {"onnx_sha256": "11" * 32}, sort_keys=True))
    assert command(kit=tmp_path / "kit") != 0
    bent = Circuit.from_value(circuit | {"onnx_sha256": "11" * 32}, what="circuit")
    (tmp_path / "kit" / "circuit.json").write_bytes(bent.to_bytes())
    assert command(kit=tmp_path / "kit") == 1
    assert "pre-committed to" in capsys.readouterr().err
    (tmp_path / "kit" / "vk").write_bytes(b"another key")
    assert command(kit=tmp_path / "kit") == 1
    assert command(kit=tmp_path / "nowhere") != 0
    assert Prover.calls == 0


def test_a_proof_of_something_else_in_the_folder_is_not_overwritten(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(steps="2") == 0
    path = tmp_path / "proofs" / "step-000002.json"
    path.rename(path.with_name("step-000004.json"))
    assert command() == 1
    assert "another run, step or circuit" in capsys.readouterr().err
    path.with_name("step-000004.json").write_bytes(b"{")
    assert command() == 2


def test_a_dry_run_proves_nothing_and_needs_no_secret(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--dry-run", "--json", secret=tmp_path / "none") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["rows"], found["logrows"]) == (3, 4000, 13)
    assert command("--dry-run") == 0
    assert "3 steps of" in capsys.readouterr().out
    assert Prover.calls == 0
    assert not (tmp_path / "proofs").exists()


def test_zk_setup_refuses_before_it_makes_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zk", "setup", "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    out = tmp_path / "kit"
    for shift in ("-1", "17", "x", "16"):
        assert main(["zk", "setup", "--out", str(out), "--rate-shift", shift]) == 2
    assert main(["zk", "setup", "--out", str(out), "--srs", str(tmp_path / "none")]) != 0
    (tmp_path / "srs").write_bytes(b"short")
    assert main(["zk", "setup", "--out", str(out), "--srs", str(tmp_path / "srs")]) == 2
    assert main(["zk", "setup"]) == 2
    assert not out.exists()


def test_zk_rebuild_vk_refuses_what_is_no_kit(
    finished: ExactRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["zk", "rebuild-vk", str(tmp_path)]) != 0
    kit = tmp_path / "kit"
    shutil.copytree(finished.folder.parent / "kit", kit)
    from pot.zk.kit import VerifyingKit

    other = Circuit.from_bytes((kit / "circuit.json").read_bytes(), what="c").model_copy(
        update={"zero_point": "1" * 128}
    )
    monkeypatch.setattr("pot.zk.verifier.rebuild", lambda *_: VerifyingKit(other, b"", b"", b""))
    assert main(["zk", "rebuild-vk", str(kit)]) == 1
    (kit / "srs").write_bytes(b"short")
    assert main(["zk", "rebuild-vk", str(kit)]) in (1, 2)
