"""A21, A22: honest weights over another optimizer state, another RNG state, another data cursor."""

from __future__ import annotations

from typing import Any


def test_donor_moments_do_not_replay(recorded: Any) -> None:
    recorded.bend_tensors(10, "optimizer", lambda values: [value + 5 for value in values])
    assert recorded.codes() == []
    replay = recorded.replay(2)
    assert replay.outcome == "MISMATCH"
    assert "component optimizer differs, first differing tensor moments" in replay.detail


def test_another_rng_state_does_not_replay(recorded: Any) -> None:
    def edit(rng: dict[str, Any]) -> None:
        words = rng["python"][1]
        rng["python"][1] = ("0" if words[0] != "0" else "1") + words[1:]

    recorded.bend_rng(10, edit)
    assert recorded.codes() == []
    replay = recorded.replay(2)
    assert replay.outcome == "MISMATCH"
    assert "component rng differs" in replay.detail


def test_another_cursor_is_seen_without_replay(recorded: Any) -> None:
    events = recorded.events()
    event = next(e for e in events if e["type"] == "checkpoint" and e["step"] == "10")
    event["components"]["cursor"] = "cd" * 32
    recorded.restate(events)
    assert recorded.codes() == ["components"]


def test_a_component_left_out_is_seen(recorded: Any) -> None:
    events = recorded.events()
    event = next(e for e in events if e["type"] == "checkpoint" and e["step"] == "10")
    del event["components"]["optimizer"]
    recorded.restate(events)
    assert recorded.codes() == ["components"]
