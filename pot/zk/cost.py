"""What proving a step takes, before it is done, and how many proofs fit this machine at once.

Shows: an estimate, by the model of `pot.zk.circuits.proof_cost`. Does not show: wall time; ezkl uses all cores for
parts of its work only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pot.zk.auto_cost import auto_cost
from pot.zk.auto_program import AutoProgram
from pot.zk.circuits.parts import Shape, make_parts
from pot.zk.circuits.proof_cost import Cost, total_cost
from pot.zk.engine import GIB, Limits

if TYPE_CHECKING:
    from pot.zk.kit import VerifyingKit
    from pot.zk.semantics.program import Program

__all__ = [
    "available_bytes",
    "cores",
    "kit_cost",
    "kit_rows",
    "limits_of",
    "proofs_at_once",
    "shape_cost",
]

_SHARE: Final = 0.8  # of free memory: what is free now is not free later
_PATIENCE: Final = 30.0  # wall seconds for a CPU-second, on a machine that others use too
_LEAST_SECONDS: Final = 300.0


def proofs_at_once(cost: Cost, jobs: int) -> int:
    """How many proofs to make at the same time here: one for each core, while memory lasts."""
    return max(1, min(jobs, cores(), int(_SHARE * available_bytes() / cost.bytes)))


def shape_cost(program: Program, shape: Shape) -> tuple[list[int], Cost]:
    """The rows that each part of a step takes, and the cost of the step. Raises `UsageError` where it does not fit."""
    parts = make_parts(program, shape).parts
    rows = [part.graph.rows(shape.columns) for part in parts]
    return rows, total_cost(shape.logrows, shape.columns, [len(part.inputs) for part in parts])


def kit_rows(kit: VerifyingKit) -> list[int]:
    """The rows that each part of a circuit takes, of its 2^k."""
    if isinstance(kit.step, AutoProgram):
        return [_auto_rows(kit)]
    return [part.graph.rows(kit.circuit.columns) for part in make_parts(kit.step, kit.circuit.shape).parts]


def kit_cost(kit: VerifyingKit) -> Cost:
    """The cost of a step under this circuit."""
    circuit = kit.circuit
    if isinstance(kit.step, AutoProgram):
        return auto_cost(circuit.logrows, circuit.columns, _auto_rows(kit))
    return total_cost(circuit.logrows, circuit.columns, [len(part.inputs) for part in circuit.parts])


def _auto_rows(kit: VerifyingKit) -> int:
    from pot.zk.auto_family import read_settings

    found: int = read_settings(kit.parts[0].settings)["num_rows"]
    return found


def limits_of(cost: Cost) -> Limits:
    """Limits within which a proof of this cost ends unless it hangs."""
    seconds = _LEAST_SECONDS + _PATIENCE * cost.seconds
    return Limits(
        wall_seconds=seconds, cpu_seconds=int(2 * seconds), memory_bytes=max(16 * GIB, 4 * cost.bytes),
        file_bytes=max(8 * GIB, 2 * cost.bytes),
    )  # fmt: skip


def cores() -> int:
    """CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that is free for new processes: the system's, or what a container's limit leaves of it.

    `root`: of the files of /proc and /sys. Where they do not say, 2 GiB.
    """
    found = _line(root / "proc/meminfo", "MemAvailable:")
    free = 2 * GIB if found is None else 1024 * found
    group = root / "sys/fs/cgroup"
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    if limit is not None and used is not None:
        cached = _line(group / "memory.stat", "inactive_file") or 0  # counted as used, and given back when needed
        free = min(free, max(limit - used + cached, 0))
    return free


def _line(path: Path, name: str) -> int | None:
    """The number behind a name in a file of such lines."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
        return next(int(words[1]) for words in lines if words[:1] == [name])
    except (OSError, ValueError, StopIteration, IndexError):
        return None


def _number(path: Path) -> int | None:
    """What a cgroup file says, None where there is none or it says `max`."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
