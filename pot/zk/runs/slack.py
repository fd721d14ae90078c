"""How far float steps are from exact ones, and how far away a forgery would be: what a program's slack is chosen by.

    trainer = FloatTrainer(program, module, optimizer, secret=secret, check=False)   # a trial of some dozens of steps
    ...
    found = measure_slack(program, trainer.open_steps)
    print(found)
    program = with_slack(program, found.chosen())

Spec: `specs/step-proof.md`, "Float training". A step proof with slack shows that a recorded state lies within 2^n - 1
grid units of the exact step, in every element. It is worth something while steps with one record
exchanged, or no step at all, lie farther away; the ratio says by how much.

Shows: distances over the steps that were measured. Does not show: that later steps stay as near.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pot.errors import Refused, UsageError
from pot.zk.semantics.exact import RangeLeft, run
from pot.zk.semantics.integers import largest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pot.zk.runs.segment import StepInputs
    from pot.zk.semantics.program import Program

    Ints = NDArray[np.int64]

__all__ = ["Slack", "measure_slack", "with_slack"]

MARGIN: Final = 2  # bits of room above what was measured; a step of the real run may be a little farther away
MOST: Final = 40  # bits that a program's slack may have


@dataclass(frozen=True)
class Slack:
    """Distances in grid units, by state tensor."""

    honest: Mapping[str, int]
    """The largest distance of a recorded step from the exact one."""
    forged: Sequence[Mapping[str, int]]
    """For every step and every other way to go on from its state, how far that lies from the exact step."""
    steps: int

    def bits(self, margin: int = MARGIN) -> dict[str, int]:
        """For each tensor the least n with 2^n - 1 >= its distance, and `margin` more; 0 where the step was exact."""
        return {name: found.bit_length() + margin if found else 0 for name, found in self.honest.items()}

    def ratio(self, margin: int = MARGIN) -> float:
        """How many times the allowed distance the nearest forgery lies away, in the tensor that it would fail by."""
        bits = self.bits(margin)
        return min(
            (max(far / max(1, (1 << bits[name]) - 1) for name, far in item.items()) for item in self.forged),
            default=float("inf"),
        )

    def chosen(self, margin: int = MARGIN) -> dict[str, int]:
        """`bits`, for a program. Raises `Refused` where a prover could exchange a record or leave a step out."""
        if (ratio := self.ratio(margin)) <= 1:
            raise Refused(
                f"the nearest forgery lies only {ratio:.3g} times as far as the slack that the float steps need: take "
                "more limb_bits, or train in integers"
            )
        return self.bits(margin)

    def __str__(self) -> str:
        """For people: one line a tensor, then the ratio."""
        bits = self.bits()
        lines = [
            f"{name}: {found} units in {self.steps} steps, slack {bits[name]}" for name, found in self.honest.items()
        ]
        return "\n".join([*lines, f"the nearest forgery lies {self.ratio():.3g} times as far as the slack allows"])


def measure_slack(program: Program, steps: Sequence[StepInputs]) -> Slack:
    """Compare recorded float steps with exact ones, and exact ones with the alternatives of a forger.

    The alternatives: no step, and the exact step on a batch in which one record is another step's. Raises `UsageError`
    for steps without a recorded next state, `RangeLeft`, `Malformed`.
    """
    if len(steps) < 2 or any(item.after is None for item in steps):
        raise UsageError("two or more recorded float steps are needed to measure their distance from exact ones")
    names = [str(program.nodes[index].name) for index in program.states]
    honest = dict.fromkeys(names, 0)
    forged: list[dict[str, int]] = []
    for at, item in enumerate(steps):
        exact = run(program, item.before, item.batch).next
        near = _distances(exact, item.after or {})
        honest = {name: max(honest[name], near[name]) for name in names}
        forged.append(_distances(exact, item.before))
        for batch in _exchanged(item.batch, steps[(at + 1) % len(steps)].batch, program.batch):
            try:
                forged.append(_distances(exact, run(program, item.before, batch).next))
            except RangeLeft:  # that step cannot be proven at all
                continue
    return Slack(honest, forged, len(steps))


def _exchanged(batch: Mapping[str, Ints], other: Mapping[str, Ints], records: int) -> Iterator[dict[str, Ints]]:
    """The batch with one record after the other taken from another batch, where that changes it."""
    for record in range(records):
        found = {name: array.copy() for name, array in batch.items()}
        for name, array in found.items():
            array[record] = other[name][record]
        if any((found[name] != batch[name]).any() for name in found):
            yield found


def with_slack(program: Program, bits: Mapping[str, int]) -> Program:
    """The program with so many bits of slack for each named state tensor; those that are not named have none.

    Raises `Refused` where more than 2^40 units would be needed.
    """
    ends = []
    for item in program.next:
        name = str(program.nodes[item.state].name)
        if (slack := bits.get(name, 0)) > MOST:
            raise Refused(f"{name}: float steps are {slack} bits of the grid away from exact ones; {MOST} are the most")
        ends.append({**item.model_dump(), "slack": slack})
    value = {**program.model_dump(mode="json", exclude_none=True), "next": ends}
    return type(program).from_value(value, what="program with slack")


def _distances(one: Mapping[str, Ints], other: Mapping[str, Ints]) -> dict[str, int]:
    return {name: largest(one[name] - other[name]) for name in one}
