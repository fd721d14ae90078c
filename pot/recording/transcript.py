"""The transcript of a run: its events, one canonical JSON object a line, each bound to the line before it.

Spec: `specs/transcript.md`, "Transcript". Reading needs neither torch nor data; `pot.recording.checking` checks what
the events say together. The transcript's id is the SHA-256 of its bytes; its root is the RFC 9162 tree over its lines.

Shows: nothing by itself; these are the prover's words in a fixed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from blake3 import blake3
from pydantic import AfterValidator, BaseModel, StringConstraints

from pot.canonical import (
    MAX_LINE_BYTES,
    Count,
    Decimal,
    Document,
    Hex32,
    derive,
    parse_canonical,
    read_file,
    sha256_hex,
)
from pot.errors import LimitExceeded, Malformed, UsageError
from pot.recording.precommit import RelativePath

if TYPE_CHECKING:
    from pot.recording.checking.chain import ChainResult
    from pot.recording.precommit import Precommit

__all__ = [
    "BATCH_CONTEXT", "EVENT_CONTEXT", "MAX_REASON", "MAX_TRANSCRIPT_BYTES", "TRANSCRIPT_FILE", "ZERO_DIGEST",
    "CheckpointEvent", "EndEvent", "Event", "GapEvent", "Points", "ResumeEvent", "StartEvent", "StateFile", "StepEvent",
    "Transcript", "batch_digest", "check_chain", "load_transcript", "loss_text", "previous_digest", "read_transcript",
]  # fmt: skip

TRANSCRIPT_FILE: Final = "transcript.jsonl"
MAX_TRANSCRIPT_BYTES: Final = 256 << 20  # half a million steps; a reader that accepts more says so
ZERO_DIGEST: Final = "0" * 64
MAX_REASON: Final = 200  # characters of a gap's reason
BATCH_CONTEXT: Final = "pot/batch/v1"
EVENT_CONTEXT: Final = "pot/event/v1"
_MAX_COMPONENTS: Final = 16  # the format knows seven

Point = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{128}\z")]
"""A KZG commitment: a BN254 G1 point as the 64 bytes that stand in the proofs, hex."""

PointList = Annotated[str, StringConstraints(pattern=r"\A([0-9a-f]{128}){1,64}\z")]
"""The points of all vectors of a state or batch, one behind the other."""


class Points(Document):
    """KZG commitments of the state before a step, of its batch, and of the state after it (exact semantics)."""

    before: PointList
    batch: PointList
    after: PointList


class StateFile(BaseModel):
    """One file of a checkpoint, below the run directory."""

    model_config = Document.model_config

    path: RelativePath
    bytes: Count
    sha256: Hex32


def _printable(text: str) -> str:
    if not 1 <= len(text) <= MAX_REASON or not text.isprintable():  # it is shown in terminals and reports
        raise ValueError(f"must be 1 to {MAX_REASON} printable characters")
    return text


class _Line(Document):
    index: Count
    previous: Hex32


class StartEvent(_Line):
    """The first line: which pre-commitment, and the nonce that makes its seed."""

    type: Literal["start"]
    precommit_sha256: Hex32
    nonce: Hex32
    nonce_source: Literal["self", "verifier", "beacon"]


class CheckpointEvent(_Line):
    """The state after `step` steps: the digest of each component, and the state digest that binds them.

    A root only has no files: the state was hashed and not kept.
    """

    type: Literal["checkpoint"]
    step: Count
    components: dict[str, Hex32]
    state_blake3: Hex32
    previous_state_blake3: Hex32
    files: tuple[StateFile, ...]


class StepEvent(_Line):
    """One optimizer step: which records it took, and the loss that the loop reported."""

    type: Literal["step"]
    step: Count
    epoch: Count
    position: Count
    records: Count
    batch_blake3: Hex32
    loss: Decimal | None = None
    points: Points | None = None


class GapEvent(_Line):
    """Something that was due could not be kept: the files of the checkpoint that follows, of the same step."""

    type: Literal["gap"]
    step: Count
    missing: Literal["state"]
    reason: Annotated[str, AfterValidator(_printable)]


class ResumeEvent(_Line):
    """Training went on from the checkpoint in line `checkpoint_index`; `dropped_bytes` of a torn line were removed."""

    type: Literal["resume"]
    step: Count
    checkpoint_index: Count
    dropped_bytes: Count


class EndEvent(_Line):
    """The last line: the final state, and the digest of the model's tensors in it."""

    type: Literal["end"]
    step: Count
    state_blake3: Hex32
    model_blake3: Hex32


Event = StartEvent | CheckpointEvent | StepEvent | GapEvent | ResumeEvent | EndEvent

_TYPES: Final[dict[str, type[Event]]] = {
    "start": StartEvent,
    "checkpoint": CheckpointEvent,
    "step": StepEvent,
    "gap": GapEvent,
    "resume": ResumeEvent,
    "end": EndEvent,
}


@dataclass(frozen=True)
class Transcript:
    """A transcript as read: its bytes, its whole lines, and how many bytes of a torn last line were left out."""

    data: bytes = field(repr=False)
    lines: tuple[bytes, ...] = field(repr=False)
    events: tuple[Event, ...] = field(repr=False)
    torn_bytes: int = 0

    def sha256(self) -> str:
        """The transcript's id: SHA-256 over the bytes of the file."""
        return sha256_hex(self.data)

    def root(self) -> str:
        """RFC 9162 SHA-256 tree head over the lines, without their newlines."""
        from pot.commitments.hashing import SHA256
        from pot.commitments.merkle import merkle_root

        return merkle_root(self.lines, SHA256).hex()


_EVENT_HASHER: Final = blake3(derive_key_context=EVENT_CONTEXT)  # with the context hashed, once for all lines


def previous_digest(line: bytes) -> str:
    """What the next line's `previous` must be: the digest of this line's bytes, without the newline."""
    hasher = _EVENT_HASHER.copy()
    hasher.update(len(line).to_bytes(8, "little"))
    hasher.update(line)
    return hasher.hexdigest()


def batch_digest(records: Sequence[int]) -> str:
    """The digest of a batch's global record numbers, in order, each 8 bytes little endian."""
    return derive(BATCH_CONTEXT, b"".join(record.to_bytes(8, "little") for record in records)).hex()


def loss_text(loss: Any, step: int) -> str | None:
    """A loss (number or one-element tensor) as `Decimal`. Raises `UsageError` for NaN and infinity."""
    if loss is None:
        return None
    try:
        value = loss.item() if hasattr(loss, "item") else loss
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        number = float(value)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several elements
        raise UsageError(f"step {step}: the loss is a {type(loss).__name__}, not one number") from None
    if not math.isfinite(number):
        raise UsageError(f"step {step}: the loss is {number}; training has diverged, lower the learning rate")
    return repr(number).replace("e+", "e")


def read_transcript(data: bytes, cap: int = MAX_TRANSCRIPT_BYTES, *, what: str = TRANSCRIPT_FILE) -> Transcript:
    """Read a transcript's bytes; a last line without newline is left out and counted.

    Raises `LimitExceeded` over `cap` bytes, `Malformed` for a line that is not an event in canonical form.
    """
    from pot.recording.checking.common_lines import common_events

    if len(data) > cap:
        raise LimitExceeded(f"{what}: {len(data)} bytes, more than the limit of {cap}")
    lines = data.split(b"\n")
    torn = len(lines.pop())
    events = tuple(
        _event(lines[number], f"{what} line {number}") if event is None else event
        for number, event in enumerate(common_events(lines))
    )
    return Transcript(data, tuple(lines), events, torn)


def load_transcript(run_dir: Path, cap: int = MAX_TRANSCRIPT_BYTES) -> Transcript:
    """Read `transcript.jsonl` of a run directory. Raises as `read_transcript` and `pot.canonical.read_file` do."""
    path = run_dir / TRANSCRIPT_FILE
    return read_transcript(read_file(path, limit=cap), cap, what=str(path))


def _event(line: bytes, what: str) -> Event:
    value = parse_canonical(line, what=what, limit=MAX_LINE_BYTES)
    kind = value.get("type") if isinstance(value, dict) else None
    model = _TYPES.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise Malformed(f"{what}: not an event; type is one of {', '.join(_TYPES)}")
    event = model.from_value(value, what=what)
    if None in value.values():  # an explicit null would be a second spelling of the same event
        raise Malformed(f"{what}: fields that are absent must be left out, not written as null")
    if isinstance(event, CheckpointEvent) and len(event.components) > _MAX_COMPONENTS:
        raise LimitExceeded(f"{what}: {len(event.components)} components, more than the limit of {_MAX_COMPONENTS}")
    return event


def check_chain(transcript: Transcript, precommit: Precommit) -> ChainResult:
    """Check what the events say together; see `pot.recording.checking.chain.check_chain`."""
    from pot.recording.checking import chain

    return chain.check_chain(transcript, precommit)
