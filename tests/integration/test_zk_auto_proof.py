"""Family auto, proven: two steps of a GELU network that family exact has no rule for, linked by equal points."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
if importlib.util.find_spec("ezkl") is None:
    pytest.skip("needs the extra [zk]", allow_module_level=True)
from auto_steps import RUN, SECRET, AutoRun, auto_run, tiny_step  # noqa: E402

from pot.errors import Malformed, Refused, UsageError  # noqa: E402
from pot.zk.auto_family import BLINDS  # noqa: E402
from pot.zk.auto_program import AutoProgram  # noqa: E402
from pot.zk.circuits.field import MODULUS, inverse  # noqa: E402
from pot.zk.circuits.packing import blinds_of  # noqa: E402
from pot.zk.engine import EngineFailure  # noqa: E402
from pot.zk.kit import VerifyingKit  # noqa: E402
from pot.zk.prover import prepare_step, prove_part  # noqa: E402
from pot.zk.verifier import (  # noqa: E402
    Expected,
    StepProofRefused,
    check_batch_point,
    check_circuit,
    check_state_point,
    verify_step,
    verify_steps,
)  # fmt: skip


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> AutoRun:
    return auto_run(tmp_path_factory.mktemp("auto") / "kit")


def refused(world: AutoRun, proof: Any, expected: Expected | None = None, kit: VerifyingKit | None = None) -> str:
    with pytest.raises(StepProofRefused) as caught:
        verify_step(
            proof, kit=kit or world.kit.verifying, circuit_sha256=world.kit.circuit.sha256(),
            expected=expected or world.expected()[0], engine=world.engine,
        )  # fmt: skip
    return caught.value.code


def test_two_auto_steps_verify_and_equal_points_link_them(proven: AutoRun) -> None:
    pin = proven.kit.circuit.sha256()
    graphless = replace(proven.kit.verifying, onnx=b"")  # a verifier needs no graph
    for kit in (proven.kit.verifying, graphless):
        verify_steps(proven.proofs, kit=kit, circuit_sha256=pin, expected=proven.expected(), engine=proven.engine)
    first, second = proven.proofs
    assert first.points.after == second.points.before != first.points.before
    body = bytes.fromhex(first.proofs[0])
    points = [first.points.before, first.points.batch, *first.witness, first.points.after]
    assert body.startswith(bytes.fromhex("".join(points)))


def test_the_distance_from_the_float_step_is_told(proven: AutoRun) -> None:
    moved = [abs(proven.states[1][name] - value).max() for name, value in proven.states[0].items()]
    for item in proven.prepared:
        assert item.distance is not None
        assert 0 < item.distance < 3 < max(moved)


def test_a_next_state_that_ezkl_does_not_compute_is_not_proven(proven: AutoRun) -> None:
    forged = {name: value.copy() for name, value in proven.states[1].items()}
    forged["0.weight"][0, 0] += 1
    made = prepare_step(
        proven.kit.verifying, secret=SECRET, precommit_sha256=RUN, number=1, state=proven.states[0],
        batch=proven.batches[0], after=forged, engine=proven.engine,
    )  # fmt: skip
    with pytest.raises(Malformed, match="computes another result"):
        prove_part(proven.kit, made, 0, proven.engine)
    proof = proven.proofs[0]
    wanted = Expected(RUN, 1, made.points)  # a transcript that holds the forged state
    assert refused(proven, proof, wanted) == "points"
    assert refused(proven, proof.model_copy(update={"points": made.points}), wanted) == "points"
    body = proof.proofs[0].replace(proof.points.after, made.points.after)
    assert refused(proven, proof.model_copy(update={"points": made.points, "proofs": [body]}), wanted) == "invalid"


@pytest.mark.parametrize("which", ["before", "batch", "witness", "after"])
def test_every_point_of_an_auto_proof_is_bound(proven: AutoRun, which: str) -> None:
    """Also the one that no transcript holds, the next blinds': it is named in the proof object, and begins its body."""
    first, second = proven.proofs
    taken = second.witness[0] if which == "witness" else getattr(second.points, which)
    given = first.witness[0] if which == "witness" else getattr(first.points, which)
    if which == "witness":
        swapped = first.model_copy(update={"witness": [taken]})
        wanted = proven.expected()[0]
    else:
        points = first.points.model_copy(update={which: taken})
        swapped, wanted = first.model_copy(update={"points": points}), Expected(RUN, 1, points)
    assert refused(proven, swapped, wanted) == "points"
    body = first.proofs[0].replace(given, taken, 1)
    assert refused(proven, swapped.model_copy(update={"proofs": [body]}), wanted) == "invalid"


def test_an_auto_proof_of_another_place_is_refused(proven: AutoRun) -> None:
    first, second = proven.proofs
    points = proven.points
    assert refused(proven, first, Expected("cd" * 32, 1, points[0])) == "run"
    assert refused(proven, first, Expected(RUN, 2, points[0])) == "step"
    assert refused(proven, second.model_copy(update={"step": "1"})) == "points"
    assert refused(proven, first.model_copy(update={"proofs": [first.proofs[0] + "00"]})) == "length"
    assert refused(proven, first.model_copy(update={"witness": []})) == "points"


def test_openings_of_an_auto_state_and_batch_are_recomputed(proven: AutoRun) -> None:
    kit, engine = proven.kit.verifying, proven.engine
    state, batch = (blinds_of(kit.layout, SECRET, what, 1) for what in ("state", "batch"))
    after, point = proven.states[1], proven.points[0]
    check_state_point(kit, state=after, blinds=state, point=point.after, start=False, engine=engine)
    check_batch_point(kit, batch=proven.batches[0], blinds=batch, point=point.batch, engine=engine)
    with pytest.raises(StepProofRefused, match="the opened batch has another point"):
        check_batch_point(kit, batch=proven.batches[1], blinds=batch, point=point.batch, engine=engine)


def test_an_auto_circuit_is_rebuilt_from_its_graph(proven: AutoRun) -> None:
    kit = proven.kit.verifying
    check_circuit(kit, proven.engine)
    with pytest.raises(UsageError, match=r"step\.onnx"):
        check_circuit(replace(kit, onnx=b""), proven.engine)
    part = kit.circuit.parts[0].model_copy(update={"vk_sha256": "ab" * 32})
    with pytest.raises(StepProofRefused, match="parts differ"):
        check_circuit(replace(kit, circuit=kit.circuit.model_copy(update={"parts": [part]})), proven.engine)


def test_what_needs_exact_integers_says_so(proven: AutoRun) -> None:
    with pytest.raises(Refused, match="gelu 8-4-3: is of family auto; this needs a program of exact integers"):
        _ = proven.kit.program
    with pytest.raises(UsageError, match="needs its recorded next state"):
        prepare_step(
            proven.kit.verifying, secret=SECRET, precommit_sha256=RUN, number=1, state=proven.states[0],
            batch=proven.batches[0], engine=proven.engine,
        )  # fmt: skip
    other = tiny_step().program.model_copy(update={"max_steps": 7})
    assert refused(proven, proven.proofs[0], kit=replace(proven.kit.verifying, step=other)) == "kit"


def test_a_batch_beyond_its_fields_range_is_cut_to_it(proven: AutoRun) -> None:
    """Nobody sees what stands behind a point; without the cut a field element 1 / 3 could make any update."""
    program, folder = proven.kit.verifying.step, proven.kit.part_folder(0)
    assert isinstance(program, AutoProgram)
    none = [0] * BLINDS
    state = [value % MODULUS for value in program.state_integers(proven.states[0])] + none
    honest = program.batch_integers(proven.batches[0]) + none
    top = 31 << program.scale - 4

    def after(first: int) -> list[int] | None:
        try:
            return proven.engine.mock(folder, [state, [first % MODULUS, *honest[1:]], none])[1]
        except EngineFailure:
            return None

    assert after(honest[0]) is not None
    assert after(2 * top) == after(top) != after(0) == after(-5)
    for no_integer in (inverse(3), MODULUS // 2 + 5, 1 << 40):
        assert after(no_integer) is None
