"""The chain over roots only, gaps, frozen parameters, resumption and streams: an honest run, and each lie in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_run import WrittenRun, with_files, written

STREAM = {"method": "stream/1", "batch": "4", "drop_last": True}


@pytest.fixture
def run() -> WrittenRun:
    """Twelve steps, a root every two, files every four: steps 0, 4, 8 and 12."""
    return written(("model", "optimizer", "rng", "frozen"))


@pytest.fixture
def stream() -> WrittenRun:
    return written(order=STREAM)


def with_gap(run: WrittenRun, step: int, reason: str = "No space left on device") -> WrittenRun:
    """The files of this step's checkpoint were not kept, and the transcript says so."""
    at = run.place("checkpoint", step)
    run.events[at]["files"] = []
    run.events.insert(at, {"type": "gap", "step": str(step), "missing": "state", "reason": reason})
    return run


def test_segments_reach_from_files_to_files_and_hold_the_roots_between(run: WrittenRun) -> None:
    chain = run.chain()
    assert (chain.problems, chain.gaps, chain.forks) == ((), (), ())
    assert [(segment.index, segment.first, segment.last) for segment in chain.segments] == [
        (1, 1, 4),
        (2, 5, 8),
        (3, 9, 12),
    ]
    assert [[root.step for root in segment.roots] for segment in chain.segments] == [["2"], ["6"], ["10"]]
    assert [len(segment.steps) for segment in chain.segments] == [4, 4, 4]
    assert all(segment.start_state.files and segment.end_state.files for segment in chain.segments)


def test_without_state_every_each_checkpoint_has_files() -> None:
    run = written(state_every=None)
    chain = run.chain()
    assert chain.problems == ()
    assert [(segment.last, segment.roots) for segment in chain.segments] == [(n, ()) for n in range(2, 13, 2)]
    run.find("checkpoint", 6)["files"] = []
    assert run.codes() == ["files"]


def test_files_are_due_at_the_last_step_wherever_it_lies() -> None:
    run = written(steps=11)
    assert [segment.last for segment in run.chain().segments] == [4, 8, 11]
    run.find("checkpoint", 11)["files"] = []
    assert run.codes() == ["files"]


@pytest.mark.parametrize("step", [2, 6, 10])
def test_a_root_only_has_no_files(run: WrittenRun, step: int) -> None:
    run.events[run.place("checkpoint", step)] = with_files(run.find("checkpoint", step))
    assert run.codes() == ["files"]


@pytest.mark.parametrize("step", [0, 4, 12])
def test_files_that_are_due_are_not_left_out_in_silence(run: WrittenRun, step: int) -> None:
    run.find("checkpoint", step)["files"] = []
    assert run.codes() == ["files"]


def test_every_root_only_is_bound(run: WrittenRun) -> None:
    """A forger who changes a root without its followers is seen by the state digest that they contain."""
    chain = run.chain()
    run.find("checkpoint", 6)["components"]["model"] = "ab" * 32
    changed = run.chain()
    assert changed.problems == ()  # the digests follow: only a replay of the segment can tell
    assert changed.segments[1].roots[0] != chain.segments[1].roots[0]
    assert changed.segments[1].end_state.state_blake3 != chain.segments[1].end_state.state_blake3
    del run.events[run.place("checkpoint", 6)]
    assert run.codes() == ["cadence"]


@pytest.mark.parametrize("step", [2, 4, 12])
def test_frozen_parameters_do_not_change(run: WrittenRun, step: int) -> None:
    run.find("checkpoint", step)["components"]["frozen"] = "ab" * 32
    assert run.codes() == ["components"]
    del run.find("checkpoint", step)["components"]["frozen"]
    assert run.codes() == ["components"]


def test_frozen_parameters_have_no_file(run: WrittenRun) -> None:
    files = run.find("checkpoint", 4)["files"]
    assert not any("frozen" in file["path"] for file in files)
    files.append({"path": "checkpoints/step-000004/frozen.safetensors", "bytes": "8", "sha256": "ab" * 32})
    assert run.codes() == ["files"]


def test_a_gap_is_reported_and_makes_one_segment_of_two(run: WrittenRun) -> None:
    chain = with_gap(run, 8).chain()
    assert chain.problems == ()
    assert [(gap.step, gap.reason) for gap in chain.gaps] == [(8, "No space left on device")]
    assert chain.gaps[0].index == run.place("gap", 8)
    assert [(segment.first, segment.last) for segment in chain.segments] == [(1, 4), (5, 12)]
    assert [root.step for root in chain.segments[1].roots] == ["6", "8", "10"]


@pytest.mark.parametrize("step", [0, 2, 12])
def test_a_gap_where_no_files_can_be_missing(run: WrittenRun, step: int) -> None:
    """Step 2 is a root only anyway; without the first or the last state nothing can be replayed or released."""
    assert with_gap(run, step).codes()[0] == "gap"


def test_a_gap_without_a_missing_file(run: WrittenRun) -> None:
    files = run.find("checkpoint", 8)["files"]
    with_gap(run, 8)
    run.find("checkpoint", 8)["files"] = files
    assert run.codes() == ["gap"]


def test_a_gap_stands_directly_before_its_checkpoint(run: WrittenRun) -> None:
    with_gap(run, 8)
    at = run.place("gap", 8)
    run.events[at - 1], run.events[at] = run.events[at], run.events[at - 1]  # before step 8
    assert run.codes() == ["gap", "files"]


@pytest.mark.parametrize("step", [4, 12])
def test_a_gap_of_another_step(run: WrittenRun, step: int) -> None:
    with_gap(run, 8)
    run.find("gap", 8)["step"] = str(step)
    assert run.codes() == ["gap", "files"]


def test_a_gap_said_twice(run: WrittenRun) -> None:
    with_gap(run, 8)
    run.events.insert(run.place("gap", 8), dict(run.find("gap", 8)))
    assert "gap" in run.codes()


def test_the_disk_may_have_room_again_after_an_interruption(run: WrittenRun) -> None:
    """The gap was on a line that was left: what counts is the checkpoint that stands now."""
    whole = written(("model", "optimizer", "rng", "frozen"))
    with_gap(run, 8)
    stopped = run.place("step", 10)
    run.resume(4, stopped)
    now = [at for at, event in enumerate(run.events) if event["type"] == "gap"][-1]
    del run.events[now]
    run.events[now] = dict(whole.find("checkpoint", 8))
    chain = run.chain()
    assert (chain.problems, chain.gaps, chain.dropped) == ((), (), 5)
    assert [segment.last for segment in chain.segments] == [4, 8, 12]


def test_an_interruption_between_a_gap_and_its_checkpoint(run: WrittenRun) -> None:
    with_gap(run, 8)
    run.resume(4, run.place("gap", 8) + 1)
    chain = run.chain()
    assert (chain.problems, [gap.step for gap in chain.gaps]) == ((), [8])


def test_resuming_goes_to_the_latest_files_and_is_no_fork(run: WrittenRun) -> None:
    run.resume(4, run.place("step", 8))
    chain = run.chain()
    assert (chain.problems, chain.forks, chain.dropped) == ((), (), 3)
    assert [(segment.first, segment.last, len(segment.roots)) for segment in chain.segments] == [
        (1, 4, 1), (5, 8, 1), (9, 12, 1)
    ]  # fmt: skip


def test_a_root_that_is_repeated_must_be_the_same(run: WrittenRun) -> None:
    """Steps that look alike and another state: nothing but the roots tells, until a replay."""
    run.resume(4, run.place("step", 8))
    again = [event for event in run.events if event["type"] == "checkpoint" and event["step"] == "6"][1]
    again["components"] = {**again["components"], "model": "ab" * 32}
    assert run.codes() == ["abandoned"]


def test_a_step_that_is_repeated_must_be_the_same_behind_a_later_checkpoint_too(run: WrittenRun) -> None:
    """With a gap at 8, steps 9 and 10 stood before the run went back to 4; they are compared behind 8 as well."""
    with_gap(run, 8)
    run.resume(4, run.place("step", 11))
    again = [event for event in run.events if event["type"] == "step" and event["step"] == "10"][1]
    assert run.codes() == []
    again["loss"] = "0.25"
    assert run.codes() == ["abandoned"]


def test_no_resumption_from_a_root_only(run: WrittenRun) -> None:
    run.resume(6, run.place("step", 8))
    assert run.codes()[0] == "resume"


def test_going_back_behind_the_latest_files_is_a_fork(run: WrittenRun) -> None:
    run.resume(4, run.place("step", 11))
    chain = run.chain()
    assert chain.problems == ()
    assert [(fork.step, fork.abandoned) for fork in chain.forks] == [(4, 10)]
    assert chain.dropped == 6
    assert [segment.last for segment in chain.segments] == [4, 8, 12]


def test_a_stream_counts_what_it_yielded(stream: WrittenRun) -> None:
    chain = stream.chain()
    assert (chain.problems, len(chain.segments)) == ((), 3)
    assert (stream.find("step", 5)["position"], stream.find("step", 6)["epoch"]) == ("14", "1")
    stream.find("step", 3)["batch_blake3"] = "ab" * 32  # the recorder's word: a replay tells
    assert stream.codes() == []


@pytest.mark.parametrize(
    ("step", "change"),
    [
        (1, {"position": "1"}),
        (1, {"epoch": "1"}),
        (2, {"position": "4"}),
        (2, {"position": "0"}),
        (3, {"records": "0"}),
        (3, {"records": "5"}),
        (3, {"records": "9" * 19}),
        (7, {"epoch": "0"}),
        (7, {"epoch": "3", "position": "0"}),
        (7, {"epoch": "2", "position": "3"}),
    ],
)
def test_a_stream_that_jumps(stream: WrittenRun, step: int, change: dict[str, Any]) -> None:
    stream.find("step", step).update(change)
    assert stream.codes()[0] == "batch"


def test_a_stream_goes_on_counting_after_an_interruption(stream: WrittenRun) -> None:
    stream.resume(4, stream.place("step", 8))
    assert (stream.chain().problems, stream.chain().dropped) == ((), 3)
    at = [at for at, event in enumerate(stream.events) if event["type"] == "step" and event["step"] == "5"][1]
    stream.events[at] = {**stream.events[at], "epoch": "1", "position": "0"}
    assert "abandoned" in stream.codes()


def test_the_cursor_of_a_stream_is_bound(stream: WrittenRun) -> None:
    stream.find("checkpoint", 4)["components"]["cursor"] = stream.find("checkpoint", 6)["components"]["cursor"]
    assert stream.codes() == ["components"]


def test_the_nonce_source_is_that_of_the_precommitment() -> None:
    beacon = {"chain": "55" * 32, "round": "7"}
    run = written(seed_source="beacon", beacon=beacon)
    assert run.codes() == []
    run.events[0]["nonce_source"] = "verifier"
    assert run.codes() == ["start"]


@settings(max_examples=150)
@given(st.data())
def test_the_walk_never_raises_and_what_holds_is_whole(data: st.DataObject) -> None:
    """Lines left out, doubled, moved, renumbered, stripped; where no problem is found, the segments cover the run."""
    run = written(("model", "rng", "frozen"), **({"order": STREAM} if data.draw(st.booleans()) else {}))
    if data.draw(st.booleans()):
        with_gap(run, data.draw(st.sampled_from([4, 8])))
    if data.draw(st.booleans()):
        run.resume(data.draw(st.sampled_from([0, 4, 6, 8])), data.draw(st.integers(10, len(run.events) - 1)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(run.events) - 1))
        action = data.draw(st.sampled_from(["drop", "double", "swap", "number", "files"]))
        if action == "drop" and len(run.events) > 1:
            del run.events[at]
        elif action == "double":
            run.events.insert(at, dict(run.events[at]))
        elif action == "swap":
            other = data.draw(st.integers(0, len(run.events) - 1))
            run.events[at], run.events[other] = run.events[other], run.events[at]
        elif action == "number" and "step" in run.events[at]:
            run.events[at] = {**run.events[at], "step": data.draw(st.sampled_from(["0", "4", "8", "13", "9" * 18]))}
        elif action == "files" and run.events[at]["type"] == "checkpoint":
            run.events[at] = (
                with_files(run.events[at]) if not run.events[at]["files"] else {**run.events[at], "files": []}
            )
    chain = run.chain()
    if not chain.problems:
        ends = [0] + [segment.last for segment in chain.segments]
        assert [(segment.index, segment.first) for segment in chain.segments] == [
            (number + 1, last + 1) for number, last in enumerate(ends[:-1])
        ]
        assert ends[-1] == 12
        assert {gap.step for gap in chain.gaps} == {4, 8} - set(ends)
        assert all([int(step.step) for step in s.steps] == list(range(s.first, s.last + 1)) for s in chain.segments)
