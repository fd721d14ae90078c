"""From a program to a circuit: each operation's step is accepted and none near it; parts are whole, settings fixed."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from small_steps import SmallStep, small_steps
from step_attacks import Bench, at, changed

from pot.errors import Malformed, UsageError
from pot.zk.circuit import canonical_settings, run_arguments, table_name
from pot.zk.circuits.challenge import challenge, powers
from pot.zk.circuits.field import MODULUS, inverse
from pot.zk.circuits.graph import Constants, Graph, Tensor
from pot.zk.circuits.identities import PARTS, Identities, identities_of
from pot.zk.circuits.layout import CHALLENGES, lay_out
from pot.zk.circuits.parts import Shape, choose_shape, make_parts
from pot.zk.circuits.tensors import Tensors
from pot.zk.circuits.weights import Axis, Weights, vector_of
from pot.zk.semantics.builder import Builder
from pot.zk.semantics.digits import digits_program, mlp_program
from pot.zk.semantics.program import Program
from pot.zk.semantics.shapes import ATTRIBUTES

STEPS = small_steps()


@pytest.mark.parametrize("name", STEPS)
def test_a_circuit_accepts_the_step_of_each_operation_and_nothing_near_it(name: str) -> None:
    """Every element of every vector, changed in three ways: accepted exactly where that is a right step too."""
    step = STEPS[name]
    bench = Bench.of(step.program)
    honest = bench.honest(step.state, step.batch, step.after)
    assert bench.residuals(honest) == [0]
    slack = step.after is not None
    for family in ("before", "after", "batch", "witness"):
        for number, place in enumerate(bench.places(family)):
            old = at(honest, place)
            for new in (old + 1, old - 1, (-1 - old, old + inverse(2), old + (1 << 61))[number % 3]):
                bent = changed(honest, (place, new))
                assert bench.accepts(bent) == bench.right(bent, slack=slack), (place, old, new)


def test_the_small_steps_have_every_operation_with_every_number_of_limbs() -> None:
    met = Counter((node.op, node.limbs) for step in STEPS.values() for node in step.program.nodes)
    assert {op for op, _ in met} == set(ATTRIBUTES)
    assert {("round", 1), ("round", 2), ("round", 3), ("divide", 1), ("divide", 2), ("sqrt", 1), ("sqrt", 2),
            ("rsqrt", 1), ("rsqrt", 2)} <= set(met)  # fmt: skip


def big_step() -> SmallStep:
    """Enough for several parts and vectors."""
    from proven_steps import PROGRAM

    return SmallStep(PROGRAM, {}, {})


def test_every_identity_stands_in_exactly_one_part_under_its_own_number() -> None:
    program = big_step().program
    for shape in (Shape(9, 4, 24), Shape(9, 6, 16), Shape(11, 4, 8)):
        parts = make_parts(program, shape)
        assert [item for part in parts.parts for item in part.identities] == identities_of(program.nodes, program.next)
        assert {name for part in parts.parts for name in part.inputs} == {
            *parts.layout.names(), "constants", "challenge"
        }  # fmt: skip
        assert all(part.inputs[-1] == "challenge" for part in parts.parts)
    assert len(make_parts(program, Shape(9, 4, 24)).parts) > len(make_parts(program, Shape(11, 4, 8)).parts) == 1


def test_no_identity_has_more_tensors_than_it_has_powers_of_the_last_challenge() -> None:
    """Or the last tensor of one identity and the first of the next would share a weight, and could cancel."""
    for step in [*STEPS.values(), big_step()]:
        graph = Graph(Constants())
        identities = Identities(Tensors(step.program, lay_out(step.program, 12, 8), graph))
        for identity in identities_of(step.program.nodes, step.program.next):
            assert 1 <= len(list(identities._parts(identity))) <= PARTS


@pytest.mark.parametrize(
    "shape", [[5], [2, 3], [3, 1, 2], [2, 2, 3, 2], [2, 3, 1, 2, 2, 3], [2, 2, 2, 2, 2, 2], [1, 1]]
)
def test_different_elements_have_different_monomials(shape: list[int]) -> None:
    """The weight of an element as exponents of the challenges, read off the axes: no two are the same."""
    graph = Graph(Constants())
    program = STEPS["linear"].program
    weights = Identities(Tensors(program, lay_out(program, 12, 8), graph))._weights(shape)
    assert [axis.size for axis in weights.axes] == shape
    monomials = [tuple([0] * CHALLENGES)]
    for axis in weights.axes:
        assert axis.given is None
        assert axis.size == 1 or axis.challenge is not None
        spread = []
        for known in monomials:
            for index in range(axis.size):
                found = list(known)
                if axis.challenge is not None:
                    found[axis.challenge] += index * axis.stride
                spread.append(tuple(found))
        monomials = spread
    assert len(set(monomials)) == len(monomials)
    assert all(monomial[CHALLENGES - 1] == 0 for monomial in monomials)  # the last one keeps identities apart


def test_a_vector_of_weights_is_powers() -> None:
    graph = Graph(Constants())
    assert vector_of(graph, Axis(3, 1, 2)).shape == (3,)
    assert graph.powers == {(1, 2, 3): 0}
    assert powers([2, 3, 5, 7, 11], [[1, 2, 3], [0, 1, 2]]) == [1, 9, 81, 1, 2]
    with pytest.raises(Malformed, match="no challenge 5"):
        powers([2, 3, 5, 7, 11], [[5, 1, 1]])
    assert Weights((Axis(2),)).factors == ()


def test_the_challenge_takes_everything_in() -> None:
    names = ["before.0", "after.0"]
    points = {"before.0": "11" * 64, "after.0": "22" * 64}
    known: dict[str, Any] = {
        "circuit_sha256": "aa" * 32, "precommit_sha256": "bb" * 32, "step": 1, "names": names, "points": points
    }  # fmt: skip
    honest = challenge(**known)
    assert len(set(honest)) == CHALLENGES
    assert all(0 <= element < MODULUS for element in honest)
    others: list[dict[str, Any]] = [
        {"circuit_sha256": "ab" * 32}, {"precommit_sha256": "bc" * 32}, {"step": 2}, {"names": names[::-1]},
        {"points": {**points, "after.0": "22" * 63 + "23"}}, {"names": names[:1]},
    ]  # fmt: skip
    found = [challenge(**{**known, **other}) for other in others]
    assert all(not set(one) & set(honest) for one in found)


def test_equal_graphs_give_equal_bytes() -> None:
    pytest.importorskip("onnx")
    program = STEPS["windows"].program
    made = []
    for _ in range(2):
        parts = make_parts(program, choose_shape(program))
        made.append(parts.parts[0].graph.onnx(parts.lengths(parts.parts[0]), parts.parts[0].output))
    assert made[0] == made[1]


def test_a_graph_has_no_number_in_it_that_an_optimiser_could_use() -> None:
    """Constants are inputs; all that the graph holds are places and shapes."""
    onnx = pytest.importorskip("onnx")
    program = STEPS["round products"].program
    parts = make_parts(program, choose_shape(program))
    model = onnx.load_from_string(parts.parts[0].graph.onnx(parts.lengths(parts.parts[0]), parts.parts[0].output))
    readers = {item.name: set() for item in model.graph.initializer}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in readers:
                readers[name].add((node.op_type, place))
    assert set().union(*readers.values()) <= {("Gather", 1), ("Reshape", 1)}
    assert {node.op_type for node in model.graph.node} <= {
        "Gather", "Reshape", "Transpose", "Concat", "HardSwish", "Add", "Sub", "Mul", "MatMul", "Identity"
    }  # fmt: skip


def test_equal_operations_are_written_once() -> None:
    graph = Graph(Constants())
    a, b = graph.vector("a", 3), graph.vector("b", 3)
    assert graph.mul(a, b) == graph.mul(b, a)
    assert graph.sub(a, b) != graph.sub(b, a)
    assert graph.take(a, [2, 0], (2,)) == graph.take(a, [2, 0], (2,))
    assert graph.take(a, [0, 1, 2], (3,)) is a
    assert graph.rows(2) == 2 + 2 * 2
    assert graph.needed([Tensor("n0", (3,))]) == {"n0", "a", "b"}


def test_the_cheapest_shape_of_one_part_is_chosen() -> None:
    assert choose_shape(digits_program()).logrows == 13
    small = mlp_program(inputs=8, hidden=4, outputs=3, batch=2, feature_bits=4, width=5, rate_shift=3, limb_bits=8)
    assert choose_shape(small) == Shape(10, 2, 8)  # 2^9 rows take 7 columns: constraints of a higher degree


def test_what_does_not_fit_is_said() -> None:
    program = big_step().program
    with pytest.raises(UsageError, match=r"does not fit 2 columns of 2\^9 rows"):
        make_parts(program, Shape(9, 2, 8))
    with pytest.raises(UsageError, match=r"2\^8 rows"):
        make_parts(program, Shape(8, 4, 8))
    with pytest.raises(UsageError, match=r"2\^21 rows"):
        make_parts(program, Shape(21, 4, 8))


def test_the_table_ends_where_a_limb_ends() -> None:
    program = STEPS["linear"].program
    for rows in (9, 10, 12):
        low, top = run_arguments(program, Shape(rows, 4, 8))["lookup_range"]
        assert top == (1 << program.limb_bits) - 1
        assert top - low + 1 == (1 << rows) - 8
        assert low <= -program.limb_limit - 1  # the mask of the least value looks one below it up
        assert table_name(program, Shape(rows, 4, 8)) == f"hardswish_1_{low}_{top}"


def settings_of(**change: Any) -> bytes:
    value: dict[str, Any] = {
        "timestamp": 12345, "num_rows": 1 << 20, "total_assignments": 1 << 20,
        "einsum_params": {"equations": [["b", {"n": 2, "m": 1}], ["a", {"k": 3}]]},
        "required_lookups": [{"HardSwish": {"scale": 1.0}}], "required_range_checks": [],
        "model_instance_shapes": [[5]], "model_input_scales": [0, 0], "model_output_scales": [0],
        "num_dynamic_lookups": 0, "num_shuffles": 0, **change,
    }  # fmt: skip
    return json.dumps(value).encode()


def test_settings_are_canonical_whatever_varies() -> None:
    shape = Shape(9, 4, 8)
    one = canonical_settings(settings_of(), shape, 2, 5)
    turned = {"equations": [["a", {"k": 3}], ["b", {"m": 1, "n": 2}]]}
    assert canonical_settings(settings_of(timestamp=7, einsum_params=turned), shape, 2, 5) == one
    read = json.loads(one)
    assert read["timestamp"] == 0
    assert read["num_rows"] == 512 - 64


@pytest.mark.parametrize(
    "change",
    [{"required_lookups": [{"Sigmoid": {"scale": 1.0}}]}, {"required_range_checks": [[-1, 1]]},
     {"model_input_scales": [0, 7]}, {"model_output_scales": [1]}, {"model_instance_shapes": [[6]]},
     {"num_dynamic_lookups": 1}, {"num_shuffles": 2}, {"required_lookups": [{"HardSwish": {"scale": 2.0}}]},
     {"einsum_params": {}}, {"num_rows": None}],
)  # fmt: skip
def test_settings_of_a_circuit_that_came_out_differently_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        canonical_settings(settings_of(**change), Shape(9, 4, 8), 2, 5)


def test_settings_that_are_no_json_are_refused() -> None:
    for data in (b"", b"[]", b"7", b"{}", b"null"):
        with pytest.raises(Malformed):
            canonical_settings(data, Shape(9, 4, 8), 2, 5)


def test_a_tensor_has_an_end() -> None:
    """Or a program of two lines would be laid out without end."""
    b = Builder(limb_bits=8)
    w = b.state("w", [1 << 26, 1 << 26], bits=0, width=3)
    b.batch("x", [2, 1], kind="unsigned", bits=0, width=3)
    b.set_next(w, w)
    with pytest.raises(Malformed):
        b.program(label="endless", batch=2, max_steps=2)


def test_bounds_that_are_squared_a_thousand_times_end_at_once() -> None:
    b = Builder(limb_bits=8)
    w = b.state("w", [2, 1], bits=0, width=3)
    at = b.batch("x", [2, 1], kind="unsigned", bits=0, width=3)
    for _ in range(1000):
        at = b.mul(at, at)
    b.set_next(w, at)
    with pytest.raises(Malformed, match="64-bit"):
        b.program(label="squares", batch=2, max_steps=2)


def test_a_tensor_added_to_itself_forty_times_is_combined_once() -> None:
    """Walked as a tree, this one would be read 2^40 times."""
    b = Builder(limb_bits=8)
    w = b.state("w", [2, 1], bits=0, width=3)
    at = b.batch("x", [2, 1], kind="unsigned", bits=0, width=3)
    for _ in range(40):
        at = b.add(at, at)
    b.set_next(w, b.scaled(b.round(at, -40, limbs=1), 40))
    bench = Bench.of(b.program(label="doubled", batch=2, max_steps=2))
    assert bench.accepts(bench.honest({"w": np.array([[1], [2]])}, {"x": np.array([[3], [7]])}))


def test_more_linear_operations_in_a_row_than_are_walked_are_refused() -> None:
    b = Builder(limb_bits=8)
    w = b.state("w", [2, 1], bits=0, width=3)
    at = b.batch("x", [2, 1], kind="unsigned", bits=0, width=3)
    for _ in range(1200):
        at = b.times(at, -1)
    b.set_next(w, at)
    with pytest.raises(Malformed, match="linear operations in a row"):
        b.program(label="long", batch=2, max_steps=2)


def test_copies_moved_in_ever_new_ways_are_not_walked_without_end() -> None:
    """Each of 24 levels reads the one below twice under other weights; no memory of combinations helps."""
    b = Builder(limb_bits=8)
    w = b.state("w", [2], bits=0, width=3)
    at = b.matmul(b.batch("x", [2, 2], kind="unsigned", bits=0, width=3), b.constant([1, 2, 3, 4], [2, 2], bits=0))
    for level in range(24):
        at = b.add(at, b.expand(b.slice(at, 0, level % 2, level % 2 + 1), [2, 2]))
    b.set_next(w, b.scaled(b.reshape(b.slice(b.round(at, -30, limbs=1), 0, 0, 1), [2]), 30))
    program = b.program(label="copies", batch=2, max_steps=2)
    with pytest.raises(UsageError, match="too many moved copies"):
        make_parts(program, Shape(9, 4, 8))


@pytest.mark.parametrize("field", ["state", "value"])
def test_a_next_value_that_names_no_node_is_refused(field: str) -> None:
    program = STEPS["linear"].program
    value = json.loads(program.to_bytes())
    value["next"][0][field] = 4000
    with pytest.raises(Malformed, match="names a node that there is not"):
        Program.from_value(value, what="program")
