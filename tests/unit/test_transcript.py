"""Reading transcripts, and the chain over an honest run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pot.canonical import canonical_bytes
from pot.errors import LimitExceeded, Malformed, PotError, UsageError
from pot.recording.checking.chain import check_chain
from pot.recording.transcript import batch_digest, loss_text, previous_digest, read_transcript


def test_an_honest_chain_holds(finished_run: Any) -> None:
    chain = finished_run.chain()
    assert chain.problems == ()
    assert chain.forks == ()
    assert [(segment.first, segment.last) for segment in chain.segments] == [(n + 1, n + 5) for n in range(0, 30, 5)]
    assert chain.end.model_blake3 == chain.segments[-1].end_state.components["model"]
    assert chain.initial is chain.segments[0].start_state


def test_checking_needs_no_torch_and_no_data(finished_run: Any) -> None:
    code = (
        "import sys, pathlib; from pot.recording.precommit import Precommit;"
        "from pot.recording.transcript import check_chain, load_transcript; run = pathlib.Path(sys.argv[1]);"
        "p = Precommit.from_bytes((run / 'precommit.json').read_bytes(), what='p');"
        "assert not check_chain(load_transcript(run), p).problems; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, finished_run.run_dir], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_torn_last_line_is_left_out_and_named(finished_run: Any) -> None:
    data = finished_run.transcript.data
    torn = read_transcript(data[:-10])
    assert len(torn.lines) == len(finished_run.transcript.lines) - 1
    assert torn.torn_bytes == len(finished_run.transcript.lines[-1]) + 1 - 10
    first = check_chain(torn, finished_run.precommit).problems[0]
    assert (first.code, first.detail) == (
        "torn", f"line {len(torn.lines)}: {torn.torn_bytes} bytes of a last line without newline"
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b'{"type":"nothing"}',
        b'{"type":["step"]}',
        b'{"index":"0","previous":"%s","step":"0","type":"end"}' % (b"0" * 64),
        b'{"index": "0"}',
        b"\xff\xfe",
        b'{"index":"0","index":"1"}',
        b'{"loss":NaN}',
    ],
)
def test_lines_that_are_no_events_are_refused(line: bytes) -> None:
    with pytest.raises(Malformed, match="line 0"):
        read_transcript(line + b"\n")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", "1e0x"),
        ("loss", 1.5),
        ("step", 1),
        ("step", "01"),
        ("batch_blake3", "AB" * 32),
        ("loss", None),
        ("x", "1"),
    ],
)
def test_fields_of_another_form_are_refused(finished_run: Any, field: str, value: object) -> None:
    event = {**next(e for e in finished_run.events() if e["type"] == "step"), field: value}
    with pytest.raises(Malformed):
        read_transcript(canonical_bytes(event) + b"\n")


def test_a_transcript_over_the_cap_is_refused() -> None:
    with pytest.raises(LimitExceeded, match="11 bytes"):
        read_transcript(b"x" * 11, 10)


@given(st.binary(max_size=300))
def test_hostile_bytes_raise_only_our_errors(data: bytes) -> None:
    try:
        transcript = read_transcript(data)
    except PotError:
        return
    assert all(event.to_bytes() == line for event, line in zip(transcript.events, transcript.lines, strict=True))


def test_digests_depend_on_every_part() -> None:
    assert batch_digest([1, 2]) != batch_digest([2, 1]) != batch_digest([2, 1, 0])
    assert previous_digest(b"a") != previous_digest(b"a ")


@pytest.mark.parametrize(
    ("loss", "text"),
    [(0.1, "0.1"), (1e-7, "1e-07"), (3e20, "3e20"), (7, "7"), (-2.5, "-2.5"), (None, None), (10**18, "1" + "0" * 18)],
)
def test_losses_are_written_exactly(loss: object, text: str | None) -> None:
    assert loss_text(loss, 1) == text
    assert text is None or float(text) == loss


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), "high", [1.0]])
def test_losses_that_are_no_numbers_are_refused(loss: object) -> None:
    with pytest.raises(UsageError, match="step 3"):
        loss_text(loss, 3)


def test_the_root_is_that_of_the_lines(finished_run: Any) -> None:
    import hashlib

    def tree(lines: list[bytes]) -> bytes:  # RFC 9162 2.1.1
        if len(lines) == 1:
            return hashlib.sha256(b"\0" + lines[0]).digest()
        split = 1 << (len(lines) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + tree(lines[:split]) + tree(lines[split:])).digest()

    assert finished_run.transcript.root() == tree(list(finished_run.transcript.lines)).hex()


def test_resumption_from_an_earlier_checkpoint_is_a_fork(recorded: Any) -> None:
    events = recorded.events()
    at = next(i for i, e in enumerate(events) if e["type"] == "checkpoint" and e["step"] == "10")
    upto = next(i for i, e in enumerate(events) if e["type"] == "checkpoint" and e["step"] == "15")
    resume = {"type": "resume", "step": "10", "checkpoint_index": str(at), "dropped_bytes": "0"}
    recorded.restate([*events[: upto + 1], resume, *[dict(event) for event in events[at + 1 :]]])
    # the states after the fork follow from step 10 again, not from the abandoned step 15
    events = recorded.events()
    previous = next(e["state_blake3"] for e in events if e["type"] == "checkpoint" and e["step"] == "10")
    from pot.commitments.state import state_digest

    for event in events[upto + 2 :]:
        if event["type"] == "checkpoint":
            event["previous_state_blake3"] = previous
            previous = event["state_blake3"] = state_digest(
                event["components"], int(event["step"]), recorded.precommit.config_blake3, previous
            )
    events[-1]["state_blake3"] = previous
    recorded.relink(events)
    chain = recorded.chain()
    assert chain.problems == ()
    assert [(fork.step, fork.abandoned) for fork in chain.forks] == [(10, 15)]
    assert chain.dropped == 5
    assert len(chain.segments) == 6


def test_repeated_steps_must_come_out_the_same(recorded: Any) -> None:
    events = recorded.events()
    at = next(i for i, e in enumerate(events) if e["type"] == "checkpoint" and e["step"] == "10")
    resume = {"type": "resume", "step": "10", "checkpoint_index": str(at), "dropped_bytes": "0"}
    abandoned = [dict(event) for event in events[at + 1 : at + 3]]
    recorded.relink([*events[: at + 1], *abandoned, resume, *events[at + 1 :]])
    assert recorded.codes() == []
    assert recorded.chain().dropped == 2
    abandoned[1]["loss"] = "12345"
    recorded.relink([*events[: at + 1], *abandoned, resume, *events[at + 1 :]])
    assert recorded.codes() == ["abandoned"]


def test_a_resumption_from_nowhere_is_refused(recorded: Any) -> None:
    events = recorded.events()
    events.insert(4, {"type": "resume", "step": "0", "checkpoint_index": "2", "dropped_bytes": "0"})
    recorded.relink(events)
    assert recorded.codes()[0] == "resume"


@pytest.mark.parametrize("field", ["before", "batch", "after"])
def test_points_that_do_not_link_are_seen(recorded: Any, field: str) -> None:
    events = recorded.events()
    steps = [event for event in events if event["type"] == "step"]
    for number, event in enumerate(steps):
        event["points"] = {"before": f"{number:0128x}", "batch": "0" * 128, "after": f"{number + 1:0128x}"}
    recorded.relink(events)
    assert recorded.codes() == []
    steps[7]["points"][field] = "f" * 128
    recorded.relink(events)
    assert recorded.codes() == ([] if field == "batch" else ["points"])  # the batch point is for proofs to open


def test_an_unfinished_run_says_so(recorded: Any) -> None:
    recorded.write(recorded.events()[:9])
    assert recorded.codes() == ["unfinished"]
    assert "after step 6 of 30" in recorded.chain().problems[-1].detail


def test_lines_after_the_end_are_seen(recorded: Any) -> None:
    events = recorded.events()
    recorded.relink([*events, dict(events[-1])])
    assert recorded.codes() == ["end"]


def test_an_empty_transcript_is_unfinished(recorded: Any, tmp_path: Path) -> None:
    recorded.write([])
    assert recorded.codes() == ["unfinished"]


FREE = {("checkpoint", "files"), ("step", "loss"), ("resume", "dropped_bytes")}
"""Fields that only replays, file checks or nobody can judge; every other field is bound by the chain."""


def test_every_other_field_is_bound_even_when_the_forger_relinks(recorded: Any) -> None:
    events = recorded.events()
    at = next(i for i, e in enumerate(events) if e["type"] == "checkpoint" and e["step"] == "10")
    events.insert(at + 2, {"type": "resume", "step": "10", "checkpoint_index": str(at), "dropped_bytes": "0"})
    events.insert(at + 3, dict(events[at + 1]))
    recorded.relink(events)
    assert recorded.codes() == []
    tried = set()
    for number, event in enumerate(events):
        for field, value in event.items():
            kind = (event["type"], field)
            if field in ("index", "previous", "type") or kind in FREE or kind in tried:
                continue
            tried.add(kind)
            bent = [dict(e) for e in events]
            bent[number][field] = _other(value)
            recorded.relink(bent)
            assert recorded.codes() != [], kind
    assert len(tried) == 17


def _other(value: Any) -> Any:
    if isinstance(value, dict):
        return {**value, "model": "ab" * 32}
    if value in ("self", "verifier"):
        return "verifier" if value == "self" else "self"
    return "ab" * 32 if len(value) == 64 else str(int(value) + 1)


@settings(max_examples=40)
@given(st.data())
def test_the_walk_never_raises(finished_run: Any, data: st.DataObject) -> None:
    """Lines left out, doubled, moved and renumbered by huge values give problems, not exceptions."""
    import json

    from pot.recording.checking.chain import check_chain

    events = [json.loads(line) for line in finished_run.transcript.lines]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(events) - 1))
        action = data.draw(st.sampled_from(["drop", "double", "swap", "number"]))
        if action == "drop" and len(events) > 1:
            del events[at]
        elif action == "double":
            events.insert(at, dict(events[at]))
        elif action == "swap":
            events[at], events[0] = events[0], events[at]
        elif "step" in events[at]:
            events[at] = {**events[at], "step": data.draw(st.sampled_from(["0", "31", "9" * 19]))}
    lines = b"".join(canonical_bytes(event) + b"\n" for event in events)
    result = check_chain(read_transcript(lines), finished_run.precommit)
    assert result.problems or lines == finished_run.transcript.data
