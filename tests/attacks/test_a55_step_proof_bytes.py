"""A55: every field and byte of a step proof counts, and nothing may stand behind them."""

from __future__ import annotations

import os
from typing import Any

import pytest

pytest.importorskip("ezkl")

from known_secret import CURVE
from proven_steps import ProvenSteps, all_points, proven_steps

from pot.errors import Malformed, PotError
from pot.zk import verifier
from pot.zk.circuits.field import MODULUS
from pot.zk.proof import StepProof


@pytest.fixture(scope="module")
def world() -> ProvenSteps:
    return proven_steps()


def flipped(text: str, at: int) -> str:
    """Hex with one digit changed."""
    return text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :]


def hex_fields(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every string of a proof object."""
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in hex_fields(item, (*path, name))]
    if isinstance(value, list):
        return [found for at, item in enumerate(value) for found in hex_fields(item, (*path, at))]
    return [path]


def bent(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    """The object with the value at a path replaced by what `change` makes of it."""
    if not path:
        return change(value)
    items = dict(value) if isinstance(value, dict) else list(value)
    items[path[0]] = bent(items[path[0]], path[1:], change)
    return items


def test_a55_a_changed_digit_anywhere_is_refused(world: ProvenSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every digit of every string but of the parts' proofs, before ezkl is asked; those are gone through below."""
    honest = world.proofs[0].model_dump()
    paths = hex_fields(honest)
    assert {path[0] for path in paths} == set(StepProof.model_fields)
    monkeypatch.setattr(type(world.engine), "verify", lambda *_: pytest.fail("ezkl was asked"))
    tried = 0
    for path in (path for path in paths if path[0] != "proofs"):
        text: Any = honest
        for name in path:
            text = text[name]
        for at in range(len(text)):
            with pytest.raises(PotError):
                world.check(StepProof.from_value(bent(honest, path, lambda v, at=at: flipped(v, at)), what="proof"))
            tried += 1
    assert tried > 128 * len(all_points(world.proofs[0]))


def test_a55_other_values_in_any_field_are_refused(world: ProvenSteps) -> None:
    honest, other = world.proofs[0].model_dump(), world.proofs[1].model_dump()
    for path in hex_fields(honest):
        theirs: Any = other
        for name in path:
            theirs = theirs[name]
        for change in (
            lambda value: "",
            lambda value: value.upper() + "A",
            lambda value: value + "00",
            lambda value: value[:-2],
            lambda value: value + "\n",
            lambda value: 7,
            lambda value: None,
            lambda value, theirs=theirs: theirs if theirs != value else value + "0",
        ):
            with pytest.raises(PotError):
                world.check(StepProof.from_value(bent(honest, path, change), what="proof"))


def test_a55_fields_left_out_or_added_are_refused(world: ProvenSteps) -> None:
    honest = world.proofs[0].model_dump()
    for name in honest:
        with pytest.raises(Malformed):
            StepProof.from_value({key: value for key, value in honest.items() if key != name}, what="proof")
    for name in ("vk", "settings", "instances", "public", "srs"):
        with pytest.raises(Malformed):
            StepProof.from_value({**honest, name: "00"}, what="proof")


def test_a55_every_number_of_each_part_counts(world: ProvenSteps) -> None:
    """Asked of the proof system itself, so that no check of ours comes before it: a bit of each 32 bytes, and the same
    number written in another way (more by the order of the curve or of its field).
    """
    proof = world.proofs[0]
    for part, text in enumerate(proof.proofs):
        body, mutants = bytes.fromhex(text), []
        for at in range(0, len(body), 32):
            number = int.from_bytes(body[at : at + 32], "big")
            others = [number ^ 1 << 8 * (at // 32 % 32), *(number + order for order in (MODULUS, CURVE))]
            mutants += [body[:at] + other.to_bytes(32, "big") + body[at + 32 :] for other in others if not other >> 256]
        assert len(mutants) > 2 * len(body) // 32
        found = world.system_accepts([body, *mutants], world.public(proof, part), part=part)
        assert found == [True] + [False] * len(mutants)


def test_a55_trailing_bytes(world: ProvenSteps) -> None:
    proof = world.proofs[0]
    body = bytes.fromhex(proof.proofs[0])
    longer = body + b"\0" * 32
    assert world.system_accepts([longer], world.public(proof, 0)) == [True]  # ezkl takes it
    for forged in (longer, body[:-1], b"\0", body + b"\0"):
        assert world.refuses(proof.model_copy(update={"proofs": [forged.hex(), proof.proofs[1]]})) == "length"


def test_a55_garbage_in_place_of_a_proof_is_invalid_not_a_crash(world: ProvenSteps) -> None:
    size = len(world.proofs[0].proofs[0]) // 2
    garbage = [b"", b"\0", b"\xff" * size, os.urandom(size), b"\0" * size]
    assert world.system_accepts(garbage, world.public(world.proofs[0], 0)) == [False] * len(garbage)


def test_a55_other_public_outputs(world: ProvenSteps) -> None:
    """Each output is compared: every power of the challenge, and the sum that must be zero."""
    proof = world.proofs[0]
    public = world.public(proof, 0)
    body = bytes.fromhex(proof.proofs[0])
    kit = world.kit.verifying
    files = kit.parts[0]
    places = [*range(0, len(public), 37), len(public) - 1]
    others = [[*public[:at], public[at] + 1, *public[at + 1 :]] for at in places]
    others += [public[:-1], [*public, 0], []]
    found = world.engine.verify([(body, item) for item in others], files.settings, files.verifying_key, kit.srs)
    assert found == [False] * len(others)


def test_a55_a_step_beyond_the_proven_range(world: ProvenSteps) -> None:
    steps = world.kit.circuit.max_steps
    far = world.proofs[0].model_copy(update={"step": str(steps + 1)})
    assert world.refuses(far, verifier.Expected(far.precommit_sha256, steps + 1, world.points[0])) == "step"
    forged = world.forge(world.vectors(), step=steps + 1)  # the proof system proves a step of any number
    assert world.system_accepts([bytes.fromhex(forged.proofs[0])], world.public(forged, 0)) == [True]
    assert world.refuses(forged, verifier.Expected(far.precommit_sha256, steps + 1, forged.points)) == "step"
    none = world.proofs[0].model_copy(update={"step": "0"})
    assert world.refuses(none, verifier.Expected(far.precommit_sha256, 0, world.points[0])) == "step"


def test_a55_another_number_of_proofs_than_of_steps(world: ProvenSteps) -> None:
    kit = world.kit.verifying
    for proofs, expected in ((world.proofs[:1], 2), (world.proofs, 1), ([], 1)):
        with pytest.raises(verifier.StepProofRefused) as caught:
            verifier.verify_steps(
                proofs, kit=kit, circuit_sha256=world.pin, engine=world.engine,
                expected=[world.expected(n) for n in range(1, expected + 1)],
            )  # fmt: skip
        assert caught.value.code == "step"
