"""Salted inner digests: which step, what the document accepts, that its digest hides and binds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pot.audit.salted import MAX_INNER, InnerDigests, inner_step, new_inner_digests, shared_steps
from pot.errors import Malformed, UsageError
from pot.recording.checking.chain import Segment
from pot.recording.transcript import CheckpointEvent

TRANSCRIPT, NONCE = "bb" * 32, "0c" * 32


def state(step: int) -> CheckpointEvent:
    return CheckpointEvent(
        index="0", previous="00" * 32, type="checkpoint", step=str(step), components={"model": "00" * 32},
        state_blake3="00" * 32, previous_state_blake3="00" * 32, files=(),
    )  # fmt: skip


def segment(first: int, last: int, *roots: int, index: int = 1) -> Segment:
    return Segment(index, first, last, state(first - 1), state(last), (), tuple(state(root) for root in roots))


def digests(*steps: int) -> dict[int, dict[str, str]]:
    return {step: {"model": f"{step:02x}" * 32, "rng": f"{step:02x}" * 32} for step in steps}


@given(st.integers(1, 50), st.integers(0, 40), st.data())
def test_the_step_lies_inside_and_at_no_published_digest(first: int, length: int, data: st.DataObject) -> None:
    last = first + length
    roots = sorted(data.draw(st.sets(st.integers(first, last - 1)))) if length else []
    found = inner_step(TRANSCRIPT, segment(first, last, *roots))
    candidates = [step for step in range(first, last) if step not in roots]
    assert found in candidates if candidates else found is None


def test_every_candidate_can_be_the_one() -> None:
    found = {inner_step(f"{number:064x}", segment(11, 20, 13, 15)) for number in range(400)}
    assert found == {11, 12, 14, 16, 17, 18, 19}


def test_the_step_depends_on_transcript_and_segment_and_on_nothing_else() -> None:
    steps = [inner_step(TRANSCRIPT, segment(1, 1000, index=index)) for index in range(1, 40)]
    assert len(set(steps)) > 30
    assert inner_step(TRANSCRIPT, segment(1, 1000, index=3)) == steps[2]
    assert inner_step("aa" * 32, segment(1, 1000, index=3)) != steps[2]


def test_the_place_is_that_of_the_specification() -> None:
    from pot.canonical import derive

    key = derive("pot/inner-step/v1", bytes.fromhex(TRANSCRIPT), (7).to_bytes(8, "little"))
    candidates = [step for step in range(101, 150) if step not in (110, 120)]
    place = candidates[int.from_bytes(key, "big") % len(candidates)]
    assert inner_step(TRANSCRIPT, segment(101, 150, 110, 120, index=7)) == place


def test_a_document_reads_back_and_its_salt_hides_it() -> None:
    one, other = (new_inner_digests(TRANSCRIPT, NONCE, digests(3, 8)) for _ in range(2))
    assert InnerDigests.from_bytes(one.to_bytes(), what="inner digests") == one
    assert one.commitment() == one.sha256() != other.commitment()
    assert one.states == other.states
    again = new_inner_digests(TRANSCRIPT, NONCE, digests(8, 3), salt=one.salt)
    assert again == one


def test_what_two_documents_share() -> None:
    one = new_inner_digests(TRANSCRIPT, NONCE, digests(3, 8, 9))
    other = new_inner_digests(TRANSCRIPT, NONCE, {**digests(3, 9, 20), 9: {"model": "ff" * 32}})
    assert shared_steps(one, other) == ((3,), (9,))
    assert shared_steps(one, one) == ((3, 8, 9), ())
    fewer = new_inner_digests(TRANSCRIPT, NONCE, {3: {"model": "03" * 32}})
    assert shared_steps(one, fewer) == ((), (3,))


def bent(**fields: Any) -> dict[str, Any]:
    return {**new_inner_digests(TRANSCRIPT, NONCE, digests(3, 8)).model_dump(mode="json"), **fields}


STATES = bent()["states"]


@pytest.mark.parametrize(
    "value",
    [
        bent(version="pot/inner-digests/v2"),
        bent(salt=""),
        bent(salt="00" * 31),
        bent(states=STATES[::-1]),
        bent(states=[STATES[0], STATES[0]]),
        bent(states=[{"step": "3", "components": {}}]),
        bent(states=[{"step": "3", "components": {"cursor": "00" * 32}}]),  # anybody can compute a cursor's
        bent(states=[{"step": "3", "components": {"model": "00" * 32, "other": "00" * 32}}]),
        bent(states=[{"step": "-3", "components": {"model": "00" * 32}}]),
        bent(states=[{"step": "3", "components": {"model": "00"}}]),
        bent(auditor="Argus"),
    ],
)
def test_what_is_no_document(value: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        InnerDigests.from_value(value, what="inner digests")


def test_too_many_states_are_refused_before_they_are_written() -> None:
    with pytest.raises(UsageError, match="more than"):
        new_inner_digests(TRANSCRIPT, NONCE, {step: {"model": "00" * 32} for step in range(MAX_INNER + 1)})
