"""A18, A19: checkpoints reversed, permuted, dropped, repeated."""

from __future__ import annotations

from typing import Any

import pytest


def _checkpoints(events: list[dict[str, Any]]) -> list[int]:
    return [at for at, event in enumerate(events) if event["type"] == "checkpoint"]


def test_reversed_states_do_not_replay(recorded: Any) -> None:
    events = recorded.events()
    places = _checkpoints(events)
    states = [(events[at]["components"], events[at]["files"]) for at in places]
    for at, (components, files) in zip(places, reversed(states), strict=True):
        cursor = events[at]["components"]["cursor"]
        events[at]["components"], events[at]["files"] = {**components, "cursor": cursor}, files
    recorded.restate(events)
    assert recorded.codes() == []
    assert recorded.replay(2).outcome == "MISMATCH"


@pytest.mark.parametrize("relinked", [False, True])
def test_swapped_checkpoints_break_the_chain(recorded: Any, relinked: bool) -> None:
    events = recorded.events()
    one, other = _checkpoints(events)[1:3]
    events[one], events[other] = events[other], events[one]
    (recorded.relink if relinked else recorded.write)(events)
    codes = recorded.codes()
    assert codes[0] == ("cadence" if relinked else "index")
    assert "state" in codes


def test_a_dropped_checkpoint_breaks_the_cadence(recorded: Any) -> None:
    events = recorded.events()
    del events[_checkpoints(events)[2]]
    recorded.restate(events)
    assert recorded.codes() == ["cadence"]


def test_a_repeated_checkpoint_breaks_the_cadence(recorded: Any) -> None:
    events = recorded.events()
    place = _checkpoints(events)[2]
    events.insert(place, dict(events[place]))
    recorded.restate(events)
    assert recorded.codes() == ["cadence"]


def test_a_dropped_line_breaks_index_and_previous(recorded: Any) -> None:
    events = recorded.events()
    del events[4]
    recorded.write(events)
    assert recorded.codes()[:2] == ["index", "previous"]
