"""Roots: the committed datasets are read again from the auditor's own files, and both of their roots recomputed.

Spec: `specs/transcript.md`, "Audit". The files are those that the program reads, matched by SHA-256.

Shows: the records behind a commitment's roots are those of the files at hand.
Does not show: that the program reads nothing else; nor anything of hidden commitments, which need their key.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pot.audit.replaying.replay import Replayer
from pot.canonical import MAX_DOCUMENT_BYTES, read_file
from pot.commitments.dataset import DatasetCommitment
from pot.errors import EnvironmentFailure, MissingExtra, PotError
from pot.recording.begin import COMMITMENTS_FOLDER
from pot.recording.precommit import Precommit

__all__ = ["recomputed"]


def recomputed(
    run_dir: Path, precommit: Precommit, replayer: Replayer, progress: Callable[[str, int, int], None] | None
) -> tuple[list[str], list[str]]:
    """Ids of the commitments whose both roots the auditor's own files give, and of those whose roots they do not."""
    from pot.data.commit import commit, how_read

    same: list[str] = []
    differ: list[str] = []
    for number, item in enumerate(precommit.data):
        if progress is not None:
            progress("recomputing roots", number, len(precommit.data))
        files = [file for file in precommit.program.data_files if file.dataset == item.name]
        files.sort(key=lambda file: int(file.shard or "0"))
        paths = [replayer.inputs[file.path] for file in files if file.path in replayer.inputs]
        document = _document(run_dir, item.name, item.commitment_sha256)
        if not paths or len(paths) != len(files) or document is None or document.hiding is not None:
            continue  # not recomputed (hidden ones need their key: pot audit data): neither the same nor different
        try:
            found = commit(paths, item.view, "training", **how_read(document)).commitment
        except MissingExtra:
            raise  # this machine lacks a reader: that says nothing about the data
        except (EnvironmentFailure, MemoryError):
            continue  # nor does a full disk
        except PotError:  # the committed files do not read as records of the committed view
            differ.append(item.commitment_sha256)
            continue
        roots = (found.records.count, found.records.root_blake3, found.set.root_blake3)
        agree = roots == (item.records, item.records_root_blake3, item.set_root_blake3)
        (same if agree else differ).append(item.commitment_sha256)
    return same, differ


def _document(run_dir: Path, name: str, sha256: str) -> DatasetCommitment | None:
    """The run's copy of a commitment, which says how the data was read; None where it is not the committed one."""
    path = run_dir / COMMITMENTS_FOLDER / f"{name}.json"
    try:
        document = DatasetCommitment.from_bytes(read_file(path, limit=MAX_DOCUMENT_BYTES), what=str(path))
    except PotError:  # absent, damaged, or of a name that no system has
        return None
    return document if document.sha256() == sha256 else None
