"""Why equality in the field is equality of integers: bounds on everything a proof can reach.

Implements `specs/step-proof.md`, section "Bounds". Results are bounded by the table, a run's first state by its
opening, and every later state by induction: a step adds at most so much, `max_steps` steps add at most `max_steps`
times that.

Shows: within `max_steps` steps from an opened start, no identity of the circuit wraps around the field. Does not show:
anything about a chain whose first state nobody opened.
"""

from __future__ import annotations

from typing import Final

from pot.errors import Malformed
from pot.zk.circuits.field import MODULUS
from pot.zk.semantics.program import Program

__all__ = ["check_bounds"]

_ROUNDS: Final = 3


def check_bounds(program: Program, logrows: int) -> None:
    """Raises `Malformed` where a value could wrap around the field, or a state could grow without end."""
    limb = 1 << logrows  # the table's other end: what a result of one limb with a sign may reach
    states = _state_bounds(program, limb)
    limits = program.limits(state=lambda index: states[index], limb=limb)
    for index, node in enumerate(program.nodes):
        reach = limits[index]
        if node.op == "round":
            reach = limits[node.inputs[0]] + (limits[index] + 2 << (node.count or 0))
            reach <<= program.limb_bits  # the remainder is given times up to a limb
        elif node.op == "divide":
            reach = (limits[node.inputs[0]] << (node.count or 0) + 1) + (2 * limits[index] + 4) * limits[node.inputs[1]]
        elif node.op == "sqrt":
            reach = (limits[index] + 2) ** 2 + limits[node.inputs[0]]
        elif node.op == "rsqrt":
            reach = (limits[index] + 2) ** 2 * limits[node.inputs[0]] + (1 << 2 * (node.count or 0) + 1)
        if reach >= MODULUS >> 3:
            raise Malformed(f"program {program.label}: node {index} ({node.op}) could wrap around the field")


def _state_bounds(program: Program, limb: int) -> dict[int, int]:
    """What each state tensor can reach in `max_steps` steps. Bounds are convex in the states', so the ends suffice."""
    start = {index: 1 << (program.nodes[index].width or 0) for index in program.states}
    growth = dict.fromkeys(start, 0)
    for _ in range(_ROUNDS):
        end = {index: start[index] + program.max_steps * growth[index] for index in start}
        known = dict(growth)
        for reached in (start, end):
            limits = program.limits(state=lambda index: reached[index], limb=limb)  # noqa: B023
            for item in program.next:
                gain = limits[item.value] + (1 << item.slack) - reached[item.state]
                growth[item.state] = max(growth[item.state], gain)
        if growth == known:
            return end
    names = ", ".join(str(program.nodes[index].name) for index in start if growth[index] != known[index])
    raise Malformed(f"program {program.label}: {names[:200]} could grow without end; round its next value")
