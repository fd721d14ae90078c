"""The committed states that still lie in a run directory, as tensors, and how far a replayed state is from them.

Spec: `specs/transcript.md`, "Tolerance". Shows / does not show: see `pot.audit.replaying.replay`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pot.audit.replaying.tolerance import relative_distance
from pot.commitments.sharded import join_entries
from pot.commitments.state import TensorEntry, entries_from_safetensors
from pot.errors import Malformed, PotError
from pot.recording.state import check_files, read_state_file
from pot.recording.transcript import CheckpointEvent
from pot.recording.writing.file_names import component_files

__all__ = ["committed_tensors", "distance_or_none"]


def committed_tensors(run_dir: Path, event: CheckpointEvent, component: str) -> list[TensorEntry] | None:
    """The committed tensors of a checkpoint's component, checked; None where it has no such file any more."""
    files = component_files(event.files, component)
    try:
        if not files:
            return None
        check_files(run_dir, files)
        parts = [entries_from_safetensors(read_state_file(run_dir / file.path), what=file.path) for file in files]
        return parts[0] if len(parts) == 1 else join_entries(parts)
    except PotError:  # lost since: what it held cannot be compared
        return None


def distance_or_none(
    start: Sequence[TensorEntry], claimed: Sequence[TensorEntry], replayed: Sequence[TensorEntry] | None
) -> float | None:
    """`relative_distance`; None where nothing was replayed, or the elements have no distances."""
    try:
        return None if replayed is None else relative_distance(start, claimed, replayed)
    except Malformed:  # element types without numbers
        return None
