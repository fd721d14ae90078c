"""Vectors of steps that are almost right: each holds but for one check, which `leave_out` takes out of the circuit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from small_steps import LIMB_BITS, SmallStep, small_steps
from step_attacks import SECRET, Bench, Vectors, at, changed

from pot.zk.circuits import parts as parts_module
from pot.zk.circuits.field import MODULUS, inverse
from pot.zk.circuits.graph import Graph
from pot.zk.circuits.identities import Identities, Identity
from pot.zk.circuits.packing import blinds_of, state_vectors
from pot.zk.circuits.parts import Shape
from pot.zk.semantics.exact import run


def leave_out(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """Leaves one check out of every circuit that is drafted from then on.

    `lookups`: nothing is looked up; `kept`: no lookup that nothing else reads; else all identities of that kind.
    """
    if check == "lookups":
        monkeypatch.setattr(Graph, "table", lambda graph, tensor: tensor)
    elif check == "kept":
        monkeypatch.setattr(Identities, "kept", lambda identities, sums: None)
    else:
        known = parts_module.identities_of

        def others(nodes: Any, ends: Any) -> list[Identity]:
            return [item for item in known(nodes, ends) if item.kind != check]

        monkeypatch.setattr(parts_module, "identities_of", others)


def honest(step: SmallStep) -> tuple[Bench, Vectors]:
    bench = Bench.of(step.program)
    vectors = bench.honest(step.state, step.batch, step.after)
    assert bench.accepts(vectors)
    return bench, vectors


def node(step: SmallStep, op: str) -> int:
    return next(index for index, item in enumerate(step.program.nodes) if item.op == op)


def rounded_up(step: SmallStep) -> Vectors:
    """q + 1 and r - 2^s: the equation still holds."""
    bench, vectors = honest(step)
    index = node(step, "round")
    count = step.program.nodes[index].count or 0
    raised = -count % LIMB_BITS
    quotient, rest = bench.place("witness", index, "q"), bench.place("witness", index, "r.0")
    after = bench.place("after", step.program.states[1])
    return changed(
        vectors, (quotient, at(vectors, quotient) + 1), (rest, at(vectors, rest) - (1 << count + raised)),
        (after, at(vectors, after) + 1),
    )  # fmt: skip


def limb_beyond_its_end(step: SmallStep, shape: Shape | None = None) -> Vectors:
    """q - 1 and r + 2^s: the equation holds, and r is one more than its one limb can hold."""
    bench = Bench.of(step.program, shape)
    vectors, index = bench.honest(step.state, step.batch), node(step, "round")
    quotient, rest = bench.place("witness", index, "q"), bench.place("witness", index, "r.0")
    after = bench.place("after", step.program.states[1])
    return changed(
        vectors, (quotient, at(vectors, quotient) - 1), (rest, at(vectors, rest) + (1 << LIMB_BITS)),
        (after, at(vectors, after) - 1),
    )  # fmt: skip


def off_by_one(op: str, up: int) -> Callable[[SmallStep], Vectors]:
    """Another quotient, with both remainders as they follow from it."""

    def forge(step: SmallStep) -> Vectors:
        bench, vectors = honest(step)
        index = node(step, op)
        result = run(step.program, step.state, step.batch).values
        a, b = (result[i].reshape(-1) for i in (step.program.nodes[index].inputs * 2)[:2])
        q, v = int(result[index].reshape(-1)[0]) + up, int(a[0])
        count = step.program.nodes[index].count or 0
        if op == "divide":
            low = (2 * v << count) + int(b[0]) - 2 * q * int(b[0])
            high = 2 * int(b[0]) - 1 - low
        elif op == "sqrt":
            low, high = v - q * q, (q + 1) ** 2 - 1 - v
        else:
            low, high = (1 << 2 * count) - q * q * v, (q + 1) ** 2 * v - 1 - (1 << 2 * count)
        changes = [(bench.place("witness", index, "q" if op == "divide" else "q.0"), q)]
        changes += _limbs(bench, index, "low", low) + _limbs(bench, index, "high", high)
        after = bench.place("after", step.program.states[1])
        return changed(vectors, *changes, (after, at(vectors, after) + up))

    return forge


def _limbs(bench: Bench, index: int, tag: str, value: int) -> list[Any]:
    """All of a value in its first limb, zero in the others: what the range is about where nothing is looked up."""
    places = [p for p in bench.places("witness") if p.node == index and p.element == 0 and p.tag.startswith(f"{tag}.")]
    return [(place, value if number == 0 else 0) for number, place in enumerate(places)]


def second_largest(step: SmallStep) -> Vectors:
    """The later of two equal values is marked as the largest."""
    bench, vectors = honest(step)
    index = node(step, "argmax")
    value = run(step.program, step.state, step.batch).values
    marks, later = value[index].copy(), np.array([[0, 0, 1], [0, 0, 0]])
    marks[0] = [0, 0, 1]
    values = value[step.program.nodes[index].inputs[0]]
    gaps = (values * marks).sum(axis=1, keepdims=True) - values - (marks[:, ::-1].cumsum(axis=1)[:, ::-1] - marks)
    assert later[0].tolist() == marks[0].tolist()
    changes: list[Any] = []
    for element in range(3):
        changes.append((bench.place("witness", index, "marks", element), int(marks[0, element])))
        low, high = (bench.place("witness", index, f"gap.{limb}", element) for limb in (0, 1))
        changes += [(low, int(gaps[0, element])), (high, 0)]
    w = step.state["w"][0]
    moved = w * marks[0] - w * value[index][0]
    after = [bench.place("after", step.program.states[1], element=element) for element in range(3)]
    changes += [(place, at(vectors, place) + int(moved[element])) for element, place in enumerate(after)]
    return changed(vectors, *changes)


def argmax_of_zeros() -> SmallStep:
    """The largest values are exactly 0, more than once."""
    found = small_steps()["argmax"]
    return SmallStep(found.program, found.state, {"x": np.array([[-3, 0, 0], [0, 0, 0]])})


def masks_of_zeros() -> SmallStep:
    """A relu's mask of small values, two of which are exactly 0."""
    found = small_steps()["positive"]
    return SmallStep(found.program, {**found.state, "w": np.array([[1, 0, 2], [3, 0, 1]])}, found.batch)


def mask_at_zero(step: SmallStep) -> Vectors:
    """The mask is 1 where the value is exactly 0, and so the next state moves there."""
    bench, vectors = honest(step)
    after = [bench.place("after", step.program.states[1], element=element) for element in (1, 4)]
    moved = [int(value) for value in step.batch["x"][:, 1]]
    assert 0 not in moved
    return changed(vectors, *((place, at(vectors, place) + move) for place, move in zip(after, moved, strict=True)))


def fraction_of_quotient(step: SmallStep) -> Vectors:
    """With r + 1 in place of r the quotient is no integer any more."""
    bench, vectors = honest(step)
    index = node(step, "round")
    count = step.program.nodes[index].count or 0
    rest = next(p for p in bench.places("witness") if p.node == index and p.tag == "r.0" and at(vectors, p) < 128)
    quotient = bench.place("witness", index, "q", rest.element)
    after = bench.place("after", step.program.states[1], element=rest.element)
    gap = inverse(1 << count)
    return changed(
        vectors, (rest, at(vectors, rest) + (1 << -count % LIMB_BITS)), (quotient, at(vectors, quotient) - gap),
        (after, at(vectors, after) - gap),
    )  # fmt: skip


def bent_batch(elements: dict[int, int]) -> Callable[[SmallStep], Vectors]:
    """Other elements in a batch, and the next state that follows from them, where no range is checked."""

    def forge(step: SmallStep) -> Vectors:
        bench, vectors = honest(step)
        batch = step.program.batches[0]
        changes = [(bench.place("batch", batch, element=element), value) for element, value in elements.items()]
        with pytest.MonkeyPatch.context() as patched:
            leave_out(patched, "range")
            return follow(Bench.of(step.program), changed(vectors, *changes))

    return forge


def two_steps_on(step: SmallStep) -> Vectors:
    """In place of the next state the one after it."""
    bench, vectors = honest(step)
    later = run(step.program, run(step.program, step.state, step.batch).next, step.batch).next
    blinds = blinds_of(bench.parts.layout, SECRET, "state", 2)
    return {**vectors, "after.0": state_vectors(step.program, bench.parts.layout, later, blinds)[0]}


def wrapped_weight(step: SmallStep, more: int = 5) -> Vectors:
    """A weight that is no integer, but the field element whose product rounds to a quotient `more` too large."""
    bench, vectors = honest(step)
    index, count = node(step, "round"), step.program.nodes[node(step, "round")].count or 0
    inputs = step.batch["x"].reshape(-1).tolist()
    element = next(element for element, value in enumerate(inputs) if value)
    gap = (more << count) * inverse(inputs[element]) % MODULUS
    w, v = step.program.states
    moved = [("before", w, "", gap), ("after", w, "", gap), ("witness", index, "q", more), ("after", v, "", more)]
    places = [(bench.place(name, where, tag, element), by) for name, where, tag, by in moved]
    return changed(vectors, *((place, at(vectors, place) + by) for place, by in places))


def beyond_slack(step: SmallStep) -> Vectors:
    """A next state farther from the exact one than the program allows."""
    bench, vectors = honest(step)
    state = step.program.states[0]
    after, limb = bench.place("after", state), bench.place("witness", state, "slack.0")
    far = 1 << step.program.next[0].slack
    return changed(vectors, (after, at(vectors, after) + far), (limb, at(vectors, limb) + far))


def fraction_of_slack(step: SmallStep) -> Vectors:
    """A next state between two integers: in the field a half is as good as any other element."""
    bench, vectors = honest(step)
    state = step.program.states[0]
    after, limb = bench.place("after", state), bench.place("witness", state, "slack.0")
    return changed(vectors, (after, at(vectors, after) - inverse(2)), (limb, at(vectors, limb) - inverse(2)))


def follow(bench: Bench, vectors: Vectors) -> Vectors:
    """The next state of a linear step that follows from bent inputs: what makes the residual vanish, by its slopes.

    `next` is linear in `after`, so each of its elements can be solved for in a circuit of that identity alone.
    """
    found = vectors
    places = list(bench.places("after"))
    rng = np.random.default_rng(0)
    challenges = [[int(x) for x in rng.integers(1, 1 << 60, 5)] for _ in places]
    base = [bench.residuals(found, known)[0] for known in challenges]
    slopes = []
    for place in places:
        bent = changed(found, (place, at(found, place) + 1))
        slopes.append(
            [(bench.residuals(bent, known)[0] - start) % MODULUS for known, start in zip(challenges, base, strict=True)]
        )
    steps = solved([[slopes[j][i] for j in range(len(places))] for i in range(len(places))], [-value for value in base])
    return changed(found, *((place, at(found, place) + step) for place, step in zip(places, steps, strict=True)))


def solved(matrix: list[list[int]], right: list[int]) -> list[int]:
    """The solution of linear equations over the field."""
    rows = [[*row, value % MODULUS] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column] % MODULUS)
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = inverse(rows[column][column])
        rows[column] = [value * scale % MODULUS for value in rows[column]]
        for row in range(size):
            if row != column and rows[row][column]:
                factor = rows[row][column]
                rows[row] = [(a - factor * b) % MODULUS for a, b in zip(rows[row], rows[column], strict=True)]
    return [row[-1] for row in rows]
