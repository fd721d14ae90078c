"""What the processes of a distributed run compare before it begins, and a replay's with what was committed.

Shows / does not show: nothing; the pre-commitment names the first process's configuration and environment.
"""

from __future__ import annotations

from pydantic import JsonValue

from pot.canonical import canonical_bytes, parse
from pot.errors import Refused
from pot.recording import replaying
from pot.recording.config import first_difference
from pot.recording.environment import capture, differences
from pot.recording.precommit import Precommit
from pot.recording.ranks import Ranks

__all__ = ["check_layout", "differing_processes", "introduction"]


def introduction(config: dict[str, JsonValue], ranks: Ranks) -> bytes:
    """What this process is about to do, for the first to compare with its own; nothing where it is alone."""
    return canonical_bytes({"config": config, "environment": capture()}) if ranks.world > 1 else b""


def differing_processes(heard: list[bytes]) -> list[str]:
    """Sentences about processes in another environment. Raises `Refused` for one with another configuration."""
    if len(heard) == 1:
        return []
    first, *others = [parse(data, what="a process of this run") for data in heard]
    found = []
    for rank, other in enumerate(others, 1):
        difference = first_difference(first["config"], other["config"])
        if difference is not None:
            raise Refused(f"begin: process {rank} has another configuration than process 0: {difference}")
        unlike = differences(first["environment"], other["environment"])
        if unlike:
            found.append(f"process {rank} has another environment than process 0, which may change bits: {unlike[0]}")
    return found


def check_layout(replay: replaying.ReplayRange, precommit: Precommit, ranks: Ranks) -> None:
    """Stop a replay by another number of processes than the committed one. Raises `Refused`."""
    committed = int(precommit.layout.processes) if precommit.layout is not None else 1
    if ranks.world != committed:
        replaying.disagree(replay, f"the program trains with {ranks.world} processes, committed are {committed}")
