"""States of a float run that can be proven: one file of integers after every step, beside the run.

Spec: `specs/step-proof.md`, "Float training". Float steps cannot be computed again on another machine, so the states
that the points commit to are kept until the challenged steps are proven.

Shows: nothing; a state from here is believed only where its points are those of the transcript.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pot.canonical import read_file, write_file
from pot.recording.state import MAX_STATE_BYTES
from pot.zk.training import integer_safetensors, weights_from_integers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

__all__ = ["keep", "read_kept"]


def keep(folder: Path, number: int, state: Mapping[str, Ints]) -> None:
    """Write the state after step `number` (0: the start). Raises `EnvironmentFailure`."""
    write_file(_path(folder, number), integer_safetensors(state), mode=0o600)  # it says as much as the weights


def read_kept(folder: Path, number: int) -> dict[str, Ints]:
    """The state after step `number`. Raises `UsageError` where it was not kept, `Malformed`."""
    path = _path(folder, number)
    return weights_from_integers(read_file(path, limit=MAX_STATE_BYTES), what=str(path))


def _path(folder: Path, number: int) -> Path:
    return folder / f"state-{number:06d}.safetensors"
