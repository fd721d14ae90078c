"""The data order: a permutation, both ways, with random access; batches over epochs."""

from __future__ import annotations

from collections import Counter

import pytest

from pot.commitments.order import MAX_ORDER_SIZE, Permutation, batch_records, epoch_permutation, steps_per_epoch
from pot.errors import UsageError

KEY = bytes(range(32))
PINNED_10 = [0, 1, 6, 5, 2, 7, 3, 8, 4, 9]
PINNED_LARGE = [521893334, 947102842, 901563991]


@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 255, 256, 257, 1437, 1797])
def test_at_is_a_permutation_and_find_its_inverse(size: int) -> None:
    order = Permutation(KEY, size)
    records = order.slice(0, size)
    assert sorted(records) == list(range(size))
    assert [order.find(record) for record in records] == list(range(size))


@pytest.mark.parametrize("size", [10**9, 2**33 + 7, MAX_ORDER_SIZE])
def test_random_access_at_sizes_nobody_could_shuffle(size: int) -> None:
    order = Permutation(KEY, size)
    for position in (0, 1, size // 3, size - 1):
        record = order.at(position)
        assert 0 <= record < size
        assert order.find(record) == position


def test_the_order_is_pinned() -> None:
    assert Permutation(KEY, 10).slice(0, 10) == PINNED_10
    assert Permutation(KEY, 10**9).slice(0, 3) == PINNED_LARGE


def test_small_orders_are_even() -> None:
    """Each of the 24 orders of 4 records comes up about as often: chi-square below the 0.1 % point of 23 degrees."""
    keys = [number.to_bytes(32, "little") for number in range(2400)]
    seen = Counter(tuple(Permutation(key, 4).slice(0, 4)) for key in keys)
    assert len(seen) == 24
    assert sum((count - 100) ** 2 / 100 for count in seen.values()) < 49.7


def test_epochs_and_keys_differ() -> None:
    seed = bytes(32)
    first, second = (epoch_permutation(seed, 100, epoch).slice(0, 100) for epoch in (0, 1))
    assert first != second
    assert epoch_permutation(KEY, 100, 0).slice(0, 100) != first


def test_batches_walk_each_epoch_once_and_drop_the_rest() -> None:
    size, batch = 103, 10
    assert steps_per_epoch(size, batch) == 10
    for epoch in (0, 1):
        whole = epoch_permutation(KEY, size, epoch).slice(0, 100)
        walked = []
        for step in range(epoch * 10 + 1, epoch * 10 + 11):
            at, first, records = batch_records(KEY, size, batch, step)
            assert (at, first, len(records)) == (epoch, len(walked), batch)
            walked += records
        assert walked == whole


@pytest.mark.parametrize("size", [300, 4096, 100_003])
def test_whole_arrays_give_the_same_order_as_one_after_the_other(size: int) -> None:
    import numpy  # noqa: F401  # the array path is taken where it is loaded, once enough was asked for

    many, single = Permutation(KEY, size), Permutation(KEY, size)
    expected = [single.at(position) for position in range(size)]
    found = [record for start in range(0, size, 150) for record in many.slice(start, min(start + 150, size))]
    assert many.slice(0, size) == found == expected
    assert all(type(record) is int for record in many.slice(0, size))


def test_without_drop_last_the_last_batch_is_short() -> None:
    assert steps_per_epoch(103, 10, drop_last=False) == 11
    epoch, first, records = batch_records(KEY, 103, 10, 11, drop_last=False)
    assert (epoch, first, len(records)) == (0, 100, 3)
    assert batch_records(KEY, 103, 10, 12, drop_last=False)[:2] == (1, 0)


@pytest.mark.parametrize(("size", "batch", "step"), [(10, 11, 1), (10, 0, 1), (0, 1, 1), (10, 5, 0), (10, -1, 1)])
def test_impossible_batches_are_refused(size: int, batch: int, step: int) -> None:
    with pytest.raises(UsageError):
        batch_records(KEY, size, batch, step)


@pytest.mark.parametrize("size", [0, -1, MAX_ORDER_SIZE + 1])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(UsageError):
        Permutation(KEY, size)


def test_positions_and_keys_out_of_range_are_refused() -> None:
    order = Permutation(KEY, 10)
    for call in (lambda: order.at(10), lambda: order.at(-1), lambda: order.find(10), lambda: order.slice(3, 11)):
        with pytest.raises(UsageError):
            call()
    with pytest.raises(UsageError):
        Permutation(b"short", 10)
    with pytest.raises(UsageError):
        epoch_permutation(KEY, 10, -1)
