"""What a circuit must be told besides state and batch: quotients, remainders and marks, in limbs of a table.

Implements `specs/step-proof.md`, section "Witness". A result that is not a sum or product of others comes in as a
witness, and inequalities leave room for one value only: v + 2^(s-1) = q 2^s + r with 0 <= r < 2^s has one solution.
Every inequality is `0 <= e < 2^n`, and e is given in limbs of `limb_bits` bits, each looked up in the table. Where n
is no whole number of limbs, e is multiplied by the power of two that makes it one: e 2^x < 2^(n+x) says the same.

Shows: nothing alone; `pot.zk.circuits.identities` ties each limb to what it is a limb of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pot.zk.semantics.program import Node, Program
from pot.zk.semantics.shapes import WITNESSED

if TYPE_CHECKING:
    from pot.zk.semantics.exact import Run

__all__ = ["Ranged", "Wanted", "ranges", "slack_range", "wanted", "witness_values"]


@dataclass(frozen=True)
class Wanted:
    """One tensor of the witness: a limb, or a mark, or a value of one limb with a sign."""

    node: int
    tag: str
    size: int
    signed: bool = False


@dataclass(frozen=True)
class Ranged:
    """A value e of a node: 0 <= e 2^raised < 2^(limbs limb_bits), and e < 2^(limbs limb_bits - narrowed).

    `raised` is for values that are integers by what they are tied to; e 2^raised alone could be the multiple of a
    fraction. `narrowed` takes a second lookup of the highest limb. `quotient`: it is the result plus `offset`.
    """

    tag: str
    limbs: int
    raised: int = 0
    narrowed: int = 0
    offset: int = 0
    quotient: bool = False


def _rest(program: Program, bits: int) -> Ranged:
    """0 <= r < 2^bits of a rounding, whose value and quotient are integers, so r is one."""
    limbs = -(-bits // program.limb_bits)
    return Ranged("r", limbs, raised=limbs * program.limb_bits - bits)


def _not_negative(program: Program, tag: str, bound: int) -> Ranged:
    """0 <= e, for values up to `bound`."""
    return Ranged(tag, -(-bound.bit_length() // program.limb_bits))


def ranges(program: Program, index: int) -> list[Ranged]:
    """The ranges that pin a node's result. A result of one limb with a sign has no range: the table itself is its."""
    node = program.nodes[index]
    if node.op not in WITNESSED:
        return []
    if node.op == "argmax":
        return [_not_negative(program, "gap", 2 << program.limb_bits)]
    found = []
    count = node.limbs or 1
    if node.op in ("sqrt", "rsqrt"):
        found.append(Ranged("q", count, quotient=True))
    elif count > 1:
        found.append(Ranged("q", count, offset=1 << (count * program.limb_bits - 1), quotient=True))
    if node.op == "round":
        return [*found, _rest(program, node.count or 0)]
    bound = _rest_bound(program, node)
    return [*found, _not_negative(program, "low", bound), _not_negative(program, "high", bound)]


def _rest_bound(program: Program, node: Node) -> int:
    """The largest value of the two remainders of a division or root."""
    step = 2 * program.quotient_limit(node.limbs or 1) + 1
    if node.op == "sqrt":
        return step
    limits = program.reference_limits()
    return 2 * limits[node.inputs[1]] if node.op == "divide" else step * limits[node.inputs[0]]


def slack_range(program: Program, slack: int) -> Ranged:
    """after - value + 2^slack of a step taken in floats: 0 <= e < 2^(slack + 1)."""
    limbs = -(-(slack + 1) // program.limb_bits)
    return Ranged("slack", limbs, narrowed=limbs * program.limb_bits - slack - 1, offset=1 << slack)


def wanted(program: Program) -> list[Wanted]:
    """All tensors of the witness, in the order in which they stand in its vectors."""
    return list(_wanted(program))


def _wanted(program: Program) -> Iterator[Wanted]:
    for index, node in enumerate(program.nodes):
        if node.op == "argmax":
            yield Wanted(index, "marks", node.size)
        elif node.op in ("round", "divide") and node.limbs == 1:
            yield Wanted(index, "q", node.size, signed=True)
        for item in ranges(program, index):
            for limb in range(item.limbs):
                yield Wanted(index, f"{item.tag}.{limb}", node.size)
    for end in program.next:
        if end.slack:
            for limb in range(slack_range(program, end.slack).limbs):
                yield Wanted(end.state, f"slack.{limb}", program.nodes[end.state].size)


def witness_values(program: Program, run: Run) -> dict[tuple[int, str], list[int]]:
    """The integers of every witness tensor of a step, by node and tag; Python integers, C order."""
    found: dict[tuple[int, str], list[int]] = {}
    for index, node in enumerate(program.nodes):
        if node.op == "argmax":
            found[index, "marks"] = run.values[index].reshape(-1).tolist()
        elif node.op in ("round", "divide") and node.limbs == 1:
            found[index, "q"] = run.values[index].reshape(-1).tolist()
        for item in ranges(program, index):
            _split(program, index, item, _ranged_values(program, index, item, run), found)
    for end in program.next:
        if end.slack:
            name = program.nodes[end.state].name or ""
            gap = run.next[name] - run.values[end.value] + (1 << end.slack)
            _split(program, end.state, slack_range(program, end.slack), gap.reshape(-1).tolist(), found)
    return found


def _split(
    program: Program, index: int, item: Ranged, values: list[int], found: dict[tuple[int, str], list[int]]
) -> None:
    width, mask = program.limb_bits, (1 << program.limb_bits) - 1
    raised = [value << item.raised for value in values]
    for limb in range(item.limbs):
        found[index, f"{item.tag}.{limb}"] = [(value >> (limb * width)) & mask for value in raised]
    if any(value < 0 or value >> (item.limbs * width - item.narrowed) for value in raised):
        raise AssertionError(f"node {index}: {item.tag} lies outside its range")  # the reference refuses it earlier


def _ranged_values(program: Program, index: int, item: Ranged, run: Run) -> list[int]:
    node = program.nodes[index]
    ins = [_flat(run.values[at]) for at in node.inputs]
    q = _flat(run.values[index])
    if item.quotient:
        return [value + item.offset for value in q]
    count = node.count or 0
    if node.op == "round":
        half = 1 << (count - 1)
        return [v + half - (a << count) for v, a in zip(ins[0], q, strict=True)]
    if node.op == "argmax":
        return _gaps(run, index, node)
    if node.op == "divide":
        low = [((2 * a) << count) + b - 2 * b * c for a, b, c in zip(*ins, q, strict=True)]
        return low if item.tag == "low" else [2 * b - 1 - rest for b, rest in zip(ins[1], low, strict=True)]
    if node.op == "sqrt":
        if item.tag == "low":
            return [v - a * a for v, a in zip(ins[0], q, strict=True)]
        return [(a + 1) * (a + 1) - 1 - v for v, a in zip(ins[0], q, strict=True)]
    one = 1 << (2 * count)
    if item.tag == "low":
        return [one - a * a * v for v, a in zip(ins[0], q, strict=True)]
    return [(a + 1) * (a + 1) * v - 1 - one for v, a in zip(ins[0], q, strict=True)]


def _gaps(run: Run, index: int, node: Node) -> list[int]:
    """Largest minus each value, minus one where the mark stands later: not negative only at the first largest."""
    values, marks = run.values[node.inputs[0]], run.values[index]
    later = marks[..., ::-1].cumsum(axis=-1)[..., ::-1] - marks
    gaps: list[int] = ((values * marks).sum(axis=-1, keepdims=True) - values - later).reshape(-1).tolist()
    return gaps


def _flat(array: Any) -> list[int]:
    values: list[int] = array.reshape(-1).tolist()
    return values
