"""Random programs: fast reference and slow oracle agree on every element of every node, and on what has no step."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_oracle import OutOfRange, run_slowly

from pot.errors import Malformed, UsageError
from pot.zk.semantics.builder import Builder
from pot.zk.semantics.digits import mlp_program
from pot.zk.semantics.exact import RangeLeft, Run, run
from pot.zk.semantics.program import Program
from pot.zk.semantics.shapes import ATTRIBUTES

OPERATIONS = [name for name in ATTRIBUTES if name not in ("state", "batch", "constant")]


class Writer:
    """Writes a random program, one operation at a time; what a rule forbids is simply not written."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.builder = b = Builder(limb_bits=self.draw.choice([8, 10, 14]))
        self.size = 2
        width = b.limb_bits - 2
        self.pool = [
            b.state("w", [2, 3, 4, 4], bits=8, width=10),
            b.state("v", [2, 4], bits=6, width=self.draw.choice([4, 20, 30])),
            b.state("s", [], bits=4, width=8),
            b.batch("x", [2, 3, 4, 4], kind="signed", bits=4, width=width),
            b.batch("u", [2, 4], kind="unsigned", bits=2, width=3),
            b.batch("m", [2, 5], kind="marks"),
            b.constant([self.draw.randrange(-9, 10) for _ in range(8)], [2, 4], bits=2),
            b.constant([3], [4, 2], bits=0),
        ]
        for _ in range(3):
            self.grow(OPERATIONS[seed % len(OPERATIONS)])  # every operation has its turn
        for _ in range(self.draw.randrange(4, 16)):
            self.grow(self.draw.choice(OPERATIONS))

    def grow(self, op: str) -> None:
        try:
            at = getattr(self, f"add_{op}", self.add_plain)(op)
            self.program(at)  # what breaks a rule is taken back here
        except (Malformed, UsageError, ValueError, IndexError):
            return
        self.pool.append(at)

    def program(self, last: int) -> Program:
        """A program in which `last` has a say: its sum, brought to one element, moves a state tensor."""
        b = self.builder
        b._next = []
        b.set_next(self.pool[0], self.pool[0])
        b.set_next(self.pool[2], b.sub(self.pool[2], b.constant([1], [], bits=4)))
        step = b.sum(last, range(len(b.shape(last))))
        step = b.expand(b.reshape(step, [1]), [2, 4])
        aligned = b._add("relabel", [step], [2, 4], 6)
        b.set_next(self.pool[1], b.add(self.pool[1], aligned))
        return b.program(label="random", batch=2, max_steps=1)

    def any(self, dims: int | None = None) -> int:
        fit = [at for at in self.pool if dims is None or len(self.builder.shape(at)) == dims]
        return self.draw.choice(fit)

    def add_plain(self, op: str) -> int:
        b, one = self.builder, self.any()
        if op in ("add", "sub", "mul"):
            return int(getattr(b, op)(one, self.any()))
        return int(getattr(b, op)(one))

    def add_times(self, op: str) -> int:
        return self.builder.times(self.any(), self.draw.randrange(-5, 6))

    def add_shift(self, op: str) -> int:
        return self.builder.shift(self.any(), self.draw.randrange(1, 6))

    def add_relabel(self, op: str) -> int:
        return self.builder.scaled(self.any(), self.draw.randrange(-3, 4))

    def add_matmul(self, op: str) -> int:
        left = self.any()
        right = self.draw.choice(
            [at for at in self.pool if self.builder.shape(at)[:-2] == self.builder.shape(left)[:-2]]
        )
        if self.draw.random() < 0.7:
            right = self.builder.permute(left, self.swapped(left))
        return self.builder.matmul(left, right)

    def swapped(self, at: int) -> list[int]:
        dims = len(self.builder.shape(at))
        return [*range(dims - 2), dims - 1, dims - 2]

    def add_sum(self, op: str) -> int:
        at = self.any()
        axes = range(len(self.builder.shape(at)))
        return self.builder.sum(at, self.draw.sample(axes, self.draw.randrange(1, len(axes) + 1)))

    def add_reshape(self, op: str) -> int:
        at = self.any()
        size = self.builder.nodes[at].size
        return self.builder.reshape(
            at, self.draw.choice([[size], [size // 2, 2], [1, 2, size // 2], [2, 1, 2, size // 4]])
        )

    def add_permute(self, op: str) -> int:
        at = self.any()
        axes = list(range(len(self.builder.shape(at))))
        self.draw.shuffle(axes)
        return self.builder.permute(at, axes)

    def add_expand(self, op: str) -> int:
        at = self.any()
        return self.builder.expand(at, [size if size != 1 else 3 for size in self.builder.shape(at)])

    def add_slice(self, op: str) -> int:
        at = self.any()
        axis = self.draw.randrange(len(self.builder.shape(at)))
        start = self.draw.randrange(self.builder.shape(at)[axis])
        return self.builder.slice(at, axis, start, self.draw.randrange(start + 1, self.builder.shape(at)[axis] + 1))

    def add_concat(self, op: str) -> int:
        at = self.any()
        same = [one for one in self.pool if self.builder.bits(one) == self.builder.bits(at)]
        items = [at, *self.draw.choices(same, k=self.draw.randrange(3))]
        return self.builder.concat(items, self.draw.randrange(len(self.builder.shape(at))))

    def pair(self, low: int, high: int) -> list[int]:
        return [self.draw.randrange(low, high), self.draw.randrange(low, high)]

    def add_window(self, op: str) -> int:
        return self.builder.window(self.any(dims=4), self.pair(1, 4), self.pair(1, 3), self.pair(0, 2))

    def add_fold(self, op: str) -> int:
        b, image = self.builder, self.any(dims=4)
        kernel, stride = self.pair(1, 4), self.pair(1, 3)
        cut = b.window(image, kernel, stride, [0, 0])
        return b.fold(cut, b.shape(image), kernel, stride)

    def add_round(self, op: str) -> int:
        at = self.any()
        return self.builder.round(
            at, self.builder.bits(at) - self.draw.randrange(1, 12), limbs=self.draw.randrange(1, 4)
        )

    def add_divide(self, op: str) -> int:
        b, left, right = self.builder, self.any(), self.any()
        if self.draw.random() < 0.8:  # squares plus a constant are positive
            right = b.add(b.mul(right, right), b.constant([1], [1], bits=2 * b.bits(right)))
        return b.divide(left, right, count=self.draw.randrange(1, 20), limbs=self.draw.randrange(1, 4))

    def add_sqrt(self, op: str) -> int:
        at = self.any()
        square = at if self.draw.random() < 0.2 else self.builder.mul(at, at)
        return self.builder.sqrt(square, limbs=self.draw.randrange(1, 4))

    def add_rsqrt(self, op: str) -> int:
        b, at = self.builder, self.any()
        square = b.mul(at, at)
        positive = b.add(square, b.constant([1], [1], bits=b.bits(square)))
        return b.rsqrt(positive, count=self.draw.randrange(1, 40), limbs=self.draw.randrange(1, 4))

    def inputs(self, program: Program) -> tuple[dict[str, Any], dict[str, Any]]:
        rng = np.random.default_rng(self.draw.randrange(1 << 32))
        found: dict[str, dict[str, Any]] = {"state": {}, "batch": {}}
        for node in program.nodes:
            if node.op not in found:
                continue
            limit = 1 << (node.width or 0)
            if node.kind == "marks":
                values = np.eye(node.shape[-1], dtype=np.int64)[rng.integers(0, node.shape[-1], node.shape[:-1])]
            else:
                low = -limit if node.kind == "signed" else 0 if node.kind == "unsigned" else 1 - limit
                values = rng.integers(low, limit, node.shape) >> int(rng.integers(0, node.width or 1))
            found[node.op][str(node.name)] = np.asarray(values)
        return found["state"], found["batch"]


def compared(program: Program, state: dict[str, Any], batch: dict[str, Any]) -> Run | None:
    """The run, which is the oracle's; None where neither has one."""
    try:
        wanted = run_slowly(program, state, batch)
    except OutOfRange:
        with pytest.raises(RangeLeft):
            run(program, state, batch)
        return None
    found = run(program, state, batch)
    for index, (one, other) in enumerate(zip(found.values, wanted, strict=True)):
        node = program.nodes[index]
        assert one.dtype == np.int64
        assert one.shape == tuple(node.shape)
        assert one.reshape(-1).tolist() == other, f"node {index}: {node.op}"
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_a_random_program_is_run_as_the_oracle_runs_it(seed: int) -> None:
    writer = Writer(seed)
    program = writer.program(writer.pool[-1])
    compared(program, *writer.inputs(program))


def test_the_random_programs_meet_every_operation_in_range_and_out() -> None:
    """What the comparison above rests on: no operation is missing from the programs that it draws."""
    met, outcomes = Counter[str](), Counter[bool]()
    for seed in range(12 * len(OPERATIONS)):
        writer = Writer(seed)
        program = writer.program(writer.pool[-1])
        try:
            run(program, *writer.inputs(program))
            outcomes[True] += 1
        except RangeLeft:
            outcomes[False] += 1
            continue
        met.update(node.op for node in program.nodes)
    assert set(met) == set(ATTRIBUTES), set(ATTRIBUTES) - set(met)
    assert min(outcomes[True], outcomes[False]) >= 20


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.3, 1.2]))
def test_steps_of_a_classifier_are_the_oracles(seed: int, scale: float) -> None:
    program = mlp_program(inputs=5, hidden=4, outputs=3, batch=2, feature_bits=4, width=5, rate_shift=3, limb_bits=12)
    rng = np.random.default_rng(seed)
    state = {
        str(program.nodes[at].name): np.round(rng.normal(0, scale, program.nodes[at].shape) * 2**28).astype(np.int64)
        for at in program.states
    }
    batch = {
        "image": rng.integers(0, 17, (2, 5)),
        "label": np.eye(3, dtype=np.int64)[rng.integers(0, 3, 2)],
    }
    for _ in range(3):
        found = compared(program, state, batch)
        if found is None:
            break
        state = found.next
