"""Training in family auto: the next state is what ezkl computes, which another prover could round otherwise.

    state = {name: quantise_array(weights, program.scale) ...}
    state = next_state(kit, state, batch, engine)

Implements `specs/step-proof.md`, section "Family auto". A run whose steps are to be proven keeps these states: a proof
is about the recorded next state, and the float step's lies some units away.

Shows: nothing to others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pot.errors import Malformed, Refused
from pot.zk.auto_program import AutoProgram
from pot.zk.circuits.field import MODULUS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.engine import Engine
    from pot.zk.kit import ProvingKit

    Ints = NDArray[np.int64]

__all__ = ["next_state"]


def next_state(
    kit: ProvingKit, state: Mapping[str, Ints], batch: Mapping[str, Ints], engine: Engine
) -> dict[str, Ints]:
    """The state after this step as ezkl computes it; its constraints are checked on the way.

    Raises `Malformed` for tensors that do not fit, `Refused` where a value leaves ezkl's ranges, `EngineFailure`.
    """
    program, family, layout = kit.verifying.step, kit.verifying.family, kit.verifying.layout
    if not isinstance(program, AutoProgram):
        raise Refused(f"{program.label}: is of family exact; pot.zk.semantics.exact.run takes its steps")
    none = [[0] * layout.blinds]
    (before,) = family.state_vectors(layout, state, none, False)
    (given,) = family.batch_vectors(layout, batch, none)
    satisfied, outputs = engine.mock(kit.part_folder(0), [before, given, none[0]])
    if not satisfied:
        raise Refused("a value of this step leaves ezkl's ranges: give the step more limbs or lookup bits")
    if len(outputs) != program.parameters + layout.blinds:
        raise Malformed(f"ezkl gave a state of {len(outputs)} elements")
    signed = [(value + MODULUS // 2) % MODULUS - MODULUS // 2 for value in outputs[: program.parameters]]
    return program.state_tensors(signed)
