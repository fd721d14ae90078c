"""A18, A19: checkpoints reversed, permuted, dropped, repeated."""

from __future__ import annotations

import shutil
from typing import Any

import pytest


def _checkpoints(events: list[dict[str, Any]]) -> list[int]:
    return [at for at, event in enumerate(events) if event["type"] == "checkpoint"]


def _reverse(recorded: Any, events: list[dict[str, Any]], *, moved: bool) -> None:
    """Tell the states backwards; `moved`: with the files in the places that the new steps give them."""
    places = _checkpoints(events)
    states = [(events[at]["components"], events[at]["files"], events[at]["step"]) for at in places]
    for at, (components, files, step) in zip(places, reversed(states), strict=True):
        cursor = events[at]["components"]["cursor"]
        if moved:
            own = f"step-{int(events[at]['step']):06d}"
            files = [{**file, "path": file["path"].replace(f"step-{int(step):06d}", own)} for file in files]
        events[at]["components"], events[at]["files"] = {**components, "cursor": cursor}, files
    recorded.restate(events)
    if moved:
        folder = recorded.run_dir / "checkpoints"
        names = sorted(path.name for path in folder.iterdir())
        folder.rename(folder.with_name("forward"))
        for name, other in zip(names, reversed(names), strict=True):
            shutil.copytree(folder.with_name("forward") / name, folder / other)


def test_reversed_states_do_not_replay(recorded: Any) -> None:
    _reverse(recorded, recorded.events(), moved=True)
    assert recorded.codes() == []
    assert recorded.replay(2).outcome == "MISMATCH"


def test_states_whose_files_lie_at_other_steps_break_the_chain(recorded: Any) -> None:
    _reverse(recorded, recorded.events(), moved=False)
    assert recorded.codes() == ["files"]


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
