"""A53: a valid proof of something else. What a step proof is about is what its challenge is made of.

Each forgery is first accepted by the proof system alone, or where the one check that stops it is left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("ezkl")

from proven_steps import PROGRAM, ProvenSteps, all_points, proven_steps
from step_attacks import RUN, SECRET, cancelling, changed

from pot.recording.transcript import Points
from pot.zk import verifier
from pot.zk.circuits.packing import blinds_of
from pot.zk.kit import open_kit
from pot.zk.proof import StepProof, front_points

OTHER_RUN = "bb" * 32


@pytest.fixture(scope="module")
def world() -> ProvenSteps:
    return proven_steps()


def bodies(proof: StepProof) -> list[bytes]:
    return [bytes.fromhex(text) for text in proof.proofs]


def test_a53_honest_proofs_pass_and_link(world: ProvenSteps) -> None:
    verifier.verify_steps(
        world.proofs, kit=world.kit.verifying, circuit_sha256=world.pin,
        expected=[world.expected(1), world.expected(2)], engine=world.engine,
    )  # fmt: skip
    assert [proof.points for proof in world.proofs] == world.points
    assert world.points[0].after == world.points[1].before
    assert len(world.points[0].before) == 2 * 128
    assert len(world.kit.circuit.parts) == 2
    assert verifier.read_step_proof(world.proofs[0].to_bytes()) == world.proofs[0]
    assert open_kit(world.kit.folder).circuit == world.kit.circuit


def test_a53_a_long_chain_is_checked_in_blocks(world: ProvenSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    """One child for all would run into its time limit, and the wrong proof may stand in any block."""
    monkeypatch.setattr(verifier, "_AT_ONCE", 2)
    one, two = world.proofs
    last = int(one.proofs[0][-2:], 16) ^ 1
    bent = one.model_copy(update={"proofs": [f"{one.proofs[0][:-2]}{last:02x}", one.proofs[1]]})
    for chain in ([one, two, one, two, one], [one, two, one, two, bent]):
        expected = [world.expected(int(proof.step)) for proof in chain]
        asked = len(world.engine.usage)
        given = {"kit": world.kit.verifying, "circuit_sha256": world.pin, "expected": expected, "engine": world.engine}
        if bent in chain:
            with pytest.raises(verifier.StepProofRefused, match="step 1: part 1"):
                verifier.verify_steps(chain, **given)
        else:
            verifier.verify_steps(chain, **given)
            assert [use.call for use in world.engine.usage[asked:]] == ["verify"] * 6


def test_a53_a_proof_of_another_step(world: ProvenSteps) -> None:
    second = world.proofs[1]
    assert world.system_accepts(bodies(second)[:1], world.public(second, 0)) == [True]
    assert world.refuses(second) == "step"
    relabelled = second.model_copy(update={"step": "1"})
    assert world.refuses(relabelled) == "points"
    assert world.refuses(relabelled.model_copy(update={"points": world.points[0]})) == "points"
    own = world.expected(1, points=world.points[1])  # a transcript with the same points at another step
    assert world.refuses(relabelled, own) == "invalid"


def test_a53_a_proof_of_another_run(world: ProvenSteps) -> None:
    first = world.proofs[0]
    assert world.refuses(first, world.expected(run=OTHER_RUN)) == "run"
    relabelled = first.model_copy(update={"precommit_sha256": OTHER_RUN})
    assert world.refuses(relabelled, world.expected(run=OTHER_RUN)) == "invalid"


def test_a53_a_proof_under_another_circuit(world: ProvenSteps) -> None:
    """A circuit with another name has another challenge, even where all its keys are the same."""
    bent = world.kit.circuit.model_copy(update={"label": "the same circuit with another name"})
    assert world.refuses(world.proofs[0], circuit=bent) == "circuit"
    relabelled = world.proofs[0].model_copy(update={"circuit_sha256": bent.sha256()})
    assert world.refuses(relabelled) == "circuit"
    with pytest.raises(verifier.StepProofRefused, match="does not verify") as caught:
        verifier.verify_step(
            relabelled, kit=replace(world.kit.verifying, circuit=bent),
            circuit_sha256=bent.sha256(), expected=world.expected(), engine=world.engine,
        )  # fmt: skip
    assert caught.value.code == "invalid"


@pytest.mark.parametrize("name", ["step", "precommit_sha256", "circuit_sha256"])
def test_a53_a_challenge_that_left_one_thing_out(
    name: str, world: ProvenSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where run, step or circuit were not in the challenge, the document's own word for it would be all there is."""
    circuit = world.kit.circuit.model_copy(update={"label": "the same circuit with another name"})
    sold: dict[str, dict[str, Any]] = {
        "step": {"step": "2"}, "precommit_sha256": {"precommit_sha256": OTHER_RUN},
        "circuit_sha256": {"circuit_sha256": circuit.sha256()},
    }  # fmt: skip
    first = world.proofs[0].model_copy(update=sold[name])
    kit = replace(world.kit.verifying, circuit=circuit) if name == "circuit_sha256" else world.kit.verifying
    expected = verifier.Expected(first.precommit_sha256, int(first.step), world.points[0])

    def check() -> None:
        verifier.verify_step(
            first, kit=kit, circuit_sha256=kit.circuit.sha256(), expected=expected, engine=world.engine
        )

    with pytest.raises(verifier.StepProofRefused, match="does not verify"):
        check()
    real, honest = verifier.challenge, {"step": 1, "precommit_sha256": RUN, "circuit_sha256": world.pin}
    monkeypatch.setattr(verifier, "challenge", lambda **given: real(**{**given, name: honest[name]}))
    check()


def test_a53_a_proof_that_begins_with_other_points_than_it_names(
    world: ProvenSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transcript's points fix the challenge, and once it is known the proof is made of other vectors."""
    first = world.proofs[0]
    points = dict(zip(world.kit.verifying.layout.names(), all_points(first), strict=True))
    known = world.challenge(points, 1)
    forged = world.forge(cancelling(world.bench, world.vectors(), known), known=known)
    assert forged.points.after != first.points.after
    sold = first.model_copy(update={"proofs": forged.proofs})
    assert world.refuses(sold) == "points"
    monkeypatch.setattr(verifier, "_check_front", lambda proof, at, *_: bytes.fromhex(proof.proofs[at]))
    world.check(sold)


def test_a53_one_part_says_nothing_of_the_others_share(world: ProvenSteps) -> None:
    """A wrong next state is left to the part that checks it; the other verifies, so none may be missing."""
    wrong = changed(world.vectors(), (world.bench.place("after", PROGRAM.states[0]), 12345))
    proof = world.forge(wrong)
    found = [
        world.system_accepts([body], world.public(proof, at), part=at) == [True]
        for at, body in enumerate(bodies(proof))
    ]
    assert sorted(found) == [False, True]
    assert world.refuses(proof, world.expected(points=proof.points)) == "invalid"
    alone = proof.model_copy(update={"proofs": [proof.proofs[found.index(True)]]})
    assert world.refuses(alone, world.expected(points=proof.points)) == "length"


def test_a53_a_proof_of_another_batch(world: ProvenSteps) -> None:
    from pot.zk.semantics.exact import run

    state, batch = world.states[0], world.batches[1]
    forged = world.forge(world.bench.vectors(run(PROGRAM, state, batch), state, batch))
    world.check(forged, world.expected(points=forged.points))  # a right step, on a batch that is not this step's
    assert forged.points.before == world.points[0].before
    assert world.refuses(forged) == "points"


def test_a53_swapped_points(world: ProvenSteps) -> None:
    points, first = world.points[0], world.proofs[0]
    swapped = points.model_copy(update={"before": points.after, "after": points.before})
    assert world.refuses(first.model_copy(update={"points": swapped})) == "points"
    assert world.refuses(first, world.expected(points=swapped)) == "points"
    forged = first.model_copy(update={"points": swapped})
    assert world.refuses(forged, world.expected(points=swapped)) == "points"  # not those the proof begins with
    turned = [with_front(world, at, body, swapped, first.witness) for at, body in enumerate(bodies(first))]
    forged = forged.model_copy(update={"proofs": [body.hex() for body in turned]})
    assert world.refuses(forged, world.expected(points=swapped)) == "invalid"


def with_front(world: ProvenSteps, part: int, body: bytes, points: Points, witness: list[str]) -> bytes:
    """A proof with the points of its inputs replaced by these."""
    proof = world.proofs[0].model_copy(update={"points": points, "witness": witness})
    named = dict(zip(world.kit.verifying.layout.names(), all_points(proof), strict=True))
    inputs = world.kit.circuit.parts[part].inputs
    front = front_points(body, inputs)
    assert front is not None
    return b"".join(bytes.fromhex(named.get(name, front[name])) for name in inputs) + body[64 * len(inputs) :]


def test_a53_vectors_of_one_state_in_another_order(world: ProvenSteps) -> None:
    points = world.points[0]
    turned = points.model_copy(update={"before": points.before[128:] + points.before[:128]})
    assert (
        world.refuses(world.proofs[0].model_copy(update={"points": turned}), world.expected(points=turned)) == "points"
    )


def test_a53_parts_that_are_missing_doubled_swapped_or_of_another_step(world: ProvenSteps) -> None:
    """Each part verifies by itself; that all are there, in order, and about one step is what the verifier checks."""
    one, two = world.proofs
    parts = one.proofs
    for at, body in enumerate(bodies(one)):
        assert world.system_accepts([body], world.public(one, at), part=at) == [True]
    refused = {
        "length": [parts[:1], parts[1:], [*parts, parts[0]], [parts[1], parts[0]]],
        "points": [[parts[0], two.proofs[1]], [two.proofs[0], parts[1]]],
    }
    for code, forgeries in refused.items():
        for proofs in forgeries:
            assert world.refuses(one.model_copy(update={"proofs": proofs})) == code
    doubled = one.model_copy(update={"proofs": [parts[0], parts[0] + "00" * (len(parts[1]) // 2 - len(parts[0]) // 2)]})
    assert world.refuses(doubled) == "points"


def test_a53_witness_points_of_another_number_or_step(world: ProvenSteps) -> None:
    one, two = world.proofs
    for witness in ([], [*one.witness, one.witness[0]]):
        assert world.refuses(one.model_copy(update={"witness": witness})) == "points"
    assert world.refuses(one.model_copy(update={"witness": two.witness})) == "points"
    turned = [with_front(world, at, body, one.points, two.witness) for at, body in enumerate(bodies(one))]
    forged = one.model_copy(update={"witness": two.witness, "proofs": [body.hex() for body in turned]})
    assert world.refuses(forged) == "invalid"


def test_a53_a_challenge_that_is_known_before_the_points(world: ProvenSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the challenge not made of the points, whoever knows it could prove any next state."""
    honest = world.vectors()
    known = world.challenge(dict(zip(world.kit.verifying.layout.names(), all_points(world.proofs[0]), strict=True)), 1)
    forged = cancelling(world.bench, honest, known)
    proof = world.forge(forged, known=known)
    expected = world.expected(points=proof.points)
    assert proof.points.before == world.points[0].before
    assert proof.points.after != world.points[0].after
    assert world.refuses(proof, expected) == "invalid"
    monkeypatch.setattr(verifier, "challenge", lambda **_: known)
    world.check(proof, expected)


def test_a53_another_residual_than_zero(world: ProvenSteps) -> None:
    """The proof system proves any sum; that it is zero is what the verifier asks for."""
    honest = world.vectors()
    wrong = changed(honest, (world.bench.place("after", PROGRAM.states[0]), 12345))
    proof = world.forge(wrong)
    public = [world.public(proof, part) for part in range(2)]
    points = dict(zip(world.kit.verifying.layout.names(), all_points(proof), strict=True))
    known = world.challenge(points, 1)
    residuals = world.bench.residuals(wrong, known)
    assert any(residuals)
    for at, (body, outputs, residual) in enumerate(zip(bodies(proof), public, residuals, strict=True)):
        assert world.system_accepts([body], [*outputs[:-1], residual], part=at) == [True]
    assert world.refuses(proof, world.expected(points=proof.points)) == "invalid"


def test_a53_other_constants(world: ProvenSteps) -> None:
    """Constants are an input: a prover who bends one proves well, but not under the pinned point."""
    bench = world.bench
    honest, part = world.vectors(), bench.parts.parts[0]
    known = world.challenge(dict(zip(world.kit.verifying.layout.names(), all_points(world.proofs[0]), strict=True)), 1)
    from pot.zk.circuits.challenge import powers

    inputs: dict[str, Any] = {**honest, "constants": [0] * len(bench.parts.constants)}
    inputs["challenge"] = powers(known, world.kit.circuit.parts[0].powers)
    body = world.engine.prove(world.kit.part_folder(0), [inputs[name] for name in part.inputs], None)
    assert world.system_accepts([body], world.public(world.proofs[0], 0)) == [True]  # nothing times nothing is zero
    forged = world.proofs[0].model_copy(update={"proofs": [body.hex(), world.proofs[0].proofs[1]]})
    assert world.refuses(forged) == "constants"


def test_a53_opened_states_and_batches_are_recomputed(world: ProvenSteps) -> None:
    kit, layout = world.kit.verifying, world.kit.verifying.layout
    blinds = blinds_of(layout, SECRET, "state", 0)
    opened: dict[str, Any] = {"point": world.points[0].before, "start": True, "engine": world.engine}
    verifier.check_state_point(kit, state=world.states[0], blinds=blinds, **opened)
    with pytest.raises(verifier.StepProofRefused, match="opened state"):
        verifier.check_state_point(kit, state=world.states[1], blinds=blinds, **opened)
    with pytest.raises(verifier.StepProofRefused, match="opened state"):
        verifier.check_state_point(
            kit, state=world.states[0], blinds=blinds_of(layout, bytes(32), "state", 0), **opened
        )
    blinds = blinds_of(layout, SECRET, "batch", 1)
    point, engine = world.points[0].batch, world.engine
    verifier.check_batch_point(kit, batch=world.batches[0], blinds=blinds, point=point, engine=engine)
    with pytest.raises(verifier.StepProofRefused, match="opened batch"):
        verifier.check_batch_point(kit, batch=world.batches[1], blinds=blinds, point=point, engine=engine)


def test_a53_the_run_is_in_the_statement(world: ProvenSteps) -> None:
    assert world.proofs[0].precommit_sha256 == RUN
    assert world.public(world.proofs[0], 0) != world.public(
        world.proofs[0].model_copy(update={"precommit_sha256": OTHER_RUN}), 0
    )
