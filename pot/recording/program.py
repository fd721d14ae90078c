"""What was started: the script, its arguments, the code it loaded and the files it reads, all below one folder.

The folder is the one that the program was started in. What lies elsewhere cannot be put back in its place by an
auditor: then the run is recorded without a program, and the reason is said on standard error.

Shows: which bytes of code and data the program had. Does not show: what installed packages did (see the environment).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pot.errors import EnvironmentFailure, UsageError
from pot.recording.precommit import InputFile, Program, ProgramFile

__all__ = ["describe_program", "file_sha256", "late_modules"]

_OURS: Final = frozenset({"pot", "attest", "verifier_api"})
_SCRIPT_LIMIT: Final = 1000  # code files of one program; more belong into an installed package


def describe_program(
    inputs: Sequence[Path], datasets: Mapping[str, tuple[str, int]], code: Iterable[Path] = ()
) -> tuple[Program, str | None]:
    """The program section of the pre-commitment, and why the run cannot be replayed (None: it can).

    `inputs`: files the program reads. `datasets`: SHA-256 of each committed shard -> its dataset and place. `code`:
    files that no module list shows. Raises `UsageError` for an input that is absent, `EnvironmentFailure`.
    """
    root = Path.cwd().resolve()
    reasons: list[str] = []
    data_files: dict[str, InputFile] = {}
    for path in inputs:
        for file in _walk(path):
            digest = file_sha256(file)
            place = _place(file, root)
            if place is None:
                reasons.append(f"{file} lies outside the folder that the program was started in")
                place = file.name
            if place in data_files and data_files[place].sha256 != digest:
                raise UsageError(
                    f"{file}: two inputs would have the path {place}; start the program in a folder above both"
                )
            dataset, shard = datasets.get(digest, (None, None))
            data_files[place] = InputFile(
                path=place,
                bytes=str(file.stat().st_size),
                sha256=digest,
                dataset=dataset,
                shard=None if shard is None else str(shard),
            )
    script = _script(root)
    if script is None:
        reasons.append("the program is not a script below the folder that it was started in")
    for argument in sys.argv[1:]:
        if Path(argument.rpartition("=")[2]).is_absolute():
            reasons.append(f"the argument {argument} is an absolute path")
    files = _code_files(root, script, code) if script is not None else []
    taken = {file.path for file in files}
    reads = tuple(file for place, file in sorted(data_files.items()) if place not in taken)
    if script is None or reasons:
        return Program(command=(), files=tuple(files), data_files=reads), reasons[0]
    return Program(command=(script, *sys.argv[1:]), files=tuple(files), data_files=reads), None


def late_modules(program: Program) -> list[str]:
    """Code files that were loaded after the program was described; a replay will not have them."""
    root = Path.cwd().resolve()
    known = {file.path for file in program.files}
    return sorted(place for place in _module_places(root) if place not in known) if program.command else []


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex. Raises `EnvironmentFailure`."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise EnvironmentFailure(f"{path}: cannot be read: {error.strerror or error}") from None


def _walk(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return [file for file in sorted(path.rglob("*")) if file.is_file() and not file.is_symlink()]
    raise UsageError(f"{path}: no such file; it was named as an input of the program")


def _place(path: Path, root: Path) -> str | None:
    """The path below `root` as the program spells it, symbolic links on the way not followed."""
    absolute = Path(os.path.normpath(root / path))
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) and absolute != root else None


def _script(root: Path) -> str | None:
    main: Any = sys.modules.get("__main__")
    name = getattr(main, "__file__", None)
    if name is None or name.startswith("<") or getattr(main, "__spec__", None) is not None:
        return None  # interactive, read from standard input, or python -m
    path = Path(os.path.normpath(root / name))
    return None if _installed(path) else _place(path, root)


def _installed(path: Path) -> bool:
    """Whether a file belongs to an environment rather than to the program."""
    return path.is_relative_to(sys.prefix) or path.is_relative_to(sys.base_prefix) or "site-packages" in path.parts


def _module_places(root: Path) -> list[str]:
    places = []
    for name, module in list(sys.modules.items()):
        source = getattr(module, "__file__", None)
        if name.partition(".")[0] in _OURS or not isinstance(source, str):
            continue
        path = Path(os.path.normpath(root / source))
        place = _place(path, root)
        if place is not None and not _installed(path) and path.is_file():
            places.append(place)
    return sorted(set(places))


def _code_files(root: Path, script: str, code: Iterable[Path]) -> list[ProgramFile]:
    places = {script, *_module_places(root)}
    for path in code:
        for file in _walk(path):
            place = _place(file, root)
            if place is None:
                raise UsageError(
                    f"{file}: code outside the folder that the program was started in cannot be committed to"
                )
            places.add(place)
    if len(places) > _SCRIPT_LIMIT:
        raise UsageError(
            f"the program has {len(places)} code files, more than {_SCRIPT_LIMIT}; install them as a package"
        )
    return [ProgramFile(path=place, sha256=file_sha256(root / place)) for place in sorted(places)]
