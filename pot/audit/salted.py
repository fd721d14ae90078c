"""Salted intermediate digests: what an auditor who replays a segment knows inside it, and one who copies does not.

Spec: `specs/transcript.md`, "Inner digests". In every segment that it replays an auditor takes the state's digests at
one step that no checkpoint publishes, keeps them with a salt, and signs only their commitment: the SHA-256 of the
document, inside its audit. Later the document is revealed, under that very digest. Which step follows from transcript
and segment alone, so two auditors meet wherever they replay the same segment.

Shows: two auditors whose documents agree computed the same inner states, or one of them told the other.
Does not show: that they are two people or two machines; that nothing was revealed before both had committed.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

from pot.canonical import Count, Document, Hex32, derive
from pot.commitments.state import COMPONENTS
from pot.errors import UsageError
from pot.recording.checking.chain import Segment

__all__ = [
    "MAX_INNER",
    "InnerDigests",
    "InnerState",
    "inner_step",
    "new_inner_digests",
    "shared_steps",
    "usable_digests",
]

MAX_INNER: Final = 20_000  # replayed segments; with up to 16 digests each the document stays under its cap


class InnerState(BaseModel):
    """The digests of a state's components after `step` steps."""

    model_config = Document.model_config

    step: Count
    components: dict[str, Hex32]


class InnerDigests(Document):
    """`pot/inner-digests/v1`. Private until it is revealed; `salt`: 32 random bytes, so that nobody can try states.

    `nonce`: that of the audit's challenge, so that a document belongs to one audit. `states`: ascending by step.
    """

    version: Literal["pot/inner-digests/v1"]
    transcript_sha256: Hex32
    nonce: Hex32
    salt: Hex32
    states: Annotated[tuple[InnerState, ...], Field(max_length=MAX_INNER)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        steps = [int(state.step) for state in self.states]
        if any(one >= other for one, other in pairwise(steps)):
            raise ValueError("states must be ascending by step, none twice")
        for state in self.states:
            if "model" not in state.components or not COMPONENTS.issuperset(state.components):
                raise ValueError(f"step {state.step} lacks the model's digest, or has an unknown component")
        return self

    def commitment(self) -> str:
        """What the audit signs: SHA-256 of the document's canonical bytes; hiding, for the salt is in it."""
        return self.sha256()


def inner_step(transcript_sha256: str, segment: Segment) -> int | None:
    """The step of a segment whose state is kept: inside it, at none of its published digests; None if it has none.

    Candidates are the steps first .. last - 1 without those of `segment.roots`, ascending; the one at place h mod n is
    taken, h = `derive("pot/inner-step/v1", transcript_sha256, index)` read big endian, index as 8 bytes little endian.
    """
    published = sorted({int(root.step) for root in segment.roots if segment.first <= int(root.step) < segment.last})
    count = segment.last - segment.first - len(published)
    if count < 1:
        return None
    key = derive("pot/inner-step/v1", bytes.fromhex(transcript_sha256), segment.index.to_bytes(8, "little"))
    step = segment.first + int.from_bytes(key, "big") % count
    for root in published:  # ascending: each published step before the place moves it on by one
        step += root <= step
    return step


def new_inner_digests(
    transcript_sha256: str, nonce: str, states: Mapping[int, Mapping[str, str]], *, salt: str | None = None
) -> InnerDigests:
    """The document of one audit. `states`: step -> digest of each component. `salt`: 64 hex digits, else fresh ones.

    Raises `UsageError` for more than `MAX_INNER` states, `Malformed` for digests that are none.
    """
    if len(states) > MAX_INNER:
        raise UsageError(f"inner digests: {len(states)} states, more than {MAX_INNER}; replay fewer segments at once")
    value = {
        "version": "pot/inner-digests/v1",
        "transcript_sha256": transcript_sha256,
        "nonce": nonce,
        "salt": salt if salt is not None else secrets.token_hex(32),
        "states": [{"step": str(step), "components": dict(states[step])} for step in sorted(states)],
    }
    return InnerDigests.from_value(value, what="inner digests")


def usable_digests(components: Mapping[str, str]) -> dict[str, str]:
    """The digests among what a program says of a state, of components that there are; none without the model's."""
    found = {
        name: text
        for name, text in components.items()
        if name in COMPONENTS and re.fullmatch("[0-9a-f]{64}", text, re.ASCII)
    }
    return found if "model" in found else {}


def shared_steps(one: InnerDigests, other: InnerDigests) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The steps that both documents have: those at which they agree, and those at which they differ."""
    theirs = {state.step: state.components for state in other.states}
    both = [state for state in one.states if state.step in theirs]
    same = tuple(int(state.step) for state in both if state.components == theirs[state.step])
    return same, tuple(int(state.step) for state in both if state.components != theirs[state.step])
