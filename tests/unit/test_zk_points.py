"""Points for a trainer: every vector of a state or a batch has its place in the point string, under its own blinds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from exact_run import SECRET, start_weights, trainer

from pot.zk.circuits.field import Vector, encode
from pot.zk.circuits.layout import lay_out
from pot.zk.circuits.packing import batch_vectors, blinds_of, state_vectors
from pot.zk.family import family_of
from pot.zk.kit import commit_points
from pot.zk.runs.segment import MakePoints
from pot.zk.semantics.digits import mlp_program
from pot.zk.semantics.exact import RangeLeft

PROGRAM = mlp_program(inputs=20, hidden=16, outputs=10, batch=2, feature_bits=4, width=5, rate_shift=3)
LAYOUT = lay_out(PROGRAM, 8, 8)  # 506 integers of a state in columns of 256 rows


class Hashes:
    """In place of an engine."""

    calls = 0

    def commit(self, vectors: Sequence[Vector], settings: bytes, verifying_key: bytes, srs: bytes) -> list[str]:
        self.calls += 1
        return [hashlib.sha512(encode(vector)).hexdigest() for vector in vectors]


def maker(engine: Hashes) -> MakePoints:
    part = SimpleNamespace(settings=b"", verifying_key=b"")
    kit: Any = SimpleNamespace(family=family_of(PROGRAM), layout=LAYOUT, parts=[part], srs=b"")
    return partial(commit_points, kit, engine=engine)  # type: ignore[arg-type]


def batch(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"image": rng.integers(0, 17, (2, 20)), "label": np.eye(10, dtype=np.int64)[rng.integers(0, 10, 2)]}


def test_a_segments_points_are_those_of_all_vectors_made_at_once() -> None:
    engine = Hashes()
    source = trainer(program=PROGRAM, make_points=maker(engine), state=start_weights(PROGRAM, scale=0.1))
    states = [source.state]
    for number in (1, 2, 3):
        source.step(number, batch(number))
        states.append(source.state)
    found = source.points_for_segment([1, 2, 3])
    assert found is not None
    assert engine.calls == 1
    for number in (1, 2, 3):
        vectors = state_vectors(PROGRAM, LAYOUT, states[number], blinds_of(LAYOUT, SECRET, "state", number))
        assert len(vectors) > 1
        assert found[number - 1].after == "".join(Hashes().commit(vectors, b"", b"", b""))
        vectors = batch_vectors(PROGRAM, LAYOUT, batch(number), blinds_of(LAYOUT, SECRET, "batch", number))
        assert found[number - 1].batch == "".join(Hashes().commit(vectors, b"", b"", b""))
    assert [point.after for point in found[:2]] == [point.before for point in found[1:]]


def test_equal_states_of_other_steps_have_other_points() -> None:
    state, make = start_weights(PROGRAM), maker(Hashes())
    assert len(set(make(SECRET, [(1, state), (2, state)], [(1, batch(1)), (2, batch(1))]))) == 4


def test_only_the_first_state_must_lie_in_the_start_range() -> None:
    grown = {**start_weights(PROGRAM), "0.bias": np.full(16, 1 << 34)}
    make = maker(Hashes())
    assert len(make(SECRET, [(1, grown)], [])) == 1
    with pytest.raises(RangeLeft, match=r"0\.bias"):
        make(SECRET, [(0, grown)], [])
