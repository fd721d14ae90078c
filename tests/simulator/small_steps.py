"""One tiny training step for every operation of a program, with a state and a batch it can be run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pot.zk.semantics.builder import Builder
from pot.zk.semantics.program import Program

LIMB_BITS = 8


@dataclass(frozen=True)
class SmallStep:
    """A program and integers for it; `after` where the next state is a recorded one."""

    program: Program
    state: dict[str, Any]
    batch: dict[str, Any]
    after: dict[str, Any] | None = None


Writer = Callable[[Builder, int, int], int]
"""From a builder, a state node (2, 3) and a batch node (2, 3), each of one limb, to what another state is moved by."""


def small_steps() -> dict[str, SmallStep]:
    """By the name of what is special about each."""
    return {**{name: _step(write) for name, write in WRITERS.items()}, **_others()}


def _step(write: Writer, seed: int = 0, *, kind: str = "signed", width: int = 5) -> SmallStep:
    b = Builder(limb_bits=LIMB_BITS)
    w = b.state("w", [2, 3], bits=6, width=6)
    v = b.state("v", [2, 3], bits=6, width=40)
    x = b.batch("x", [2, 3], kind=kind, bits=4, width=width)
    b.set_next(w, w)
    b.set_next(v, b.add(v, _brought(b, write(b, w, x), [2, 3], 6)))
    program = b.program(label="small", batch=2, max_steps=4)
    rng = np.random.default_rng(seed)
    low = 0 if kind == "unsigned" else 1 - (1 << width)
    state = {"w": rng.integers(-60, 61, (2, 3)), "v": rng.integers(-9, 10, (2, 3))}
    return SmallStep(program, state, {"x": rng.integers(low, 1 << width, (2, 3))})


def _brought(b: Builder, at: int, shape: list[int], bits: int) -> int:
    """As it is where the shape fits, else its sum everywhere; the bits are relabelled."""
    if b.shape(at) != shape:
        at = b.expand(b.reshape(b.sum(at, range(len(b.shape(at)))), [1]), shape)
    return b.scaled(at, bits - b.bits(at))


def _cross(b: Builder, w: int, x: int) -> int:
    return b.matmul(b.permute(x, [1, 0]), w)


def _squares(b: Builder, x: int, plus: int) -> int:
    square = b.mul(x, x)
    return b.add(square, b.constant([plus], [1], bits=b.bits(square)))


def _image(b: Builder, x: int) -> int:
    """(2, 1, 3, 3) from the six integers of a batch: each record's row times itself."""
    return b.reshape(b.mul(b.reshape(x, [2, 3, 1]), b.reshape(x, [2, 1, 3])), [2, 1, 3, 3])


def _windows(b: Builder, x: int, padding: int = 0, stride: int = 1) -> int:
    cut = b.window(_image(b, x), [2, 2], [stride, stride], [padding, padding])
    rows = b.shape(cut)
    return b.reshape(cut, [rows[0] * rows[1] * rows[2], rows[3]])


def _convolved(b: Builder, w: int, x: int) -> int:
    """Windows times a kernel from the state, and the kernel's gradient from the rounded result."""
    cut = _windows(b, x, padding=1)
    kernel = b.reshape(b.slice(b.reshape(w, [6]), 0, 0, 4), [4, 1])
    out = b.round(b.matmul(cut, kernel), 4, limbs=1)
    return b.matmul(b.permute(cut, [1, 0]), out)


def _convolved_channels(b: Builder, w: int, x: int) -> int:
    """Two channels, and kernel, stride and padding that differ along height and width."""
    image = b.reshape(b.slice(b.reshape(_image(b, x), [2, 9]), 1, 0, 8), [2, 2, 2, 2])
    cut = b.window(image, [1, 2], [1, 2], [0, 1])
    flat = b.reshape(cut, [b.nodes[cut].size // 4, 4])
    out = b.round(b.matmul(flat, b.reshape(b.slice(b.reshape(w, [6]), 0, 2, 6), [4, 1])), 4, limbs=1)
    return b.matmul(b.permute(flat, [1, 0]), out)


def _folded_channels(b: Builder, w: int, x: int) -> int:
    rows = b.matmul(b.constant([3, -1, 4, 2], [4, 1], bits=0), b.reshape(b.slice(b.reshape(w, [6]), 0, 1, 5), [1, 4]))
    return b.round(b.fold(b.reshape(rows, [2, 1, 2, 4]), [2, 2, 1, 3], [1, 2], [1, 1]), 4, limbs=1)


def _folded_products(b: Builder, w: int, x: int) -> int:
    """What the gradient of a convolution's input is: products put back where windows overlap, then rounded."""
    rows = b.matmul(
        b.constant([3, 1, 4, 1, 5, 9, 2, 6], [8, 1], bits=0), b.reshape(b.slice(b.reshape(w, [6]), 0, 1, 5), [1, 4])
    )
    return b.mul(b.round(b.fold(b.reshape(rows, [2, 2, 2, 4]), [2, 1, 3, 3], [2, 2], [1, 1]), 4, limbs=2), _image(b, x))


WRITERS: dict[str, Writer] = {
    "linear": lambda b, w, x: b.sub(b.times(b.shift(x, 3), -5), b.scaled(b.times(w, 3), 1)),
    "constant tensor": lambda b, w, x: b.mul(x, b.constant([3, -1, 4, 1, -5, 9], [2, 3], bits=1)),
    "round to one limb": lambda b, w, x: b.round(b.mul(w, x), 5, limbs=1),
    "round to one limb by a whole limb": lambda b, w, x: b.round(b.shift(w, LIMB_BITS), 6, limbs=1),
    "round to two limbs": lambda b, w, x: b.round(b.mul(b.shift(w, 4), x), 9, limbs=2),
    "round to three limbs": lambda b, w, x: b.round(b.mul(b.shift(w, 12), x), 21, limbs=3),
    "round products": lambda b, w, x: b.round(b.matmul(x, b.permute(w, [1, 0])), 5, limbs=1),
    "divide to one limb": lambda b, w, x: b.divide(w, _squares(b, x, 7), count=4, limbs=1),
    "divide to two limbs": lambda b, w, x: b.divide(w, _squares(b, x, 3), count=10, limbs=2),
    "root of one limb": lambda b, w, x: b.sqrt(b.mul(w, w), limbs=1),
    "root of two limbs": lambda b, w, x: b.sqrt(b.shift(b.mul(w, w), 12), limbs=2),
    "inverse root of one limb": lambda b, w, x: b.rsqrt(_squares(b, x, 5), count=8, limbs=1),
    "inverse root of two limbs": lambda b, w, x: b.rsqrt(_squares(b, w, 1), count=15, limbs=2),
    "relu": lambda b, w, x: b.mul(b.relu(w), b.relu(x)),
    "positive": lambda b, w, x: b.mul(b.positive(w), x),
    "argmax": lambda b, w, x: b.mul(b.argmax(x), w),
    "products": _cross,
    "product of elements": lambda b, w, x: b.mul(w, b.mul(x, x)),
    "products with leading axes": lambda b, w, x: b.round(
        b.matmul(b.reshape(x, [2, 3, 1]), b.reshape(w, [2, 1, 3])), 5, limbs=1
    ),
    "products with two leading axes": lambda b, w, x: b.matmul(b.reshape(x, [1, 2, 3, 1]), b.reshape(w, [1, 2, 1, 3])),
    "sum": lambda b, w, x: b.mul(b.expand(b.sum(x, [1]), [2, 3]), b.expand(b.sum(w, [0]), [2, 3])),
    "sum of products": lambda b, w, x: b.round(b.sum(_cross(b, w, x), [0]), 4, limbs=2),
    "products in another shape": lambda b, w, x: b.round(
        b.sum(b.reshape(b.permute(_cross(b, w, x), [1, 0]), [3, 1, 3]), [2]), 4, limbs=2
    ),
    "products moved": lambda b, w, x: b.round(b.permute(_cross(b, w, x), [1, 0]), 4, limbs=2),
    "products cut": lambda b, w, x: b.round(b.slice(b.slice(_cross(b, w, x), 1, 1, 3), 0, 1, 3), 4, limbs=2),
    "products spread": lambda b, w, x: b.round(
        b.expand(b.sum(_cross(b, w, x), [0]), [2, 3]), 4, limbs=2
    ),
    "products and elements": lambda b, w, x: b.round(
        b.add(b.slice(_cross(b, w, x), 0, 0, 2), b.times(w, 3)), 5, limbs=1
    ),
    "windows": _convolved,
    "windows that skip": lambda b, w, x: b.matmul(_windows(b, x, 1, 2), b.constant([1, -2, 3, 5], [4, 1], bits=0)),
    "windows by themselves": lambda b, w, x: b.mul(_windows(b, x), _windows(b, x)),
    "products folded": _folded_products,
    "windows of channels": _convolved_channels,
    "products folded of channels": _folded_channels,
    "windows folded": lambda b, w, x: b.relu(
        b.round(b.fold(b.window(_image(b, x), [2, 2], [1, 1], [0, 0]), [2, 1, 3, 3], [2, 2], [1, 1]), 1, limbs=1)
    ),
    "windows folded apart": lambda b, w, x: b.mul(
        b.fold(b.reshape(x, [2, 1, 1, 3]), [2, 1, 1, 3], [1, 3], [1, 3]), b.reshape(w, [2, 1, 1, 3])
    ),
    "joined": lambda b, w, x: b.mul(b.concat([x, b.scaled(w, -2)], 1), b.concat([b.scaled(w, -2), x], 1)),
    "cut": lambda b, w, x: b.mul(b.slice(x, 1, 1, 3), b.slice(w, 1, 0, 2)),
    "spread": lambda b, w, x: b.mul(b.expand(b.slice(x, 0, 0, 1), [2, 3]), w),
}  # fmt: skip


def _others() -> dict[str, SmallStep]:
    return {
        "unsigned batch": _step(lambda b, w, x: b.mul(w, x), kind="unsigned"),
        "argmax of ties": _ties(),
        "marks": _marks(),
        "six axes": _six_axes(),
        "axes of one": _axes_of_one(),
        "float training": _slack(3),
        "float training by whole limbs": _slack(LIMB_BITS - 1),
        "two tensors of state": _momentum(),
    }


def _ties() -> SmallStep:
    found = _step(WRITERS["argmax"])
    return SmallStep(found.program, found.state, {"x": np.array([[4, 9, 9], [-7, -7, -7]])})


def _marks() -> SmallStep:
    b = Builder(limb_bits=LIMB_BITS)
    w = b.state("w", [3, 2], bits=6, width=7)
    y = b.batch("y", [2, 2, 3], kind="marks")
    b.set_next(
        w,
        b.add(
            w,
            b.scaled(
                b.matmul(b.permute(b.reshape(y, [4, 3]), [1, 0]), b.constant([1, 2, 3, 4, 5, 6, 7, 8], [4, 2], bits=0)),
                6,
            ),
        ),
    )
    program = b.program(label="marks", batch=2, max_steps=4)
    return SmallStep(program, {"w": np.arange(6).reshape(3, 2)}, {"y": np.eye(3, dtype=np.int64)[[[0, 2], [1, 1]]]})


def _six_axes() -> SmallStep:
    shape = [2, 2, 1, 2, 2, 2]
    b = Builder(limb_bits=LIMB_BITS)
    w = b.state("w", shape, bits=6, width=7)
    x = b.batch("x", shape, kind="signed", bits=4, width=5)
    b.set_next(w, b.add(w, b.scaled(b.round(b.mul(b.permute(w, [5, 4, 2, 3, 1, 0]), x), 5, limbs=1), 1)))
    rng = np.random.default_rng(3)
    program = b.program(label="six axes", batch=2, max_steps=4)
    return SmallStep(program, {"w": rng.integers(-99, 100, shape)}, {"x": rng.integers(-31, 32, shape)})


def _axes_of_one() -> SmallStep:
    b = Builder(limb_bits=LIMB_BITS)
    w = b.state("w", [1, 3], bits=6, width=20)
    v = b.state("v", [1], bits=6, width=20)
    x = b.batch("x", [1, 3], kind="signed", bits=4, width=5)
    product = b.matmul(x, b.permute(w, [1, 0]))
    b.set_next(w, b.sub(w, b.scaled(b.matmul(b.round(product, 5, limbs=1), x), -3)))
    b.set_next(v, b.add(v, b.scaled(b.round(b.reshape(product, [1]), 4, limbs=1), 2)))
    state = {"w": np.array([[5, -77, 12]]), "v": np.array([3])}
    return SmallStep(b.program(label="ones", batch=1, max_steps=4), state, {"x": np.array([[9, -20, 31]])})


def _slack(slack: int) -> SmallStep:
    b = Builder(limb_bits=LIMB_BITS)
    w = b.state("w", [2, 3], bits=6, width=12)
    x = b.batch("x", [2, 3], kind="signed", bits=4, width=5)
    b.set_next(w, b.add(w, b.scaled(x, 2)), slack=slack)
    program = b.program(label="slack", batch=2, max_steps=4)
    state, batch = {"w": np.arange(6).reshape(2, 3) * 50}, {"x": np.arange(6).reshape(2, 3) - 3}
    most = (1 << slack) - 1
    return SmallStep(program, state, batch, {"w": state["w"] + batch["x"] + np.array([[0, 1, -1], [most, -most, 2]])})


def _momentum() -> SmallStep:
    b = Builder(limb_bits=LIMB_BITS)
    w = b.state("w", [2, 3], bits=6, width=12)
    m = b.state("w.momentum_buffer", [2, 3], bits=6, width=7)
    x = b.batch("x", [2, 3], kind="unsigned", bits=4, width=5)
    kept = b.round(b.times(b.scaled(m, 4), 14), 6, limbs=1)
    speed = b.add(kept, b.scaled(x, 2))
    b.set_next(w, b.sub(w, speed))
    b.set_next(m, speed)
    program = b.program(label="momentum", batch=2, max_steps=4)
    state = {"w": np.arange(6).reshape(2, 3) * 9, "w.momentum_buffer": np.arange(6).reshape(2, 3) - 3}
    return SmallStep(program, state, {"x": np.arange(6).reshape(2, 3)})


CHOICES = ["relu", "positive", "argmax"]

GROUPS: dict[str, list[str]] = {
    "roundings": [name for name in WRITERS if name.startswith(("round", "divide"))],
    "roots and choices": [name for name in WRITERS if name.startswith(("root of", "inverse"))] + CHOICES,
    "products": [name for name in WRITERS if name.startswith("product") and name != "products folded"],
    "windows": [name for name in WRITERS if name.startswith("windows") or name == "products folded"],
}  # fmt: skip


def joined_steps() -> dict[str, SmallStep]:
    """Fewer programs with every operation in them: one for each group, one for all the rest, and the special ones."""
    rest = [name for name in WRITERS if not any(name in names for names in GROUPS.values())]
    found = {name: _step(_joined(names)) for name, names in {**GROUPS, "moves": rest}.items()}
    special = _others()
    return {**found, **{name: special[name] for name in ("marks", "six axes", "axes of one", "float training")}}


def _joined(names: list[str]) -> Writer:
    def write(b: Builder, w: int, x: int) -> int:
        total = _brought(b, x, [2, 3], 6)
        for name in names:
            total = b.add(total, _brought(b, WRITERS[name](b, w, x), [2, 3], 6))
        return total

    return write
