"""Random steps: a circuit accepts the vectors of the right step, and of no other that one changed element makes."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from step_attacks import Bench, at, changed

from pot.errors import PotError
from pot.zk.circuits.field import MODULUS, inverse
from pot.zk.semantics.builder import Builder
from pot.zk.semantics.exact import run
from pot.zk.semantics.program import Program


class RandomStep:
    """A step that rounds random moves of random products, and puts the results through random other operations."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.builder = b = Builder(limb_bits=8)
        self.w = b.state("w", [2, 3], bits=6, width=6)
        self.v = b.state("v", [2, 3], bits=6, width=50)
        x = b.batch("x", [2, 3], kind=self.draw.choice(["signed", "unsigned"]), bits=4, width=4)
        marks = b.batch("m", [2, 3], kind="marks")
        rng = np.random.default_rng(seed)
        self.state = {"w": rng.integers(-60, 61, (2, 3)), "v": rng.integers(-9, 10, (2, 3))}
        ones = np.eye(3, dtype=np.int64)
        self.batch = {"x": rng.integers(0, 16, (2, 3)), "m": ones[rng.integers(0, 3, 2)]}
        self.pool, self.narrow, self.grown = [self.w, x, marks], [self.w, x], [x]
        while len(self.grown) < 5:
            try:
                self.grow()
            except (PotError, IndexError, ValueError):  # a rule forbids it, or a value leaves its range
                continue

    def program(self, *moved: int) -> Program:
        """In which these nodes, each added up unless its shape fits, move the state."""
        b = self.builder
        total = self.v
        for node in moved:
            fits = b.shape(node) == [2, 3]
            spread = node if fits else b.expand(b.reshape(b.sum(node, range(len(b.shape(node)))), [1]), [2, 3])
            total = b.add(total, b.scaled(spread, 6 - b.bits(node)))
        b._next = []
        b.set_next(self.w, self.w)
        b.set_next(self.v, total)
        return b.program(label="random", batch=2, max_steps=2)

    def size(self, node: int) -> int:
        """The largest magnitude of a node in this step. Raises where the step leaves a range."""
        program = self.program(node)
        found = run(program, self.state, self.batch).values[self.builder._needed().index(node)]
        return int(abs(found).max())

    def grow(self) -> None:
        node = self.rounded(self.products()) if self.draw.random() < 0.6 else self.elements()
        Bench.of(self.program(node))
        self.size(node)
        self.pool.append(node)
        self.grown.append(node)

    def products(self) -> int:
        b = self.builder
        flat = [at for at in self.pool if b.shape(at) == [2, 3]]
        one, two = self.draw.choice(flat), self.draw.choice(flat)
        if self.draw.random() < 0.3:
            node = b.matmul(b.reshape(one, [2, 3, 1]), b.reshape(two, [2, 1, 3]))
        else:
            node = b.matmul(b.permute(one, [1, 0]), two)
        for _ in range(self.draw.randrange(4)):
            node = self.moved(node)
        return node

    def moved(self, node: int) -> int:
        """A linear operation that a combination is pushed through."""
        b, shape = self.builder, self.builder.shape(node)
        axis = self.draw.randrange(len(shape))
        kinds = ["reshape", "permute", "sum", "slice", "expand", "times", "twice", "mixed", "fold", "fold"]
        kind = self.draw.choice(kinds)
        if kind == "reshape":
            return b.reshape(node, self.draw.choice([[b.nodes[node].size], [1, *shape], [*shape[::-1]], [*shape, 1]]))
        if kind == "permute":
            return b.permute(node, self.draw.sample(range(len(shape)), len(shape)))
        if kind == "sum":
            return b.sum(node, [axis])
        if kind == "slice":
            start = self.draw.randrange(shape[axis])
            return b.slice(node, axis, start, self.draw.randrange(start + 1, shape[axis] + 1))
        if kind == "expand":
            return b.expand(node, [size if size != 1 else 2 for size in shape])
        if kind == "times":
            return b.times(node, self.draw.randrange(-5, 6))
        if kind == "twice":
            return b.sub(b.shift(node, 2), b.times(node, 3)) if self.draw.random() < 0.5 else b.add(node, node)
        if kind == "mixed":
            same = [at for at in self.pool if b.shape(at) == shape]
            return b.add(node, self.draw.choice(same)) if same else node
        count = b.nodes[node].size // 9  # of windows of three along a line, one apart
        if self.draw.random() < 0.5:
            return b.fold(b.reshape(node, [count, 1, 3, 3]), [count, 1, 1, 5], [1, 3], [1, 1])
        return b.fold(b.reshape(node, [count, 3, 1, 3]), [count, 1, 5, 1], [3, 1], [1, 1])

    def rounded(self, node: int) -> int:
        b, limbs = self.builder, self.draw.randrange(1, 4)
        least = self.size(node).bit_length() - (8 * limbs - 2)
        found = b.round(node, b.bits(node) - max(1, least) - self.draw.randrange(3), limbs=limbs)
        if limbs == 1:
            self.narrow.append(found)
        return found

    def elements(self) -> int:
        b, one = self.builder, self.draw.choice(self.pool)
        kind = self.draw.choice(["mul", "relu", "positive", "argmax", "divide", "sqrt", "rsqrt", "concat", "window"])
        if kind == "mul":
            return b.mul(one, self.draw.choice([at for at in self.pool if b.shape(at) == b.shape(one)]))
        if kind in ("relu", "positive", "argmax"):
            return int(getattr(b, kind)(self.draw.choice(self.narrow)))
        if kind == "concat":
            same = [at for at in self.pool if b.bits(at) == b.bits(one) and b.shape(at) == b.shape(one)]
            return b.concat([one, self.draw.choice(same)], self.draw.randrange(len(b.shape(one))))
        if kind == "window":
            image = b.reshape(one, [1, 1, b.nodes[one].size // 3, 3])
            return b.window(image, [2, 2], [1, 2], [1, self.draw.randrange(2)])
        square = b.add(b.mul(one, one), b.constant([self.draw.randrange(1, 9)], [1], bits=2 * b.bits(one)))
        limbs = self.draw.randrange(1, 3)
        if kind == "divide":
            return b.divide(one, square, count=self.draw.randrange(1, 5 * limbs), limbs=limbs)
        return b.sqrt(square, limbs=limbs) if kind == "sqrt" else b.rsqrt(square, count=7 * limbs, limbs=limbs)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32))
def test_a_circuit_accepts_exactly_the_right_steps(seed: int) -> None:
    step = RandomStep(seed)
    bench = Bench.of(step.program(*step.grown))
    honest = bench.honest(step.state, step.batch)
    assert bench.accepts(honest)
    for name in ("before", "after", "batch", "witness"):
        for place in bench.places(name):
            old = at(honest, place)
            forged = [old + 1, old - 1, -1 - old, old + inverse(2), old + (1 << step.draw.randrange(70)),
                      step.draw.randrange(MODULUS)]  # fmt: skip
            bent = changed(honest, (place, step.draw.choice(forged)))
            assert bench.accepts(bent) == bench.right(bent), (place, old, at(bent, place))


def test_the_random_steps_meet_every_operation_behind_products_and_before_them() -> None:
    """What the test above rests on."""
    met, behind = Counter[str](), Counter[str]()
    for seed in range(36):
        step = RandomStep(seed)
        program = step.program(*step.grown)
        virtual = program.virtual()
        met.update(node.op for node in program.nodes)
        behind.update(node.op for node, is_virtual in zip(program.nodes, virtual, strict=True) if is_virtual)
    assert set(met) >= {"relu", "positive", "argmax", "round", "divide", "sqrt", "rsqrt", "concat", "window", "mul"}
    assert set(behind) >= {
        "matmul", "add", "sub", "times", "shift", "sum", "reshape", "permute", "expand", "slice", "fold",
    }  # fmt: skip


def test_two_changes_that_cancel_are_seen_as_well() -> None:
    """A quotient one too large with its remainder 2^s too small solves the equation; only the range speaks against."""
    refused: Counter[Any] = Counter()
    for seed in range(16):
        step = RandomStep(seed)
        program = step.program(*step.grown)
        bench = Bench.of(program)
        honest = bench.honest(step.state, step.batch)
        for index, node in enumerate(program.nodes):
            if node.op != "round" or node.limbs != 1 or (node.count or 0) >= 8:
                continue
            quotient = bench.place("witness", index, "q")
            rest = bench.place("witness", index, "r.0")
            raised = 1 << 8  # a remainder is held times 2^(limb_bits - count), so that 2^count becomes one whole limb
            for sign in (1, -1):
                bent = changed(
                    honest, (quotient, at(honest, quotient) + sign), (rest, at(honest, rest) - sign * raised)
                )
                assert not bench.accepts(bent)
                refused[node.count] += 1
    assert sum(refused.values()) >= 6
