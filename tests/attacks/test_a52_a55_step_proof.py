"""A52-A55 and ezkl's traps: step proofs of something else, and what each check stops.

Each forgery is first shown to pass where the one check that stops it is left out: with the proof system alone
(`engine.verify`), or with the field that the check reads set to what it wants.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pot.canonical import sha256_hex
from pot.errors import Malformed, PotError, Refused
from pot.recording.transcript import Points
from pot.zk import circuit, exact, kit, packing, prover, srs, verifier
from pot.zk import engine as engine_module
from pot.zk.engine import EngineFailure, EzklEngine, Limits
from pot.zk.exact import RangeLeft, Weights
from pot.zk.proof import StepProof, front_points
from pot.zk.spec import LANE_BITS, CircuitSpec

pytest.importorskip("ezkl")

SPEC = CircuitSpec(
    version="pot/circuit-spec/v1", inputs=8, hidden=4, outputs=3, batch=2, weight_bits=24, feature_bits=4,
    feature_range_bits=5, limb_bits=10, rate_shift=3, max_steps=256, blinds=8, logrows=11, columns=4,
)  # fmt: skip
RUN, OTHER_RUN = "aa" * 32, "bb" * 32
SECRET = bytes(range(32))


@dataclass(frozen=True)
class World:
    """One small circuit, a run of two steps, and their honest proofs."""

    engine: EzklEngine
    kit: kit.ProvingKit
    pin: str
    states: list[Weights]
    batches: list[tuple[Any, Any]]
    points: list[Points]
    proofs: list[StepProof]

    def expected(self, step: int = 1, run: str = RUN, **points: str) -> verifier.Expected:
        return verifier.Expected(run, step, self.points[step - 1].model_copy(update=points))

    def check(self, proof: StepProof, expected: verifier.Expected | None = None, **change: Any) -> None:
        verifying = replace(self.kit.verifying, **change)
        verifier.verify_step(
            proof, kit=verifying, circuit_sha256=self.pin, expected=expected or self.expected(), engine=self.engine
        )

    def system_accepts(self, body: bytes, **change: bytes) -> bool:
        """The proof system alone, without any of our checks."""
        v = self.kit.verifying
        files = {"settings": v.settings, "verifying_key": v.verifying_key, "srs": v.srs, **change}
        return self.engine.verify([body], **files)[0]

    def vectors(self, step: int = 1) -> list[packing.Vector]:
        features, labels = self.batches[step - 1]
        return prover.step_vectors(SPEC, SECRET, step, self.states[step - 1], features, labels)[0]

    def forge(self, inputs: list[packing.Vector]) -> tuple[StepProof, verifier.Expected]:
        """A proof of whatever ezkl proves for these inputs, presented with its own points as the transcript's."""
        body = self.engine.prove(self.kit.folder, inputs, None)
        front = front_points(body)
        assert front is not None
        points = Points(before=front["before"], batch=front["batch"], after=front["after"])
        assert self.system_accepts(body)
        proof = self.proofs[0].model_copy(update={"points": points, "proof": body.hex()})
        return proof, verifier.Expected(RUN, 1, points)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    engine = EzklEngine(Limits(wall_seconds=240))
    made = kit.build_kit(SPEC, srs.make_srs(engine, SPEC.logrows), tmp_path_factory.mktemp("kit"), engine)
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return np.round(rng.normal(0, 0.1, shape) * 2**SPEC.weight_bits).astype(np.int64)

    states = [Weights(draw(4, 8), draw(4), draw(3, 4), draw(3))]
    batches = []
    for _ in range(2):
        batch = (rng.integers(0, 17, (2, 8)).astype(np.int64), rng.integers(0, 3, 2).astype(np.int64))
        batches.append(batch)
        states.append(exact.step(SPEC, states[-1], *batch).weights)
    committed = prover.commit_states(made.verifying, SECRET, list(enumerate(states)), engine)
    batch_points = prover.commit_batches(
        made.verifying, SECRET, [(n, x, y) for n, (x, y) in enumerate(batches, 1)], engine
    )
    points = [Points(before=committed[n], batch=batch_points[n], after=committed[n + 1]) for n in range(2)]
    proofs = [
        prover.prove_step(
            made, secret=SECRET, precommit_sha256=RUN, number=n, weights=states[n - 1],
            features=batches[n - 1][0], labels=batches[n - 1][1], engine=engine,
        )
        for n in (1, 2)
    ]  # fmt: skip
    return World(engine, made, made.circuit.sha256(), states, batches, points, proofs)


def refused(
    world: World, code: str, proof: StepProof, expected: verifier.Expected | None = None, **change: Any
) -> None:
    with pytest.raises(verifier.StepProofRefused) as caught:
        world.check(proof, expected, **change)
    assert caught.value.code == code


def test_honest_proofs_pass_and_their_points_are_those_committed_beforehand(world: World) -> None:
    verifier.verify_steps(
        world.proofs, kit=world.kit.verifying, circuit_sha256=world.pin,
        expected=[world.expected(1), world.expected(2)], engine=world.engine,
    )  # fmt: skip
    assert [proof.points for proof in world.proofs] == world.points
    assert world.points[0].after == world.points[1].before
    assert verifier.read_step_proof(world.proofs[0].to_bytes()) == world.proofs[0]
    assert kit.open_kit(world.kit.folder).circuit == world.kit.circuit


def test_a53_a_proof_of_another_step(world: World) -> None:
    assert world.system_accepts(bytes.fromhex(world.proofs[1].proof))
    refused(world, "step", world.proofs[1])
    relabelled = world.proofs[1].model_copy(update={"step": "1"})
    refused(world, "points", relabelled)
    world.check(relabelled, verifier.Expected(RUN, 1, world.points[1]))  # only the transcript's points stop it
    refused(world, "points", relabelled.model_copy(update={"points": world.points[0]}))


def test_a53_a_proof_of_another_run(world: World) -> None:
    refused(world, "run", world.proofs[0], world.expected(run=OTHER_RUN))
    other_secret = bytes(32)
    expected = verifier.Expected(
        OTHER_RUN, 1,
        Points(
            before=prover.commit_states(world.kit.verifying, other_secret, [(0, world.states[0])], world.engine)[0],
            batch=world.points[0].batch, after=world.points[0].after,
        ),
    )  # fmt: skip
    relabelled = world.proofs[0].model_copy(update={"precommit_sha256": OTHER_RUN})
    refused(world, "points", relabelled, expected)  # the same weights under another run's blinds: another point


def test_a53_a_proof_of_another_batch(world: World) -> None:
    features, labels = world.batches[1]
    inputs = prover.step_vectors(SPEC, SECRET, 1, world.states[0], features, labels)[0]
    proof, own = world.forge(inputs)
    world.check(proof, own)
    refused(world, "points", proof, world.expected())


def test_a53_swapped_points(world: World) -> None:
    points = world.points[0]
    swapped = points.model_copy(update={"before": points.after, "after": points.before})
    refused(world, "points", world.proofs[0].model_copy(update={"points": swapped}))
    refused(world, "points", world.proofs[0], verifier.Expected(RUN, 1, swapped))
    body = bytes.fromhex(world.proofs[0].proof)
    turned = body[256:320] + body[64:256] + body[:64] + body[320:]
    forged = world.proofs[0].model_copy(update={"points": swapped, "proof": turned.hex()})
    refused(world, "invalid", forged, verifier.Expected(RUN, 1, swapped))


@pytest.mark.parametrize("part", ["hidden", "error", "delta"])
def test_a54_a_rounding_wrong_by_one(world: World, part: str) -> None:
    inputs = world.vectors()
    starts = {
        "hidden": 0,
        "error": SPEC.batch * SPEC.hidden * 4,
        "delta": SPEC.batch * (SPEC.hidden * 4 + SPEC.outputs * 4),
    }
    limb = starts[part] + (0 if part == "hidden" else 1)
    inputs[2][limb] += 1 if inputs[2][limb] < (1 << SPEC.limb_bits) - 1 else -1
    proof, own = world.forge(inputs)  # the proof system accepts it: only the residual's point says it is wrong
    refused(world, "residual", proof, own)


def test_a54_a_rounding_wrong_by_two_to_the_forty(world: World) -> None:
    inputs = world.vectors()
    assert world.engine.mock(world.kit.folder, inputs)[0]
    inputs[2][0] += 1 << 40
    assert not world.engine.mock(world.kit.folder, inputs)[0]


def test_a54_a_limb_one_beyond_the_table(world: World) -> None:
    """ezkl fills its tables to the end of the column; ours must end exactly at 2^limb_bits - 1."""
    inputs = world.vectors()
    inputs[2][1] = (1 << SPEC.limb_bits) - 1
    assert world.engine.mock(world.kit.folder, inputs)[0]
    inputs[2][1] = 1 << SPEC.limb_bits
    assert not world.engine.mock(world.kit.folder, inputs)[0]


def test_a54_a_negative_limb_counts_as_zero(world: World) -> None:
    """Negative entries are in the table, but its output is max(v, 0) and only outputs are used."""
    inputs = world.vectors()
    zero = [*inputs[2]]
    zero[1] = 0
    inputs[2][1] = world_negative(5)
    holds, outputs = world.engine.mock(world.kit.folder, inputs)
    assert holds
    inputs[2] = zero
    assert world.engine.mock(world.kit.folder, inputs)[1] == outputs


def test_a54_the_ends_of_the_table(world: World) -> None:
    """Inputs below the table's first row or above its last have no row, nor does padding give them one."""
    low, high = circuit.run_arguments(SPEC)["lookup_range"]
    spot = world.vectors()[2]
    for value, holds in ((low, True), (low - 1, False), (high, True), (high + 1, False), (1 << 200, False)):
        inputs = world.vectors()
        inputs[2] = [*spot]
        inputs[2][1] = value % packing.FIELD_MODULUS
        assert world.engine.mock(world.kit.folder, inputs)[0] is holds, value


def test_a54_a_negative_mark_or_label_never_acts_as_another_number(world: World) -> None:
    """Marks and labels are 0 or 1 after the table; a negative one acts as 0, so a second label could hide there."""
    labels = SPEC.batch * (SPEC.inputs + 1)
    inputs = world.vectors()
    unset = next(at for at in range(SPEC.outputs) if inputs[1][labels + at] == 0)
    honest = world.engine.mock(world.kit.folder, inputs)[1]
    for spot in (0, labels + unset):
        inputs = world.vectors()
        before = inputs[1][spot]
        inputs[1][spot] = world_negative(3)
        holds, outputs = world.engine.mock(world.kit.folder, inputs)
        assert holds
        assert (outputs == honest) is (before == 0)


def test_a54_a_batch_with_negative_entries_has_a_point_that_no_records_open(world: World) -> None:
    """One meaning has many vectors, but one vector has one meaning: opening compares the point of the right one."""
    features, labels = world.batches[0]
    zeros = [at for at in range(SPEC.inputs) if features[0, at] == 0]
    if not zeros:
        features = features.copy()
        features[0, 0], zeros = 0, [0]
    inputs = prover.step_vectors(SPEC, SECRET, 1, world.states[0], features, labels)[0]
    inputs[1][zeros[0]] = world_negative(1)
    proof, own = world.forge(inputs)
    world.check(proof, own)  # a valid step proof of the step with a 0 there
    blind = packing.blinds(SPEC, SECRET, "batch", 1)
    with pytest.raises(verifier.StepProofRefused, match="opened batch"):
        verifier.check_batch_point(
            world.kit.verifying, features=features, labels=labels, blind=blind, point=own[2].batch, engine=world.engine
        )


def test_a54_a_state_outside_the_lanes_proves_a_step_that_is_none(world: World) -> None:
    """What a step proof alone does not show: from a state that nobody could open, the circuit still finds a next one.

    The packed weight holds 2^62 in its first lane; no state in range has that point, and its features are zero, so no
    sum shows it. Only opening states (the start, or the segment that is audited) rules it out.
    """
    features, labels = world.batches[0]
    features = features.copy()
    features[:, 0] = 0
    inputs = prover.step_vectors(SPEC, SECRET, 1, world.states[0], features, labels)[0]
    inputs[0][0] = (inputs[0][0] + (1 << 62)) % packing.FIELD_MODULUS
    proof, own = world.forge(inputs)
    world.check(proof, own)
    with pytest.raises(verifier.StepProofRefused, match="opened state"):
        verifier.check_state_point(
            world.kit.verifying, weights=world.states[0], blind=packing.blinds(SPEC, SECRET, "state", 0),
            point=own[2].before, start=True, engine=world.engine,
        )  # fmt: skip


def test_a55_another_vector_in_another_place(world: World) -> None:
    """The six blocks have their places from the key: a constants point in the witness' place does not verify."""
    body = bytes.fromhex(world.proofs[0].proof)
    for one, other in ((0, 4), (1, 2), (2, 3), (4, 5), (3, 5)):
        blocks = [body[64 * at : 64 * at + 64] for at in range(6)]
        blocks[one], blocks[other] = blocks[other], blocks[one]
        assert not world.system_accepts(b"".join(blocks) + body[384:])


def world_negative(value: int) -> int:
    from pot.zk.spec import FIELD_MODULUS

    return FIELD_MODULUS - value


def test_a54_features_out_of_range(world: World) -> None:
    features, labels = world.batches[0]
    wrong = features.copy()
    wrong[0, 0] = 32
    with pytest.raises(Malformed, match="feature"):
        packing.batch_vector(SPEC, wrong, labels, [0] * SPEC.blinds)
    inputs = world.vectors()
    inputs[1][0] = 31
    assert world.engine.mock(world.kit.folder, inputs)[0]
    inputs[1][0] = 32  # the second lookup, of 2^5 times the feature, leaves the table
    assert not world.engine.mock(world.kit.folder, inputs)[0]


def test_a54_labels_that_are_not_one_hot(world: World) -> None:
    inputs = world.vectors()
    first = SPEC.batch * (SPEC.inputs + 1)
    inputs[1][first : first + 3] = [1, 1, 0]
    proof, own = world.forge(inputs)
    refused(world, "residual", proof, own)
    inputs[1][first : first + 3] = [2, 0, 0]
    assert not world.engine.mock(world.kit.folder, inputs)[0]


def test_a54_another_bias_feature(world: World) -> None:
    inputs = world.vectors()
    inputs[1][SPEC.inputs] = 17
    proof, own = world.forge(inputs)
    refused(world, "residual", proof, own)


def test_a54_other_constants(world: World) -> None:
    """Constants are an input; a prover who doubles the learning rate proves well, but not under the pinned point."""
    inputs = world.vectors()
    rate = len(inputs[3]) - SPEC.outputs - 3
    assert inputs[3][rate] == 1 << SPEC.output_update_shift
    inputs[3][rate] *= 2
    proof, own = world.forge(inputs)
    refused(world, "constants", proof, own)


def test_a54_wrapped_weights(world: World) -> None:
    """Two lanes of a packed weight can trade 2^63; the point is the same, so an opened start is range-checked."""
    honest = world.states[0]
    vector = packing.state_vector(SPEC, honest, packing.blinds(SPEC, SECRET, "state", 0))
    lanes = honest.hidden_weight.T[0].tolist()
    traded = [lanes[0] + (1 << LANE_BITS), lanes[1] - 1, *lanes[2:]]
    packed = sum(value << (LANE_BITS * lane) for lane, value in enumerate(traded))
    assert packed % packing.FIELD_MODULUS == vector[0]
    weight = honest.hidden_weight.copy()
    weight[0, 0] += 1 << 40
    with pytest.raises(RangeLeft):
        verifier.check_state_point(
            world.kit.verifying, weights=replace(honest, hidden_weight=weight), blind=[0] * 8, point="", start=True,
            engine=world.engine,
        )  # fmt: skip


def test_opened_states_and_batches_are_recomputed(world: World) -> None:
    verifying = world.kit.verifying
    blind = packing.blinds(SPEC, SECRET, "state", 0)
    arguments = {"point": world.points[0].before, "start": True, "engine": world.engine}
    verifier.check_state_point(verifying, weights=world.states[0], blind=blind, **arguments)
    with pytest.raises(verifier.StepProofRefused, match="opened state"):
        verifier.check_state_point(verifying, weights=world.states[1], blind=blind, **arguments)
    features, labels = world.batches[0]
    other = (labels + 1) % SPEC.outputs
    blind = packing.blinds(SPEC, SECRET, "batch", 1)
    point, engine = world.points[0].batch, world.engine
    verifier.check_batch_point(verifying, features=features, labels=labels, blind=blind, point=point, engine=engine)
    with pytest.raises(verifier.StepProofRefused, match="opened batch"):
        verifier.check_batch_point(verifying, features=features, labels=other, blind=blind, point=point, engine=engine)


def test_a55_trailing_bytes(world: World) -> None:
    body = bytes.fromhex(world.proofs[0].proof)
    assert world.system_accepts(body + b"\0" * 32)  # ezkl takes it
    refused(world, "length", world.proofs[0].model_copy(update={"proof": (body + b"\0" * 32).hex()}))
    refused(world, "length", world.proofs[0].model_copy(update={"proof": body[:-1].hex()}))
    refused(world, "length", world.proofs[0].model_copy(update={"proof": "00"}))


def test_a52_the_provers_own_srs(world: World) -> None:
    """Under an SRS whose secret the prover knows anything can be proven, so key and SRS are the circuit's."""
    own = kit.rebuild(SPEC, srs.make_srs(world.engine, SPEC.logrows), world.engine)
    refused(world, "circuit", world.proofs[0], circuit=own.circuit)
    refused(world, "kit", world.proofs[0], srs=own.srs)
    refused(world, "kit", world.proofs[0], verifying_key=own.verifying_key)
    assert srs.classify(sha256_hex(own.srs), {}) == "insecure-local"
    assert srs.classify(sha256_hex(own.srs), {sha256_hex(own.srs): "public-ceremony"}) == "insecure-local"
    assert srs.classify(srs.PUBLIC_CEREMONY[1], {}) == "public-ceremony"


def test_a52_changed_settings_and_key(world: World) -> None:
    body = bytes.fromhex(world.proofs[0].proof)
    v = world.kit.verifying
    settings = json.loads(v.settings)
    settings["model_output_scales"] = [7, 7]
    changed = json.dumps(settings).encode()
    assert world.system_accepts(body, settings=changed)  # ezkl takes another scale for the same proof
    refused(world, "kit", world.proofs[0], settings=changed)
    refused(world, "kit", world.proofs[0], verifying_key=v.verifying_key[:-1] + bytes([v.verifying_key[-1] ^ 1]))


def test_a52_the_circuit_is_rebuilt_byte_for_byte(world: World) -> None:
    verifier.check_circuit(world.kit.verifying, world.engine)
    assert kit.rebuild_verifying_key(SPEC, world.kit.verifying.srs, world.engine) == world.kit.verifying.verifying_key
    bent = world.kit.circuit.model_copy(update={"zero_point": world.points[0].after})
    with pytest.raises(verifier.StepProofRefused, match="zero_point"):
        verifier.check_circuit(replace(world.kit.verifying, circuit=bent), world.engine)


def test_a55_a_step_beyond_the_proven_range(world: World) -> None:
    far = world.proofs[0].model_copy(update={"step": str(SPEC.max_steps + 1)})
    refused(world, "step", far, verifier.Expected(RUN, SPEC.max_steps + 1, world.points[0]))


def test_every_field_of_a_step_proof_counts(world: World) -> None:
    honest = world.proofs[0].model_dump()
    for name in ("version", "precommit_sha256", "step", "circuit_sha256", "proof"):
        value = honest[name]
        for mutant in (value[:-1] + ("1" if value[-1] != "1" else "2"), "", value.upper() + "A", value + "0"):
            with pytest.raises(PotError):
                world.check(StepProof.from_value({**honest, name: mutant}, what="proof"))
    for name in ("before", "batch", "after"):
        point = honest["points"][name]
        bent = {**honest["points"], name: ("0" if point[0] != "0" else "1") + point[1:]}
        refused(world, "points", StepProof.from_value({**honest, "points": bent}, what="proof"))


def test_bytes_all_over_the_proof_count(world: World) -> None:
    body = bytes.fromhex(world.proofs[0].proof)
    spots = range(64 * 6, len(body), 97)
    mutants = [body[:i] + bytes([body[i] ^ 1]) + body[i + 1 :] for i in spots]
    v = world.kit.verifying
    assert world.engine.verify([body, *mutants], v.settings, v.verifying_key, v.srs) == [True] + [False] * len(mutants)


def test_hostile_settings_end_in_time(world: World) -> None:
    body = bytes.fromhex(world.proofs[0].proof)
    v = world.kit.verifying
    engine = EzklEngine(verify_limits=Limits(wall_seconds=6, cpu_seconds=6, memory_bytes=2 << 30, file_bytes=1 << 20))
    settings = json.loads(v.settings)
    settings["run_args"]["num_inner_cols"] = 1 << 28
    settings["run_args"]["logrows"] = 28
    settings["num_rows"] = settings["total_assignments"] = 1 << 40
    for hostile in (json.dumps(settings).encode(), b"", b"{}", b"[" * 100_000, os.urandom(1000)):
        with contextlib.suppress(EngineFailure):  # whatever it answers, it answers in time and as one of our errors
            engine.verify([body], hostile, v.verifying_key, v.srs)
        refused(world, "kit", world.proofs[0], settings=hostile)


def test_garbage_in_place_of_a_proof_is_invalid_not_a_crash(world: World) -> None:
    v = world.kit.verifying
    garbage = [b"", b"\0", b"\xff" * 5024, os.urandom(5024)]
    assert world.engine.verify(garbage, v.settings, v.verifying_key, v.srs) == [False] * 4


def test_a_hanging_child_is_killed_and_reported() -> None:
    limits = Limits(wall_seconds=1.0)
    started = time.monotonic()
    with engine_module._Child("sleep", limits) as child, pytest.raises(EngineFailure, match="after 1 seconds"):
        child.run()
    assert time.monotonic() - started < 60
    assert not Path(child._folder).exists()


def test_a_child_beyond_its_memory_is_reported() -> None:
    engine = EzklEngine(Limits(wall_seconds=120, memory_bytes=128 << 20))
    with pytest.raises(EngineFailure, match=r"without an answer|memory|load"):
        engine.make_srs(20)


def test_the_table_cache_of_the_user_is_never_read(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    poisoned = tmp_path / "cache" / "hardswish_1_-1016_1023"
    poisoned.mkdir(parents=True)
    (poisoned / "inputs").write_bytes(b"poison")
    (poisoned / "outputs").write_bytes(b"poison")
    monkeypatch.setenv("EZKL_REPO_PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    key = kit.rebuild_verifying_key(SPEC, world.kit.verifying.srs, world.engine)
    assert key == world.kit.verifying.verifying_key


def test_the_prover_refuses_before_ezkl_hangs(world: World) -> None:
    features, labels = world.batches[0]
    bias = np.full(SPEC.hidden, 10 << SPEC.weight_bits, np.int64)
    with pytest.raises(RangeLeft):
        prover.prove_step(
            world.kit, secret=SECRET, precommit_sha256=RUN, number=1, features=features, labels=labels,
            weights=replace(world.states[0], hidden_bias=bias), engine=world.engine,
        )  # fmt: skip


def test_a_kit_with_a_changed_file_does_not_open(world: World, tmp_path: Path) -> None:
    for name in ("circuit.json", "settings.json", "vk", "srs"):
        (tmp_path / name).write_bytes((world.kit.folder / name).read_bytes())
    data = bytearray((tmp_path / "srs").read_bytes())
    data[100] ^= 1
    (tmp_path / "srs").write_bytes(data)
    with pytest.raises(Refused, match="SRS"):
        kit.open_kit(tmp_path)
    (tmp_path / "srs").write_bytes(b"short")
    with pytest.raises(PotError):
        kit.open_kit(tmp_path)
