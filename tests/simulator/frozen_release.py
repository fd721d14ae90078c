"""The simulated release of a child whose program trains two of its model's tensors; the others are the parent's.

`held(name, step)` gives the frozen tensors of a model after a step, and may lie; what `quantised` and `dequantised` do
not name is carried over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import simulated_release
from opened_release import Opened

from attest.verdict.operations import apply_operation
from pot.commitments.state import TensorEntry, entries_from_safetensors
from pot.recording.state import safetensors_parts
from pot.zk.semantics.fixed import dequantise_array, quantise_array

__all__ = ["FROZEN", "TRAINED", "changed", "float_run", "partly_trained"]

TRAINED = frozenset({"0.weight", "0.bias"})
NAN = b"\x01\x00\xc0\x7f"  # a quiet NaN with a payload
FROZEN = (
    TensorEntry("backbone.mean", "F32", (4,), np.array([-0.0, 0.1, 1e-30], "<f4").tobytes() + NAN),
    TensorEntry("backbone.seen", "I64", (), (7).to_bytes(8, "little")),
    TensorEntry("backbone.weight", "BF16", (2, 2), bytes(range(8))),
)

Held = Callable[[str, int], Sequence[TensorEntry]]


def parents(name: str, step: int) -> Sequence[TensorEntry]:
    """What an honest child holds: the parent's, always."""
    return FROZEN


def changed(last: Sequence[TensorEntry], *, first: Sequence[TensorEntry] = FROZEN) -> Held:
    """The child's frozen tensors are others as soon as it trains."""
    return lambda name, step: last if name == "child" and step else first


def serialise(entries: Sequence[TensorEntry]) -> bytes:
    """Safetensors bytes."""
    return b"".join(safetensors_parts(entries))


def partly_trained(
    patch: pytest.MonkeyPatch,
    held: Held = parents,
    *,
    quantised: Collection[str] = TRAINED,
    dequantised: Collection[str] = TRAINED,
    released: Callable[[list[TensorEntry]], Sequence[TensorEntry]] = lambda entries: entries,
    begun: Callable[[list[TensorEntry]], Sequence[TensorEntry]] = lambda entries: entries,
) -> Opened:
    """A release that demands its steps of its policy. `released`, `begun`: bend the released file, the first state."""
    real = simulated_release.weights
    made: dict[bytes, bytes] = {}

    def weights(name: str, step: int) -> bytes:
        return serialise([*entries_from_safetensors(real(name, step)), *held(name, step)])

    def integers(data: bytes) -> bytes:
        entries = apply_operation("quantise/1", entries_from_safetensors(data), quantised)
        first = data == made.setdefault(b"parent", data)  # the child's first state is made of the parent's release
        return serialise(begun(entries) if first else entries)

    def floats(data: bytes) -> bytes:
        return serialise(released(apply_operation("dequantise/1", entries_from_safetensors(data), dequantised)))

    for function in (weights, integers, floats):
        patch.setattr(simulated_release, function.__name__, function)
    simulation = Opened().alone()

    def only_steps(policy: dict[str, object]) -> None:
        policy["require"] = [{"claim": "steps-proven", "level": "proved", "every_step": True}]

    simulation.bend("policy", only_steps)
    return simulation


def float_run(patch: pytest.MonkeyPatch, base: TensorEntry) -> Opened:
    """A child that trains floats on its program's grid, and says that it began by `quantise/1` of the frozen `base`."""
    real, state_of = simulated_release.weights, simulated_release.state_of
    program = simulated_release.simulated_program(slack=8)

    def on_the_grid(entry: TensorEntry) -> TensorEntry:
        values = np.frombuffer(entry.data, "<f4").reshape(entry.shape)
        return replace(entry, data=dequantise_array(quantise_array(values, 10), 10).astype("<f4").tobytes())

    def weights(name: str, step: int) -> bytes:
        return serialise([*map(on_the_grid, entries_from_safetensors(real(name, step))), base])

    def integers(data: bytes) -> bytes:
        return serialise(apply_operation("quantise/1", entries_from_safetensors(data), {base.name}))

    def floats(data: bytes) -> bytes:
        return data

    for function in (weights, integers, floats):
        patch.setattr(simulated_release, function.__name__, function)
    patch.setattr(simulated_release, "simulated_program", lambda: program)
    patch.setattr(simulated_release, "state_of", lambda *words, semantics, start: state_of(
        *words, semantics="float", start=start))  # fmt: skip

    def predicate(value: dict[str, Any]) -> None:
        value["run"]["semantics"], value["operations"] = "float", value["operations"][:1]

    def only_steps(policy: dict[str, Any]) -> None:
        policy["require"] = [{"claim": "steps-proven", "level": "proved", "every_step": True}]

    simulation = Opened().alone().bend("child.predicate", predicate).bend("policy", only_steps)
    simulation.bend("child.precommit", lambda value: value.update(semantics="float"))
    return simulation
