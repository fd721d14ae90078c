"""Whole runs of steps by arrays: the same digests as one after the other, at a bounded price."""

from __future__ import annotations

import subprocess
import sys

import pytest
from written_run import written

from pot.commitments import order
from pot.commitments.order import Permutation, batch_records
from pot.errors import LimitExceeded
from pot.recording.checking.chain import check_chain
from pot.recording.checking.expected import MAX_WIDE_POSITIONS, FixedOrder
from pot.recording.transcript import batch_digest

SEED = bytes(range(32))


def reference(size: int, batch: int, step: int) -> tuple[tuple[int, int], str]:
    epoch, position, records = batch_records(SEED, size, batch, step)
    return (epoch, position), batch_digest(records)


@pytest.mark.parametrize(("size", "batch", "steps"), [(1, 1, 9), (103, 10, 45), (5000, 7, 1500), (70_000, 32, 2300)])
def test_blocks_give_what_single_steps_give(size: int, batch: int, steps: int) -> None:
    expected = FixedOrder(SEED, size, batch, steps)
    for step in range(1, steps + 1):
        assert (expected.where(step), expected.digest(step)) == reference(size, batch, step), step
    assert expected.computed == steps * batch  # nothing beyond the planned steps


def test_jumps_give_the_same_and_cost_no_more_than_twice_what_they_use() -> None:
    expected, used = FixedOrder(SEED, 5000, 7, 1500), 0
    for start, count in ((1, 40), (700, 3), (1, 9), (714, 1), (713, 2), (1499, 2)):
        for step in range(start, start + count):
            assert expected.digest(step) == reference(5000, 7, step)[1]
            used += 7
    assert used <= expected.computed <= 2 * used


def test_the_first_wrong_batch_ends_the_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    honest = FixedOrder.digest

    def counted(self: FixedOrder, step: int) -> str:
        asked.append(step)
        return honest(self, step)

    monkeypatch.setattr(FixedOrder, "digest", counted)
    run = written()
    run.find("step", 3)["batch_blake3"] = run.find("step", 7)["batch_blake3"] = "ab" * 32
    assert run.codes() == ["batch"]
    assert asked == [1, 2, 3]


def test_a_limit_of_positions_is_a_problem_and_no_exception() -> None:
    run = written()
    assert check_chain(run.transcript(), run.precommit, limit=48).problems == ()
    problems = check_chain(run.transcript(), run.precommit, limit=47).problems
    assert [problem.code for problem in problems] == ["limit"]
    assert "more than 47 positions" in problems[0].detail
    with pytest.raises(LimitExceeded):
        FixedOrder(SEED, 100, 10, 100, limit=9).digest(1)


def test_steps_that_are_repeated_are_not_computed_again() -> None:
    """Else a transcript that goes back a thousand times would cost its reader a thousand times what its writer paid."""
    run = written()
    start, stop = run.place("checkpoint", 4), run.place("step", 8)
    resume = {"type": "resume", "step": "4", "checkpoint_index": str(start), "dropped_bytes": "0"}
    again = [resume, *run.events[start + 1 : stop]]
    run.events[stop:stop] = [dict(event) for _ in range(20) for event in again]
    chain = check_chain(run.transcript(), run.precommit, limit=48)
    assert (chain.problems, chain.dropped) == ((), 60)


@pytest.mark.parametrize("size", [300, 4096, 100_003])
@pytest.mark.parametrize("halves", [0, 99])
def test_arrays_of_records_are_the_order(size: int, halves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`halves`: 0 as for networks too wide for tables of single digests, 99 as usual."""
    single = Permutation(SEED, size)
    expected = [single.at(position) for position in range(size)]
    if not halves:
        monkeypatch.setattr(order, "TABLE_HALF_BITS", 0)
    many = Permutation(SEED, size)
    assert many.records(0, 3).tolist() == expected[:3]
    assert many.records(0, size).tolist() == many.records(0, size).tolist() == expected
    assert many.records(7, 290).tolist() == expected[7:290]
    assert many.records(5, 5).tolist() == []


@pytest.mark.parametrize("size", [10**9, 2**33 + 7, 2**48])
def test_arrays_without_tables(size: int) -> None:
    """The widest networks hash each half as it comes."""
    permutation = Permutation(SEED, size)
    assert permutation.records(size - 200, size).tolist() == [permutation.at(at) for at in range(size - 200, size)]


def test_a_reader_needs_neither_torch_nor_compiled_code() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; from written_run import written; run = written(records=60_000);"
        "assert not run.chain().problems; assert not {'torch', 'numba'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *sys.path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_order_too_wide_for_tables_has_a_lower_limit() -> None:
    """There a position costs many times as much: 2^33 of them would keep a reader busy for hours."""
    narrow, wide = (FixedOrder(SEED, size, 1, 1 << 40) for size in (2**34, 2**34 + 1))
    narrow.computed = wide.computed = MAX_WIDE_POSITIONS
    assert narrow.digest(1) == reference(2**34, 1, 1)[1]
    with pytest.raises(LimitExceeded, match=f"more than {1 << 28} positions"):
        wide.digest(1)
    assert FixedOrder(SEED, 2**34 + 1, 1, 9).digest(1) == reference(2**34 + 1, 1, 1)[1]
    with pytest.raises(LimitExceeded, match="more than 9 positions"):
        FixedOrder(SEED, 2**34 + 1, 10, 10, limit=9).digest(1)
