"""ezkl and the executor of `step_attacks` agree: every operation proven for real, at both ends of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ezkl")

from small_steps import SmallStep, joined_steps
from step_attacks import RUN, SECRET, Bench, at, changed

from pot.recording.transcript import Points
from pot.zk import verifier
from pot.zk.circuits.challenge import powers
from pot.zk.circuits.parts import choose_shape, make_parts
from pot.zk.engine import EzklEngine
from pot.zk.kit import ProvingKit, build_kit, commit_points
from pot.zk.prover import prove_step
from pot.zk.semantics.exact import run

STEPS = joined_steps()
ENGINE = EzklEngine()


@pytest.fixture(scope="module")
def strings() -> dict[int, bytes]:
    """Reference strings by their rows."""
    return {rows: ENGINE.make_srs(rows) for rows in (9, 10)}


def made(step: SmallStep, strings: dict[int, bytes], folder: Path) -> ProvingKit:
    shape = choose_shape(step.program)
    return build_kit(step.program, strings[shape.logrows], folder, ENGINE, columns=shape.columns)


@pytest.mark.parametrize("name", STEPS)
def test_every_operation_is_proven_and_verified(name: str, strings: dict[int, bytes], tmp_path: Path) -> None:
    step = STEPS[name]
    kit = made(step, strings, tmp_path / "kit")
    after = run(step.program, step.state, step.batch, after=step.after).next
    proof = prove_step(
        kit, secret=SECRET, precommit_sha256=RUN, number=1, state=step.state, batch=step.batch, after=step.after,
        engine=ENGINE,
    )  # fmt: skip
    found = commit_points(kit.verifying, SECRET, [(0, step.state), (1, after)], [(1, step.batch)], ENGINE)
    expected = verifier.Expected(RUN, 1, Points(before=found[0], batch=found[2], after=found[1]))
    pinned = kit.circuit.sha256()
    verifier.verify_step(proof, kit=kit.verifying, circuit_sha256=pinned, expected=expected, engine=ENGINE)


def test_ezkl_finds_what_the_executor_finds(strings: dict[int, bytes], tmp_path: Path) -> None:
    """Residuals of right and wrong steps, and which values have no row in the table."""
    step = STEPS["roundings"]
    kit = made(step, strings, tmp_path / "kit")
    bench = Bench(step.program, make_parts(step.program, kit.circuit.shape))
    honest = bench.honest(step.state, step.batch)
    (part,) = bench.parts.parts
    low, top = bench.table
    limb = next(p for p in bench.places("witness") if "." in p.tag)
    quotient = next(p for p in bench.places("witness") if p.tag == "q")
    after = bench.place("after", step.program.states[1])

    def asked(vectors: Any) -> tuple[bool, int]:
        spread = powers(bench.challenge(vectors), part.graph.powers)
        inputs = {**vectors, "constants": bench.parts.constants, "challenge": spread}
        holds, outputs = ENGINE.mock(kit.part_folder(0), [inputs[name] for name in part.inputs])
        assert not holds or outputs[:-1] == spread
        return holds, outputs[-1]

    assert asked(honest) == (True, 0)
    for place, value in ((after, 77), (limb, 3), (limb, -5), (quotient, -17), (limb, top), (quotient, low)):
        bent = changed(honest, (place, value))
        assert asked(bent) == (True, bench.residuals(bent)[0])
        assert bench.residuals(bent) != [0] or at(honest, place) in (0, value)
    for place, value in ((limb, top + 1), (quotient, top + 1), (quotient, low - 1), (limb, 1 << 200)):
        bent = changed(honest, (place, value))
        assert not bench.accepts(bent)
        assert not asked(bent)[0]
    assert np.array_equal(bench.integers(honest, "before")["w"], step.state["w"])
