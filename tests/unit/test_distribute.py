"""One function over many jobs: the same results in the same order from one process and from several."""

from __future__ import annotations

import math
import os
import pickle

import pytest

from pot.canonical import canonical_bytes
from pot.distribute import mapped
from pot.errors import EnvironmentFailure, Malformed, MissingExtra, UsageError


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers: int) -> None:
    with mapped(math.factorial, list(range(20)), workers=workers) as results:
        assert list(results) == [math.factorial(number) for number in range(20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_ours_arrives_as_it_was_raised(workers: int) -> None:
    jobs = [1.0, math.nan, 2.0]
    with (
        pytest.raises(Malformed, match="no canonical JSON form"),
        mapped(canonical_bytes, jobs, workers=workers) as got,
    ):
        list(got)


def test_an_error_with_two_arguments_crosses_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(MissingExtra("data", "reading Parquet")))
    assert str(error) == str(MissingExtra("data", "reading Parquet"))
    assert error.extra == "data"


def test_a_worker_that_dies_is_one_sentence() -> None:
    with pytest.raises(EnvironmentFailure, match="a worker process died"), mapped(os._exit, [1, 2], workers=2) as got:
        list(got)


@pytest.mark.parametrize("workers", [0, -1, 257])
def test_a_foolish_number_of_workers_is_refused(workers: int) -> None:
    with pytest.raises(UsageError, match="workers were asked for"), mapped(math.factorial, [1], workers=workers):
        pass
