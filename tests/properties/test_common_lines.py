"""Two readers of one line: what the expression accepts, the parser and the model accept too, as an equal event."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from written_run import written

from pot.canonical import MAX_LINE_BYTES, canonical_bytes
from pot.commitments.state import COMPONENTS
from pot.errors import LimitExceeded, Malformed
from pot.recording.checking.common_lines import common_events
from pot.recording.transcript import CheckpointEvent, StepEvent, _event, read_transcript

COUNTS = st.sampled_from(["0", "7", "1" + "0" * 18, "9" * 19, "01", "", "-1", "1" + "0" * 19, "٣", "1\n", " 1", "1.0"])
DIGESTS = st.sampled_from(["0" * 64, "ab" * 32, "AB" * 32, "ab" * 31, "ab" * 32 + "\n", "é" * 64])
DECIMALS = st.sampled_from(
    ["0", "-0", "0.5", "-2.302585092994046", "1e-07", "3e20", "1e+5", ".5", "1.", "00", "NaN", "1e1234"]
)
STEP = {
    "batch_blake3": "ab" * 32, "epoch": "0", "index": "5", "loss": "0.5", "position": "8", "previous": "cd" * 32,
    "records": "4", "step": "3", "type": "step",
}  # fmt: skip
NAMES = ("cursor", "frozen", "model", "optimizer", "rng", "scaler", "scheduler")
ROOT = {
    "components": dict.fromkeys(NAMES, "ab" * 32), "files": [], "index": "9", "previous": "cd" * 32,
    "previous_state_blake3": "12" * 32, "state_blake3": "34" * 32, "step": "6", "type": "checkpoint",
}  # fmt: skip


def slow(line: bytes) -> Any:
    """What the parser and the model say; None where they refuse."""
    try:
        return _event(line, "line")
    except Malformed:
        return None


def agree(line: bytes) -> bool:
    """Whether the expression takes the line; fails unless it then gives what the model gives."""
    (fast,) = common_events([line])
    if fast is None:
        return False
    event = slow(line)
    assert type(fast) is type(event)
    assert fast == event
    assert fast.__dict__ == event.__dict__
    assert fast.model_fields_set == event.model_fields_set
    assert fast.to_bytes() == event.to_bytes() == line
    assert fast.model_dump() == event.model_dump()
    assert fast.model_copy(update={"step": "1"}) == event.model_copy(update={"step": "1"})
    assert hash(fast) == hash(event) if isinstance(fast, StepEvent) else True
    return True


def test_the_usual_lines_are_taken() -> None:
    assert set(NAMES) == COMPONENTS  # a new one stands in the expression too, or its lines are slow
    assert agree(canonical_bytes(STEP))
    assert agree(canonical_bytes({name: value for name, value in STEP.items() if name != "loss"}))
    assert agree(canonical_bytes(ROOT))
    for left_out in ("frozen", "optimizer", "scaler", "scheduler"):
        components = {name: value for name, value in ROOT["components"].items() if name != left_out}  # type: ignore[attr-defined]
        assert agree(canonical_bytes({**ROOT, "components": components}))
    for event, line in zip(written().transcript().events, written().transcript().lines, strict=True):
        common = isinstance(event, StepEvent) or (isinstance(event, CheckpointEvent) and not event.files)
        assert agree(line) is common


def test_a_copy_changes_no_other_event() -> None:
    (one,), (other,) = common_events([canonical_bytes(STEP)]), common_events([canonical_bytes(STEP)])
    assert one is not None
    changed = one.model_copy(update={"points": None})
    assert changed.model_fields_set != other.model_fields_set  # type: ignore[union-attr]
    with pytest.raises(Exception, match="frozen"):
        one.step = "4"  # type: ignore[misc]


def test_points_are_for_the_model() -> None:
    points = dict.fromkeys(("before", "batch", "after"), "0" * 128)
    line = canonical_bytes({**STEP, "points": points})
    assert not agree(line)
    assert slow(line).points.after == "0" * 128


def test_a_line_over_the_cap_is_refused_however_it_looks() -> None:
    line = canonical_bytes({**STEP, "loss": "1" * MAX_LINE_BYTES})
    assert not agree(line)
    with pytest.raises(LimitExceeded, match="line 0"):
        read_transcript(line + b"\n")


@given(st.data())
def test_values_of_every_form(data: st.DataObject) -> None:
    event: dict[str, Any] = json.loads(json.dumps(data.draw(st.sampled_from([STEP, ROOT]))))
    for name in data.draw(st.lists(st.sampled_from(sorted(event)), max_size=3)):
        value = event[name]
        if name == "components":
            value[data.draw(st.sampled_from([*NAMES, "other"]))] = data.draw(DIGESTS)
        elif isinstance(value, str):
            values = DIGESTS if len(value) == 64 else DECIMALS if name == "loss" else COUNTS
            event[name] = data.draw(st.one_of(values, st.none(), st.just(3)) if name != "type" else st.just("end"))
    line = canonical_bytes(event)
    taken = agree(line)
    if slow(line) is not None and None not in event.values():
        usual = event["type"] == "step" or set(event["components"]) <= set(NAMES)
        assert taken is usual


@settings(max_examples=400)
@given(st.sampled_from([canonical_bytes(STEP), canonical_bytes(ROOT)]), st.data())
@example(b"", None)
def test_lines_that_were_bent(line: bytes, data: st.DataObject | None) -> None:
    """Bytes replaced, left out, doubled, put in and moved."""
    for _ in range(0 if data is None else data.draw(st.integers(1, 3))):
        assert data is not None
        at = data.draw(st.integers(0, len(line)))
        cut = data.draw(st.integers(0, 3))
        new = data.draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b'"', b",", b"\n", b"\\u0030", b'"x":"0",', b" "]))
        )
        line = line[:at] + new + line[at + cut :]
    agree(line)


@given(st.permutations(sorted(STEP)))
def test_another_order_of_the_fields_is_not_taken(names: list[str]) -> None:
    line = json.dumps({name: STEP[name] for name in names}, separators=(",", ":")).encode()
    assert agree(line) is (names == sorted(STEP))
