"""A10, A16, A17: extra updates inside a segment or at a boundary, with every digest recomputed by the forger."""

from __future__ import annotations

from typing import Any


def test_an_edit_at_a_boundary_is_met_by_both_neighbouring_segments(recorded: Any) -> None:
    recorded.bend_tensors(15, "model", lambda values: [values[0] + 1, *values[1:]])
    assert recorded.codes() == []  # the chain alone cannot see it
    before, after = recorded.replay(3), recorded.replay(4)
    assert before.outcome == "MISMATCH"
    assert before.first_difference is not None
    assert "model differs, first differing tensor weights" in before.first_difference
    assert after.outcome == "MISMATCH"
    assert "step 16: loss" in (after.first_difference or "")
    assert recorded.replay(2).outcome == "MATCH"


def test_an_edit_after_the_last_step_is_met_by_the_last_segment(recorded: Any) -> None:
    recorded.bend_tensors(30, "model", lambda values: [*values[:-1], values[-1] - 7])
    assert recorded.codes() == []
    assert recorded.replay(6).outcome == "MISMATCH"


def test_a_released_model_other_than_the_last_state_breaks_the_end(recorded: Any) -> None:
    events = recorded.events()
    events[-1]["model_blake3"] = "ab" * 32
    recorded.relink(events)
    assert recorded.codes() == ["end"]


def test_an_extra_step_between_checkpoints_breaks_the_count(recorded: Any) -> None:
    events = recorded.events()
    place = next(at for at, event in enumerate(events) if event.get("step") == "8")
    events.insert(place, dict(events[place]))
    recorded.relink(events)
    assert "step-order" in recorded.codes()


def test_a_step_left_out_breaks_the_count(recorded: Any) -> None:
    events = [event for event in recorded.events() if not (event["type"] == "step" and event["step"] == "8")]
    recorded.relink(events)
    assert recorded.codes()[0] == "step-order"
