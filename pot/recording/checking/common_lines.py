"""The commonest lines of a transcript, read without a JSON parser: steps, and checkpoints that are roots only.

Spec: `specs/transcript.md`, "Transcript" and "Conventions". An expression each accepts exactly the canonical form of a
step without points, and of a root of the usual components; every other line, honest or not, goes to the parser and the
model (`pot.recording.transcript`). Both give equal events and refuse the same lines, which a property test checks.

Shows / does not show: nothing by itself; it is how a transcript of 100,000 steps is read in a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pot.canonical import MAX_LINE_BYTES
from pot.recording.transcript import CheckpointEvent, StepEvent

__all__ = ["common_events"]

_COUNT: Final = '"(0|[1-9][0-9]{0,18})"'
_DIGEST: Final = '"([0-9a-f]{64})"'
_DECIMAL: Final = r'"(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e-?[0-9]{1,3})?)"'
# The names in the order of RFC 8785; no value in quotes can hold an escape, so the form is the only one.
_STEP: Final = re.compile(
    rf'\{{"batch_blake3":{_DIGEST},"epoch":{_COUNT},"index":{_COUNT}(?:,"loss":{_DECIMAL})?,"position":{_COUNT},'
    rf'"previous":{_DIGEST},"records":{_COUNT},"step":{_COUNT},"type":"step"\}}'
).fullmatch
_COMPONENTS: Final = ("cursor", "frozen", "model", "optimizer", "rng", "scaler", "scheduler")
_ROOT: Final = re.compile(
    rf'\{{"components":\{{"cursor":{_DIGEST}(?:,"frozen":{_DIGEST})?,"model":{_DIGEST}(?:,"optimizer":{_DIGEST})?,'
    rf'"rng":{_DIGEST}(?:,"scaler":{_DIGEST})?(?:,"scheduler":{_DIGEST})?\}},"files":\[\],"index":{_COUNT},'
    rf'"previous":{_DIGEST},"previous_state_blake3":{_DIGEST},"state_blake3":{_DIGEST},"step":{_COUNT},'
    r'"type":"checkpoint"\}'
).fullmatch
# which fields were given; pydantic copies the set before it changes any
_WITHOUT_LOSS: Final = set(StepEvent.model_fields) - {"loss", "points"}
_WITH_LOSS: Final = {*_WITHOUT_LOSS, "loss"}
_ROOT_FIELDS: Final = set(CheckpointEvent.model_fields)


def common_events(lines: Iterable[bytes]) -> Iterator[StepEvent | CheckpointEvent | None]:
    """For each line its event, if it is a step without points or a root only in canonical form; None for every other.

    One loop, and a model made as unpickling makes it: each field has been checked, and pydantic would take ten times as
    long to check it again.
    """
    make, put = StepEvent.__new__, object.__setattr__
    for line in lines:
        text = line.decode("latin-1") if len(line) <= MAX_LINE_BYTES else ""  # what is not ASCII matches nothing
        found = _STEP(text)
        if found is None:
            yield _root(text)
            continue
        batch, epoch, index, loss, position, previous, records, step = found.groups()
        event = make(StepEvent)
        fields = {
            "index": index, "previous": previous, "type": "step", "step": step, "epoch": epoch, "position": position,
            "records": records, "batch_blake3": batch, "loss": loss, "points": None,
        }  # fmt: skip
        put(event, "__dict__", fields)
        put(event, "__pydantic_fields_set__", _WITHOUT_LOSS if loss is None else _WITH_LOSS)
        put(event, "__pydantic_extra__", None)
        put(event, "__pydantic_private__", None)
        yield event


def _root(text: str) -> CheckpointEvent | None:
    found = _ROOT(text)
    if found is None:
        return None
    values = found.groups()
    index, previous, before, state, step = values[len(_COMPONENTS) :]
    named = zip(_COMPONENTS, values, strict=False)
    event = CheckpointEvent.__new__(CheckpointEvent)
    fields: dict[str, Any] = {
        "index": index, "previous": previous, "type": "checkpoint", "step": step,
        "components": {name: digest for name, digest in named if digest is not None},
        "state_blake3": state, "previous_state_blake3": before, "files": (),
    }  # fmt: skip
    event.__setstate__(
        {
            "__dict__": fields,
            "__pydantic_fields_set__": _ROOT_FIELDS,
            "__pydantic_extra__": None,
            "__pydantic_private__": None,
        }
    )
    return event
