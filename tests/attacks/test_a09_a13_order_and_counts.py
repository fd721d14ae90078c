"""A09, A13: the committed records in an order that does harm, or one of them again and again.

The transcript is consistent in itself: digests, states and chain are recomputed, and the auditors whom the forger could
win over say MATCH. What gives it away is that every batch is recomputed from the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simulated_release import Simulation, failed

from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.recording.transcript import batch_digest

SIZE, BATCH = 48, 4

Choose = Callable[[int, list[int]], list[int]]


def easy_first(step: int, honest: list[int]) -> list[int]:
    """A curriculum that the pre-commitment does not know: records in the order of the forger's own list."""
    return list(range((step - 1) * BATCH, step * BATCH))


def within_the_batch(step: int, honest: list[int]) -> list[int]:
    return honest[::-1]


def one_step_later(step: int, honest: list[int]) -> list[int]:
    """Honest batches, the first two of them exchanged."""
    return [-1] if step in (1, 2) else honest


def always_the_same(step: int, honest: list[int]) -> list[int]:
    return [7] * BATCH


def one_record_ten_times(step: int, honest: list[int]) -> list[int]:
    """Record 7 instead of one record of each batch."""
    return [7, *honest[1:]]


def smaller_batches(step: int, honest: list[int]) -> list[int]:
    return honest[:-1]


def larger_batches(step: int, honest: list[int]) -> list[int]:
    return [*honest, 7]


FORGERS = [
    easy_first, within_the_batch, one_step_later, always_the_same, one_record_ten_times, smaller_batches,
    larger_batches,
]  # fmt: skip


def forged(choose: Choose) -> Simulation:
    """The parent's run with other batches than seed and order give."""

    def bend(events: list[dict[str, Any]]) -> None:
        seed = run_seed(events[0]["precommit_sha256"], bytes.fromhex(events[0]["nonce"]))
        honest = {step: batch_records(seed, SIZE, BATCH, step)[2] for step in range(1, 9)}
        for event in events:
            if event["type"] == "step":
                step = int(event["step"])
                records = choose(step, list(honest[step]))
                records = list(honest[3 - step]) if records == [-1] else records
                event["records"], event["batch_blake3"] = str(len(records)), batch_digest(records)

    return Simulation().bend("parent.events", bend)


def test_the_honest_order_passes_the_same_way() -> None:
    assert forged(lambda step, honest: honest).verify().verdict == "PASS"


@pytest.mark.parametrize("choose", FORGERS, ids=lambda choose: choose.__name__)
def test_batches_that_the_seed_does_not_give_are_denied(choose: Choose) -> None:
    report = forged(choose).verify()
    assert report.verdict == "DENY"
    follow = {"lineage-claim", "requirement"}  # what rests on it
    assert failed(report) - follow == {"order"}  # nothing else stops it
    detail = next(f.detail for f in report.findings if f.code == "order" and f.status == "failed")
    assert "expected" in detail


@pytest.mark.parametrize(("field", "value"), [("epoch", "1"), ("position", "4"), ("records", "8")])
def test_counts_that_the_order_does_not_give_are_denied(field: str, value: str) -> None:
    """An epoch that is named too early, and records that are claimed but not in the batch."""

    def bend(events: list[dict[str, Any]]) -> None:
        next(event for event in events if event["type"] == "step")[field] = value

    report = Simulation().bend("parent.events", bend).verify()
    assert report.verdict == "DENY"
    assert "order" in failed(report)


def test_more_steps_than_were_promised_are_denied() -> None:
    """Epoch after epoch over the same records, beyond the last promised step."""

    def bend(events: list[dict[str, Any]]) -> None:
        at = next(n for n, event in enumerate(events) if event["type"] == "end")
        last = next(event for event in reversed(events) if event["type"] == "step")
        events.insert(at, {**last, "step": "9"})

    report = Simulation().bend("parent.events", bend).verify()
    assert report.verdict == "DENY"
    assert "chain" in failed(report)


def test_a_stream_says_that_no_order_was_fixed() -> None:
    """The one run whose order is free: the claims about its data are never more than committed."""
    simulation = forged(easy_first).bend("parent.precommit", lambda value: value["order"].update(method="stream/1"))
    report = simulation.verify()
    assert report.verdict == "INCOMPLETE"  # the policy asks for more
    assert failed(report) == set()
    assert {claim.level for claim in report.claims if claim.type == "dataset-exclusion"} == {"committed"}
