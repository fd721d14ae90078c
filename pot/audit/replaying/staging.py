"""Staging: the folder in which a replayed program finds what it was committed with, and nothing beside it.

    run/    pre-commitment, nonce, the start state written anew      work/   code and data at their recorded paths
    out/    what the program writes                                  home/, tmp/

Large files of data are not copied where the walls can show them read-only (`sandbox`): a copy would cost more than many
a segment.

Shows / does not show: see `pot.audit.replaying.replay`.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from pot.audit.replaying.generators import check_generators
from pot.audit.replaying.sandbox import isolation
from pot.canonical import canonical_bytes
from pot.commitments.state import FILELESS
from pot.errors import EnvironmentFailure, Refused, UsageError
from pot.recording import replaying
from pot.recording.begin import NONCE_FILE, PRECOMMIT_FILE
from pot.recording.precommit import Precommit, Program, SeedNonce, row_processes
from pot.recording.program import file_sha256
from pot.recording.state import (
    STATE_FILE,
    Component,
    check_size,
    checkpoint_name,
    digests,
    read_components,
    read_state_document,
    write_components,
)
from pot.recording.transcript import CheckpointEvent

__all__ = ["SHOWN_BYTES", "Staging", "files_by_digest", "program_inputs"]

SHOWN_BYTES: Final = 1 << 20
"""Files from this size on are shown instead of copied: showing one starts two programs."""


class Staging:
    """One replay's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shown: list[tuple[Path, Path]] = []
        """Files that the program is to find, read-only, at a place in `folder` that holds an empty file."""
        for name in ("run", "out", "work", "home", "tmp"):
            (folder / name).mkdir()

    def fill(
        self,
        run_dir: Path,
        precommit: Precommit,
        nonce: str,
        first: int,
        start: CheckpointEvent | None,
        sources: Mapping[str, Path],
        roots: Collection[int] = (),
    ) -> None:
        """Write pre-commitment and nonce, the state `start` after `first` steps, and the files of `sources`.

        `roots`: steps whose state's digests the program is asked for.

        Raises what `_copy_checkpoint` and `check_generators` raise for a start state that is not the committed one or
        holds more than generators, `EnvironmentFailure`.
        """
        run = self.folder / "run"
        (run / PRECOMMIT_FILE).write_bytes(precommit.to_bytes())
        document = {"version": "pot/seed-nonce/v1", "precommit_sha256": precommit.sha256(), "nonce": nonce}
        (run / NONCE_FILE).write_bytes(SeedNonce.from_value(document, what="nonce").to_bytes())
        if start is not None:
            (run / replaying.START_FOLDER).mkdir()
            # from step 0 the program regenerates its state; only its generators' state may be asked for
            _copy_checkpoint(
                run_dir, start, run / replaying.START_FOLDER, only_generators=first == 0,
                processes=row_processes(precommit),
            )  # fmt: skip
            check_generators(run / replaying.START_FOLDER / STATE_FILE, precommit)
            (run / "start.json").write_bytes(start.to_bytes())
        if roots:
            (run / replaying.ROOTS_FILE).write_bytes(canonical_bytes([str(step) for step in sorted(roots)]))
        for place, source in sources.items():
            self._put(source, self.folder / "work" / place)

    def _put(self, source: Path, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # the kernel's list of mounts, which the walls read, escapes white space and backslashes, and has fields
            plain = re.search(r"[\s\\:,]", str(target.relative_to(self.folder))) is None
            if plain and source.stat().st_size >= SHOWN_BYTES and isolation() == "full":
                target.touch()
                self.shown.append((source, target.relative_to(self.folder)))
            else:
                shutil.copyfile(source, target)
        except OSError as error:
            raise EnvironmentFailure(f"{target}: cannot be written: {error.strerror or error}") from None

    def variables(self, seen: Path) -> dict[str, str]:
        """Where the program finds things; `seen`: the place of this folder where the isolation is full."""
        import pot

        place = seen if isolation() == "full" else self.folder
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(place / "home"),
            "TMPDIR": str(place / "tmp"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(pot.__file__).resolve().parent.parent),
            replaying.RUN_VARIABLE: str(place / "run"),
            replaying.OUT_VARIABLE: str(place / "out"),
        }

    def out(self) -> Path | None:
        """The folder of what the program wrote; None where no folder lies in its place.

        A link there would lead the auditor, who sees what the program does not, to the committed answer.
        """
        path = self.folder / "out"
        try:
            return path if stat.S_ISDIR(os.lstat(path).st_mode) else None
        except OSError:
            return None


def _copy_checkpoint(
    run_dir: Path, event: CheckpointEvent, target: Path, *, only_generators: bool = False, processes: int = 1
) -> None:
    """Write a checkpoint anew from what its event's digests cover: names, tensors and values, and no byte beside them.

    `only_generators`: nothing but `state.json`. `processes`: among which tensors are cut by rows.

    Raises `Refused` where files and digests disagree, `Malformed`, `UsageError` for a file that is absent,
    `EnvironmentFailure`.
    """
    folder = run_dir / checkpoint_name(int(event.step))
    listed = {run_dir / file.path: file for file in event.files}
    for path, file in listed.items():
        check_size(path, file)
    for path in (folder / f"{name}.safetensors" for name in event.components):
        if path.exists() and path not in listed:  # it would be read in place of the committed JSON file
            raise Refused(f"{path}: not the committed file; the checkpoint has none of this name")
    document = read_state_document(folder / STATE_FILE)
    found: dict[str, Component] = {}
    if not only_generators:
        found = read_components(folder, sorted(set(event.components) - FILELESS), processes=processes)
    own = {"rng": document["rng"], "cursor": document["cursor"]}
    for name, digest in digests({**found, **own}, processes=processes).items():
        if event.components.get(name) != digest:
            raise Refused(f"{folder}: {name} has the digest {digest}, committed is {event.components.get(name)}")
    write_components(target, found, processes=processes)
    write_components(target, {"state": {"version": "pot/checkpoint/v1", "step": event.step, **own}})


def program_inputs(program: Program, data: Sequence[Path], code: Path) -> tuple[dict[str, Path], str | None]:
    """The auditor's file for each recorded path, matched by SHA-256, and why that is not all (None: it is).

    Raises `UsageError` for data that is not there, `EnvironmentFailure`.
    """
    sources: dict[str, Path] = {}
    if not program.command:
        return sources, "the run was recorded without a program that could be started again"
    held = files_by_digest(data)
    for item in program.files:
        path = code / item.path
        if not _is_file(path):
            return sources, f"the program's file {item.path} is not in {code}, which --code names"
        if file_sha256(path) != item.sha256:
            other = f"is not the committed one (SHA-256 {item.sha256})"
            return sources, f"the program's file {item.path} in {code}, which --code names, {other}"
        sources[item.path] = path
    for entry in program.data_files:
        own = held.get(entry.sha256)
        if own is None:
            return sources, f"no file of --data has the SHA-256 {entry.sha256}; the program reads it as {entry.path}"
        sources[entry.path] = own
    return sources, None


def files_by_digest(data: Sequence[Path]) -> dict[str, Path]:
    """The files given, and those in the folders given, by their SHA-256.

    Raises `UsageError` for one that is not there, `EnvironmentFailure`.
    """
    return {file_sha256(file): file for path in data for file in _files(path)}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no system has
        return False


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return [file for file in sorted(path.rglob("*")) if file.is_file() and not file.is_symlink()]
    raise UsageError(f"{path}: no such file or folder; it was given as data")
