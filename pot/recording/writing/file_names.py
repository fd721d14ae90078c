"""The names of a checkpoint's files: one for each component, or one for each process that holds rows of it.

Spec: `specs/transcript.md`, "Checkpoints". Shows / does not show: nothing; names are compared with a transcript's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from pot.commitments.sharded import ROWED
from pot.commitments.state import FILELESS
from pot.recording.transcript import StateFile

__all__ = ["STATE_FILE", "checkpoint_files", "checkpoint_name", "component_files", "file_count", "shard_name"]

STATE_FILE: Final = "state.json"


def checkpoint_name(step: int) -> str:
    """The folder of a checkpoint below the run directory."""
    return f"checkpoints/step-{step:06d}"


def shard_name(component: str, rank: int, processes: int) -> str:
    """The file of what one process holds of a component that is cut by rows."""
    return f"{component}-{rank:05d}-of-{processes:05d}.safetensors"


def checkpoint_files(step: int, components: Collection[str], *, processes: int = 1) -> list[frozenset[str]]:
    """For each file that a checkpoint of these components has, sorted: the paths that it may have, tensors or JSON.

    `processes`: among which tensors are cut by rows.
    """
    folder = checkpoint_name(step)
    names = [frozenset({f"{folder}/{STATE_FILE}"})]
    for name in set(components) - FILELESS:
        if processes > 1 and name in ROWED:
            names += [frozenset({f"{folder}/{shard_name(name, rank, processes)}"}) for rank in range(processes)]
        else:
            names.append(frozenset({f"{folder}/{name}.json", f"{folder}/{name}.safetensors"}))
    return sorted(names, key=min)


def file_count(components: Collection[str], *, processes: int = 1) -> int:
    """How many files `checkpoint_files` names, without making their names."""
    own = set(components) - FILELESS
    return 1 + len(own) + (processes - 1) * len(own & ROWED)


def component_files(files: Iterable[StateFile], component: str) -> list[StateFile]:
    """The files of a component's tensors, of a checkpoint whose names have been checked, in order of the processes."""
    pattern = re.compile(rf"(?:.*/)?{re.escape(component)}(-[0-9]{{5}}-of-[0-9]{{5}})?\.safetensors", re.DOTALL)
    return sorted((file for file in files if pattern.fullmatch(file.path)), key=lambda file: file.path)
