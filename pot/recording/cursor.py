"""The `cursor` component of a state: how far a run has come, so that equal weights at two places are two states.

Spec: `specs/transcript.md`, "Checkpoint".

Shows: nothing by itself.
"""

from __future__ import annotations

from pot.canonical import derive
from pot.commitments.state import JSON_CONTEXT

__all__ = ["cursor_digest", "cursor_value"]


def cursor_value(step: int, epoch: int, position: int) -> dict[str, str]:
    """The `cursor` component after `step` steps: epoch and position of the last batch's first record (0, 0 at 0)."""
    return {"epoch": str(epoch), "position": str(position), "step": str(step)}


def cursor_digest(step: int, epoch: str, position: str) -> str:
    """The digest of `cursor_value`, whose canonical form is written at once: there may be one for every step."""
    text = f'{{"epoch":"{epoch}","position":"{position}","step":"{step}"}}'
    return derive(JSON_CONTEXT, b"cursor", text.encode()).hex()
