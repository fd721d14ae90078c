"""A52: the prover's own key, settings, reference string, program, table, or prover process."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ezkl")

from proven_steps import PROGRAM, ProvenSteps, proven_steps
from step_attacks import RUN, SECRET

from pot.canonical import sha256_hex
from pot.errors import PotError, Refused
from pot.zk import kit, srs, verifier
from pot.zk.circuit import table_name
from pot.zk.engine import EngineFailure, EzklEngine, Limits
from pot.zk.prover import prove_step
from pot.zk.semantics.exact import RangeLeft


@pytest.fixture(scope="module")
def world() -> ProvenSteps:
    return proven_steps()


@pytest.fixture(scope="module")
def rebuilt(world: ProvenSteps) -> kit.VerifyingKit:
    """Everything made again from the program."""
    return kit.rebuild(world.kit.verifying, world.engine)


def test_a52_the_circuit_is_rebuilt_byte_for_byte(world: ProvenSteps, rebuilt: kit.VerifyingKit) -> None:
    assert rebuilt == world.kit.verifying


def test_a52_a_circuit_that_says_another_thing_of_itself(
    world: ProvenSteps, rebuilt: kit.VerifyingKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebuilding tells any field of the document that does not follow from the program."""
    monkeypatch.setattr(verifier, "rebuild", lambda *_: rebuilt)
    verifier.check_circuit(world.kit.verifying, world.engine)
    part = world.kit.circuit.parts[0]
    bents: list[dict[str, Any]] = [
        {"constants_point": world.points[0].batch},
        {"label": "another"},
        {"parts": [part.model_copy(update={"vk_sha256": "ab" * 32}), *world.kit.circuit.parts[1:]]},
        {"parts": [part.model_copy(update={"powers": part.powers[1:]}), *world.kit.circuit.parts[1:]]},
        {"parts": world.kit.circuit.parts[:1]},
    ]
    for change in bents:
        circuit = world.kit.circuit.model_copy(update=change)
        bent = kit.VerifyingKit(circuit, PROGRAM, world.kit.verifying.parts, world.kit.verifying.srs)
        with pytest.raises(verifier.StepProofRefused, match=next(iter(change))):
            verifier.check_circuit(bent, world.engine)


def test_a52_the_provers_own_srs(world: ProvenSteps) -> None:
    """Under an SRS whose secret the prover knows anything can be proven, so key and SRS are the circuit's."""
    own = srs.make_srs(world.engine, world.kit.circuit.logrows)
    bent = world.kit.circuit.model_copy(update={"srs_sha256": sha256_hex(own)})
    assert world.refuses(world.proofs[0], circuit=bent, srs=own) == "circuit"
    assert world.refuses(world.proofs[0], srs=own) == "kit"
    assert srs.classify(sha256_hex(own), {}) == "insecure-local"
    assert srs.classify(sha256_hex(own), {sha256_hex(own): "public-ceremony"}) == "insecure-local"
    assert srs.classify(srs.PUBLIC_CEREMONY[13], {}) == "public-ceremony"


def test_a52_changed_settings_key_and_program(world: ProvenSteps) -> None:
    proof, files = world.proofs[0], world.kit.verifying.parts
    settings = json.loads(files[0].settings)
    settings["model_output_scales"] = [7]
    changed = json.dumps(settings).encode()
    body = bytes.fromhex(proof.proofs[0])
    assert world.system_accepts([body], world.public(proof, 0), settings=changed) == [True]  # another scale, for ezkl
    key = bytearray(files[0].verifying_key)
    key[-1] ^= 1
    forged = [
        kit.KitPart(changed, files[0].verifying_key),
        kit.KitPart(files[0].settings, bytes(key)),
        files[1],
    ]
    for part in forged:
        assert world.refuses(proof, parts=[part, files[1]]) == "kit"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kit.VerifyingKit, "check", lambda _: None)
        for part in forged[:2]:
            world.check(proof, parts=[part, files[1]])  # neither scale nor last byte of the key is read by ezkl
    assert world.refuses(proof, parts=files[:1]) == "kit"
    assert world.refuses(proof, parts=[files[1], files[0]]) == "kit"
    assert world.refuses(proof, step=PROGRAM.model_copy(update={"label": "another"})) == "kit"
    assert world.refuses(proof, srs=b"") == "kit"


def test_a52_another_version_of_ezkl_is_not_asked(world: ProvenSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EzklEngine, "version", lambda engine: "99.0.0")
    with pytest.raises(EngineFailure, match=r"99\.0\.0 is installed"):
        world.check(world.proofs[0])


def test_a52_hostile_settings_end_in_time(world: ProvenSteps) -> None:
    proof, files = world.proofs[0], world.kit.verifying.parts
    limits = Limits(wall_seconds=6, cpu_seconds=6, memory_bytes=2 << 30, file_bytes=1 << 20)
    engine = EzklEngine(verify_limits=limits)
    settings = json.loads(files[0].settings)
    settings["run_args"]["num_inner_cols"] = 1 << 28
    settings["run_args"]["logrows"] = 28
    settings["num_rows"] = settings["total_assignments"] = 1 << 40
    asked = (bytes.fromhex(proof.proofs[0]), world.public(proof, 0))
    for hostile in (json.dumps(settings).encode(), b"", b"[" * 100_000, os.urandom(1000)):
        with contextlib.suppress(EngineFailure):  # whatever it answers, it answers in time and as one of our errors
            engine.verify([asked], hostile, files[0].verifying_key, world.kit.verifying.srs)
        assert world.refuses(proof, parts=[kit.KitPart(hostile, files[0].verifying_key), files[1]]) == "kit"


def test_a52_a_child_beyond_its_memory_is_reported() -> None:
    engine = EzklEngine(Limits(wall_seconds=120, memory_bytes=128 << 20))
    with pytest.raises(EngineFailure, match=r"without an answer|memory|load"):
        engine.make_srs(20)


def test_a52_the_prover_refuses_before_ezkl_hangs(world: ProvenSteps) -> None:
    state = {**world.states[0], "0.bias": np.full(4, 60 << 28, np.int64)}
    with pytest.raises(RangeLeft):
        prove_step(
            world.kit, secret=SECRET, precommit_sha256=RUN, number=1, state=state, batch=world.batches[0],
            engine=world.engine,
        )  # fmt: skip


def test_a52_the_table_cache_of_the_user_is_never_read(
    world: ProvenSteps, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ezkl takes a table from its cache unchecked: one whose limbs end later would prove wrong roundings."""
    name = table_name(PROGRAM, world.kit.circuit.shape)
    for folder in (tmp_path / "cache", tmp_path / ".ezkl" / "cache"):
        poisoned = folder / name
        poisoned.mkdir(parents=True)
        (poisoned / "inputs").write_bytes(b"poison")
        (poisoned / "outputs").write_bytes(b"poison")
    monkeypatch.setenv("EZKL_REPO_PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    part = world.bench.parts.parts[1]
    onnx = part.graph.onnx(world.bench.parts.lengths(part), part.output)
    files = world.kit.verifying.parts[1]
    made = world.engine.setup(onnx, files.settings, world.kit.verifying.srs, None)
    assert made.verifying_key == files.verifying_key
    assert made.tables == (name,)


def test_a52_a_kit_with_a_changed_file_does_not_open(world: ProvenSteps, tmp_path: Path) -> None:
    names = ["circuit.json", "program.json", "srs"]
    names += [f"part-{at}/{name}" for at in range(2) for name in ("settings.json", "vk")]
    for at in range(2):
        (tmp_path / f"part-{at}").mkdir()
    for name in names:
        (tmp_path / name).write_bytes((world.kit.folder / name).read_bytes())
    assert kit.open_kit(tmp_path).circuit == world.kit.circuit
    for name in names:
        data = bytearray((world.kit.folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / name).write_bytes(data)
        with pytest.raises((Refused, PotError)):
            kit.open_kit(tmp_path)
        (tmp_path / name).write_bytes((world.kit.folder / name).read_bytes())
    (tmp_path / "srs").write_bytes(b"short")
    with pytest.raises(PotError):
        kit.open_kit(tmp_path)
