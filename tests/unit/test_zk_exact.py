"""The exact reference: integer arithmetic at its edges, ranges, slack, and records turned into batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from exact_run import PROGRAM, start_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from pot.errors import Malformed, Refused, UsageError
from pot.zk.semantics import integers
from pot.zk.semantics.batches import batch_arrays
from pot.zk.semantics.builder import Builder
from pot.zk.semantics.digits import digits_program
from pot.zk.semantics.exact import RangeLeft, advance, check_state, run
from pot.zk.semantics.program import Program

LIMIT = 1 << 62


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 61), st.integers(1, 61), st.integers(1, 40))
def test_products_of_any_size_are_exact(seed: int, left: int, right: int, inner: int) -> None:
    """Factors of all widths whose sums stay in int64, through float64 and through limbs."""
    left = min(left, 62 - inner.bit_length() - 1)
    right = max(1, min(right, 62 - inner.bit_length() - left))
    rng = np.random.default_rng(seed)
    a = rng.integers(-(1 << left) + 1, 1 << left, (2, 17, inner))
    b = rng.integers(-(1 << right) + 1, 1 << right, (2, inner, 43))
    wanted = np.matmul(a.astype(object), b.astype(object))
    assert (integers.matmul(a, b) == wanted).all()
    assert (integers._product(a, b) == wanted).all()


@pytest.mark.parametrize("value", [2**26 - 1, 2**26, 2**30, 2**60])
def test_products_at_the_edge_of_a_float(value: int) -> None:
    """2^53 is where float64 begins to lose integers: all partial sums are odd numbers on either side of it."""
    for other in (1, 2**61 // value, 2**62 // value - 1):
        a, b = np.full((3, 1), value, np.int64), np.full((1, 3), other, np.int64)
        assert (integers._product(a, b) == value * other).all()
        assert (integers._product(b.T, a.T) == value * other).all()
        assert (integers._product(-a, b) == -value * other).all()


def test_an_empty_product_is_zero() -> None:
    assert integers._product(np.zeros((2, 0), np.int64), np.zeros((0, 3), np.int64)).tolist() == [[0] * 3] * 2
    assert integers.largest(np.zeros(0, np.int64)) == 0
    assert integers.largest(ints(-(1 << 63), 5)) == 1 << 63


@pytest.mark.parametrize(
    ("value", "quotient"),
    [(0, 0), (1, 0), (-1, 0), (8, 1), (7, 0), (-8, 0), (-9, -1), (16, 1), (-16, -1), (LIMIT - 1, LIMIT >> 4)],
)
def test_ties_and_signs_of_a_rounding(value: int, quotient: int) -> None:
    """Halves go up, also below zero; the remainder 0 .. 2^s - 1 makes the quotient the only one."""
    assert integers.rounded(ints(value), 4).tolist() == [quotient]
    assert [q for q in range(quotient - 2, quotient + 3) if 0 <= value + 8 - q * 16 < 16] == [quotient]


@settings(max_examples=300, deadline=None)
@given(st.integers(-LIMIT + 1, LIMIT - 1), st.integers(1, LIMIT - 1), st.integers(1, 62), st.integers(240, 1 << 53))
def test_a_quotient_is_the_one_integer_or_beyond_the_cap(a: int, b: int, count: int, cap: int) -> None:
    for left, right in ((a, b), (a >> 31, b >> 31 or 1), (a >> 50, b), (b // 3, b)):
        wanted = (2 * left * 2**count + right) // (2 * right)
        found = int(integers.divide(ints(left), ints(right), count, cap)[0])
        assert found == wanted if abs(wanted) <= cap else abs(found) > cap and (found > 0) == (wanted > 0)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, LIMIT - 1))
def test_a_root_is_the_integer_below(value: int) -> None:
    near = math.isqrt(value) ** 2
    values = [v for v in (value, near, near - 1, near + 1, LIMIT - 1, (2**31 - 1) ** 2) if v >= 0]
    assert integers.root(ints(*values)).tolist() == [math.isqrt(v) for v in values]


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, LIMIT - 1), st.integers(0, 61), st.integers(1, 62), st.sampled_from([240, (1 << 28) - 1, 2**53 - 1])
)
def test_a_reciprocal_root_is_the_one_integer_or_beyond_the_cap(v: int, less: int, count: int, cap: int) -> None:
    v = max(1, v >> less)
    wanted = math.isqrt(4**count // v)  # q^2 v <= 2^(2 count)
    assert wanted**2 * v <= 4**count < (wanted + 1) ** 2 * v
    found = int(integers.reciprocal_root(ints(v), count, cap)[0])
    assert found == wanted if wanted <= cap else found > cap


def test_window_and_fold_are_what_torch_calls_unfold_and_fold() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    image = rng.integers(-9, 9, (2, 3, 7, 6))
    kernel, stride = (3, 2), (2, 1)
    for padding in ((0, 0), (1, 1), (0, 1)):
        wanted = torch.nn.functional.unfold(torch.from_numpy(image).double(), kernel, 1, padding, stride)
        found = integers.window(image, kernel, stride, padding)
        assert (found.reshape(2, -1, found.shape[-1]).transpose(0, 2, 1) == wanted.numpy()).all()
    cut = integers.window(image, kernel, stride, (0, 0))
    columns = torch.from_numpy(np.ascontiguousarray(cut.reshape(2, -1, cut.shape[-1]).transpose(0, 2, 1))).double()
    wanted = torch.nn.functional.fold(columns, (7, 6), kernel, 1, 0, stride)
    assert (integers.fold(cut, image.shape, kernel, stride) == wanted.numpy()).all()


def test_the_first_of_equal_values_is_the_largest() -> None:
    assert integers.argmax(ints(3, 7, 7, -1)).tolist() == [0, 1, 0, 0]


def batch(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"image": rng.integers(0, 17, (2, 4)), "label": np.eye(2, dtype=np.int64)[rng.integers(0, 2, 2)]}


def test_the_step_follows_float_gradient_descent() -> None:
    """The integers mean what they claim: one step equals float64 SGD on half the mean squared error, up to the grid."""
    program = digits_program()
    state, rng, unit = start_weights(program, 7, 0.1), np.random.default_rng(7), 2.0**28
    x, y = rng.integers(0, 17, (8, 64)), np.eye(10, dtype=np.int64)[rng.integers(0, 10, 8)]
    after = run(program, state, {"image": x, "label": y}).next
    w1, b1, w2, b2 = (state[name] / unit for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    z = x / 16 @ w1.T + b1
    h = np.maximum(z, 0)
    g = (h @ w2.T + b2 - y) / 8
    d = (z > 0) * (g @ w2)
    floats = {
        "0.weight": w1 - d.T @ (x / 16) / 16, "0.bias": b1 - d.sum(0) / 16, "2.weight": w2 - g.T @ h / 16,
        "2.bias": b2 - g.sum(0) / 16,
    }  # fmt: skip
    for name, wanted in floats.items():
        assert np.abs(after[name] / unit - wanted).max() < 1e-3, name
        assert (after[name] != state[name]).any(), name


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image": np.full((2, 4), 32)}, "image: holds 32, allowed is 0..31"),
        ({"image": np.full((2, 4), -1)}, "image: holds -1"),
        ({"image": np.zeros((2, 5), np.int64)}, r"image: an int64 array of shape \(2, 4\)"),
        ({"image": np.zeros((2, 4), np.int32)}, "image: an int64 array"),
        ({"image": [[0] * 4] * 2}, "this is list"),
        ({"label": np.zeros((2, 2), np.int64)}, "exactly one 1"),
        ({"label": np.ones((2, 2), np.int64)}, "exactly one 1"),
        ({"label": ints(2, -1, 1, 0).reshape(2, 2)}, "exactly one 1"),
        ({"more": np.zeros(1, np.int64)}, "batch: holds image, label, more"),
    ],
)
def test_batches_of_another_form_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Malformed, match=sentence):
        run(PROGRAM, start_weights(), {**batch(), **change})


def test_states_of_another_form_or_size_are_refused() -> None:
    state = start_weights()
    with pytest.raises(Malformed, match="state: holds"):
        run(PROGRAM, {name: array for name, array in state.items() if name != "0.bias"}, batch())
    with pytest.raises(Malformed, match=r"0\.bias: an int64 array of shape \(4,\)"):
        run(PROGRAM, {**state, "0.bias": np.zeros(3, np.int64)}, batch())
    big = {**state, "2.bias": np.full(2, 1 << 34)}
    check_state(PROGRAM, big)
    with pytest.raises(RangeLeft, match=r"2\.bias has an entry of magnitude 64, 64 is the limit"):
        check_state(PROGRAM, big, start=True)
    for value in (1 << 35, -(1 << 35), -(1 << 63)):
        with pytest.raises(RangeLeft, match="128 is the limit"):
            check_state(PROGRAM, {**state, "2.bias": np.full(2, value)})


def test_a_pre_activation_beyond_one_limb_stops_the_step_and_is_named() -> None:
    with pytest.raises(RangeLeft, match=r"node \d+ \(round of 0\.bias, 0\.weight, image\)"):
        run(PROGRAM, {**start_weights(), "0.bias": np.full(4, 33 << 28)}, batch())


def growing(start: int, width: int = 10) -> tuple[Program, dict[str, Any], dict[str, Any]]:
    """w <- w + x."""
    b = Builder(limb_bits=12)
    w = b.state("w", [1], bits=0, width=width)
    b.set_next(w, b.add(w, b.reshape(b.batch("x", [1, 1], kind="signed", bits=0, width=9), [1])))
    return b.program(label="growing", batch=1, max_steps=9), {"w": ints(start)}, {"x": np.array([[511]])}


def test_a_next_state_that_no_step_could_start_from_is_refused() -> None:
    program, state, given_batch = growing(2047 - 511)
    assert run(program, state, given_batch).next["w"].tolist() == [2047]
    with pytest.raises(RangeLeft, match="the next value of w has an entry of magnitude 2048"):
        run(program, {"w": ints(2048 - 511)}, given_batch)


def edge(make: Callable[[Builder, int], int], value: int) -> int:
    """One node on one value."""
    b = Builder(limb_bits=8)
    w = b.state("w", [1], bits=0, width=40)
    b.batch("x", [1, 1], kind="unsigned", bits=0, width=1)
    b.set_next(w, b.reshape(b._add("relabel", [make(b, w)], [1], 0), [1]))
    result = run(b.program(label="edge", batch=1, max_steps=1), {"w": ints(value)}, {"x": ints(0).reshape(1, 1)})
    return int(result.next["w"][0])


@pytest.mark.parametrize(
    ("make", "inside", "outside"),
    [
        (lambda b, w: b.round(w, -1, limbs=1), 480, 481),
        (lambda b, w: b.round(w, -1, limbs=1), -481, -482),
        (lambda b, w: b.round(w, -1, limbs=2), 2 * (2**15 - 1), 2 * (2**15 - 1) + 1),
        (lambda b, w: b.divide(w, b.constant([4], [1], bits=0), count=1, limbs=1), 480, 481),
        (lambda b, w: b.divide(b.constant([5], [1], bits=0), w, count=1, limbs=1), 1, 0),
        (lambda b, w: b.divide(b.constant([5], [1], bits=0), w, count=1, limbs=1), 1, -3),
        (lambda b, w: b.sqrt(w, limbs=1), 241**2 - 1, 241**2),
        (lambda b, w: b.sqrt(w, limbs=1), 0, -1),
        (lambda b, w: b.rsqrt(w, count=8, limbs=1), 2, 1),
        (lambda b, w: b.rsqrt(w, count=7, limbs=1), 1, 0),
    ],
)
def test_results_end_where_the_table_ends(make: Any, inside: int, outside: int) -> None:
    edge(make, inside)
    with pytest.raises(RangeLeft):
        edge(make, outside)


def test_a_root_of_a_negative_number_is_named() -> None:
    with pytest.raises(RangeLeft, match=r"\(sqrt of w\): the argument is -1, the least allowed is 0"):
        edge(lambda b, w: b.sqrt(w, limbs=1), -1)


def loose(slack: int) -> Program:
    ends = [{**item.model_dump(), "slack": slack} for item in PROGRAM.next]
    return Program.from_value({**PROGRAM.model_dump(exclude_none=True), "next": ends}, what="loose")


def test_a_recorded_next_state_counts_within_its_slack_only() -> None:
    program, state = loose(3), start_weights()
    exact = run(program, state, batch()).next
    for off, fits in ((0, True), (7, True), (-8, True), (8, False), (-9, False)):  # -2^3 .. 2^3 - 1
        after = {**exact, "2.bias": exact["2.bias"] + ints(0, off)}
        if fits:
            assert run(program, state, batch(), after=after).next["2.bias"] is after["2.bias"]
        else:
            with pytest.raises(Refused, match=rf"2\.bias: the recorded next value is {abs(off)} / 2\^28 away"):
                run(program, state, batch(), after=after)
    with pytest.raises(Refused, match=r"is 1 / 2\^28 away"):
        run(PROGRAM, state, batch(), after={**exact, "0.bias": exact["0.bias"] - 1})
    with pytest.raises(RangeLeft, match="the recorded next value of"):
        run(program, state, batch(), after={**exact, "0.bias": np.full(4, 1 << 35)})
    with pytest.raises(Malformed, match="state: holds"):
        run(program, state, batch(), after={})


def test_what_follows_from_itself_is_followed_without_the_rest() -> None:
    b = Builder(limb_bits=10)
    power = b.state("optimizer.power", [1], bits=8, width=9)
    b.set_next(power, b.round(b.mul(power, b.constant([230], [1], bits=8)), 8, limbs=1))
    w = b.state("w", [1], bits=8, width=9)
    b.set_next(w, b.add(w, power))
    b.batch("x", [1, 1], kind="unsigned", bits=0, width=1)
    program = b.program(label="powers", batch=1, max_steps=9)
    state = {"optimizer.power": ints(256), "w": ints(0)}
    alone = {"optimizer.power": ints(256)}
    for _ in range(4):
        state, alone = run(program, state, {"x": ints(0).reshape(1, 1)}).next, advance(program, alone)
        assert alone["optimizer.power"].tolist() == state["optimizer.power"].tolist()
    with pytest.raises(UsageError, match=r"optimizer\.power: w cannot be followed without it"):
        advance(program, {"w": ints(0)})


GOOD = {"image": [[1, 2], [3, 4]], "label": 1, "id": 7}


def test_records_become_tensors() -> None:
    found = batch_arrays(PROGRAM, [GOOD, {"image": [16, 0, [[0]], 5], "label": 0}])
    assert found["image"].tolist() == [[1, 2, 3, 4], [16, 0, 0, 5]]
    assert found["label"].tolist() == [[0, 1], [1, 0]]
    assert {array.dtype for array in found.values()} == {np.dtype(np.int64)}


def test_lists_of_tokens_become_rows_of_marks_and_signed_fields_keep_their_sign() -> None:
    b = Builder(limb_bits=10)
    tokens = b.batch("tokens", [2, 3, 4], kind="marks")
    b.batch("moved", [2, 2, 1], kind="signed", bits=2, width=3)
    w = b.state("w", [1], bits=0, width=5)
    b.set_next(w, b.add(w, b.reshape(b.sum(tokens, [0, 1, 2]), [1])))
    program = b.program(label="tokens", batch=2, max_steps=1)
    records: list[Any] = [{"tokens": [0, 3, 1], "moved": [-8, 7]}, {"tokens": [2, 2, 0], "moved": [[0], [1]]}]
    found = batch_arrays(program, records)
    assert found["tokens"].argmax(axis=-1).tolist() == [[0, 3, 1], [2, 2, 0]]
    assert found["moved"].tolist() == [[[-8], [7]], [[0], [1]]]
    assert run(program, {"w": ints(0)}, found).next["w"].tolist() == [6]
    most = (1 << 63) - 1
    for marks in ([1, 1, -1, 0], [2, -1, 0, 0], [most, most, 3, 0]):  # sums of 1, the last modulo 2^64, but no marks
        bent = found["tokens"].copy()
        bent[1, 2] = marks
        with pytest.raises(Malformed, match="exactly one 1"):
            run(program, {"w": ints(0)}, {**found, "tokens": bent})
    with pytest.raises(Malformed, match=r"moved: holds -9, allowed is -8\.\.7"):
        run(program, {"w": ints(0)}, {**found, "moved": found["moved"] - 1})
    records[1]["moved"] = [0, -9]
    with pytest.raises(Malformed, match=r"record 1 of the batch, field moved: holds an integer outside -8\.\.7"):
        batch_arrays(program, records)
    records[1]["tokens"] = [0, 4, 0]
    with pytest.raises(Malformed, match="record 1 of the batch, field tokens"):
        batch_arrays(program, records)


def test_marks_without_an_axis_of_their_own_are_refused() -> None:
    b = Builder(limb_bits=10)
    w = b.state("w", [1], bits=0, width=5)
    b.set_next(w, b.add(w, b.reshape(b.sum(b.batch("m", [2], kind="marks"), [0]), [1])))
    with pytest.raises(Malformed, match="marks stand along an axis of their own"):
        b.program(label="marks", batch=2, max_steps=1)


@pytest.mark.parametrize(
    "change",
    [{"image": None}, {"image": []}, {"image": [1, 2, 3]}, {"image": [1, 2, 3, 4, 5]}, {"image": [[1, 2], [3, -4]]},
     {"image": [[1, 2], [3, 4.0]]}, {"image": [[1, 2], [3, True]]}, {"image": [[1, 2], [3, 1 << 70]]},
     {"image": [[1, 2], [3, 32]]}, {"image": [[1, 2], [3, "4"]]}, {"image": "1234"}, {"image": {"0": 1}}, {"label": 2},
     {"label": -1}, {"label": True}, {"label": "1"}, {"label": 1.0}, {"label": None}, {"label": 1 << 70},
     {"label": [0, 1]}],
)  # fmt: skip
def test_hostile_records_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=f"record 1 of the batch, field {next(iter(change))}"):
        batch_arrays(PROGRAM, [GOOD, {**GOOD, **change}])


def test_what_is_no_record_and_batches_of_another_size_are_refused() -> None:
    for record in ([1, 2], "image", None, 7):
        with pytest.raises(Malformed, match="record 1"):
            batch_arrays(PROGRAM, [GOOD, record])  # type: ignore[list-item]
    with pytest.raises(Malformed, match="is missing"):
        batch_arrays(PROGRAM, [GOOD, {}])
    for count in (0, 1, 3):
        with pytest.raises(Malformed, match="a step takes 2"):
            batch_arrays(PROGRAM, [GOOD] * count)
