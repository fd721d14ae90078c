"""The records that hints are about, read by number from the auditor's own files.

`RunRecords` finds the records of a run's steps: the order follows from the seed, the files are matched by SHA-256 with
those of the pre-commitment. `Pool` is a set of records that the run did not commit to. Which of them are compared is
drawn by `draw`, from the transcript and a nonce that is made after it.

Spec: `specs/hints.md`, "Records". Shows: records that are read are those of the files that the run committed to.
Does not show: that training read these files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pot.audit.replaying.staging import files_by_digest
from pot.canonical import MAX_DOCUMENT_BYTES, derive, read_file
from pot.commitments.dataset import NEEDS, DatasetCommitment
from pot.commitments.order import Permutation, batch_records, epoch_permutation
from pot.commitments.seed import run_seed
from pot.errors import UsageError
from pot.recording.begin import COMMITMENTS_FOLDER
from pot.recording.precommit import Precommit, total_records
from pot.recording.transcript import StartEvent, Transcript

__all__ = ["Pool", "RunRecords", "draw"]

DRAW_CONTEXT: Final = "pot/hint-draw/v1"


def draw(transcript_sha256: str, nonce: str, label: str, size: int, count: int) -> list[int]:
    """`count` different numbers below `size` (all, where there are fewer), fixed by transcript, nonce and label."""
    key = derive(DRAW_CONTEXT, bytes.fromhex(transcript_sha256), bytes.fromhex(nonce), label.encode())
    return Permutation(key, size).slice(0, min(size, count)) if size else []


class RunRecords:
    """A run's records by global number, and by the steps that took them."""

    def __init__(self, run_dir: Path, precommit: Precommit, transcript: Transcript, data: Sequence[Path]) -> None:
        """`data`: files or folders with what the program reads. Raises `UsageError` for what cannot be asked of a run.

        That is a run whose records have no order, more than one view, or none in files that were given.
        """
        start = transcript.events[0]
        if precommit.order.method != "feistel/1" or not isinstance(start, StartEvent):
            raise UsageError(f"{run_dir}: the run took its records as they came; there is no telling which those were")
        views = {item.view for item in precommit.data}
        if len(views) != 1:
            raise UsageError(f"{run_dir}: the run's datasets are seen through {len(views)} views; one can be compared")
        self.view = views.pop()
        self.size = total_records(precommit)
        self.batch = int(precommit.order.batch)
        self._seed = run_seed(precommit.sha256(), bytes.fromhex(start.nonce))
        held = files_by_digest(data)
        self._parts = [_Part.of(run_dir, precommit, number, held) for number in range(len(precommit.data))]

    def step(self, step: int) -> list[int]:
        """The numbers of the records that the order gives to a step (from 1)."""
        return batch_records(self._seed, self.size, self.batch, step)[2]

    def unseen(self, last: int) -> tuple[int, int]:
        """How many records no step up to `last` had taken, and the place of the first of them in the first epoch."""
        taken = min(self.size, last * self.batch) if last <= self.size // self.batch else self.size
        return self.size - taken, taken

    def at(self, position: int) -> int:
        """The record at a place of the first epoch's order."""
        return epoch_permutation(self._seed, self.size, 0).at(position)

    def read(self, wanted: Collection[int]) -> dict[int, Any]:
        """The records with these numbers: the record's fields, or the bytes of a plain file. One pass over the files.

        Raises `UsageError` where the files hold fewer, `Malformed`, `LimitExceeded`, `EnvironmentFailure`.
        """
        found: dict[int, Any] = {}
        first = 0
        for part in self._parts:
            inside = {number - first for number in wanted if first <= number < first + part.count}
            found.update((first + number, value) for number, value in part.read(inside))
            first += part.count
        return found

    def digests(self) -> set[bytes]:
        """The digest of every record, under no key, made again from the files."""
        return {digest for part in self._parts for digest in part.digests()}


class _Part:
    """One dataset of the run: its files in order and how they are read."""

    def __init__(self, name: str, view: str, count: int, files: list[Path], how: dict[str, Any]) -> None:
        self.count = count
        self._name, self._view, self._files, self._how = name, view, files, how

    @classmethod
    def of(cls, run_dir: Path, precommit: Precommit, number: int, held: dict[str, Path]) -> _Part:
        from pot.data.commit import how_read

        item = precommit.data[number]
        path = run_dir / COMMITMENTS_FOLDER / f"{item.name}.json"
        document = DatasetCommitment.from_bytes(read_file(path, limit=MAX_DOCUMENT_BYTES), what=str(path))
        if document.sha256() != item.commitment_sha256:
            raise UsageError(
                f"{path}: not the commitment that the run names, which has SHA-256 {item.commitment_sha256}"
            )
        files = [file for file in precommit.program.data_files if file.dataset == item.name]
        files.sort(key=lambda file: int(file.shard or "0"))
        missing = next((file for file in files if file.sha256 not in held), None)
        if not files or missing is not None:
            told = f"with SHA-256 {missing.sha256} ({missing.path})" if missing is not None else "at all"
            raise UsageError(f"dataset {item.name}: no file {told} was given; give what the program read as --data")
        return cls(
            item.name, item.view, int(item.records), [held[file.sha256] for file in files], {**how_read(document)}
        )

    def read(self, wanted: set[int]) -> Iterator[tuple[int, Any]]:
        yield from _pick(self._files, self._view, self._how, wanted, f"dataset {self._name}")

    def digests(self) -> Iterator[bytes]:
        from pot.data.commit import commit

        for row in commit(self._files, self._view, "training", **self._how).digests:
            yield row.tobytes()


class Pool:
    """Records beside the run's: a held-out pool, or suspected ones. Committed to once, read by number."""

    def __init__(self, paths: Sequence[Path], view: str) -> None:
        """Commit to the records of `paths` through `view`. Raises as `pot.data.commit.commit` does."""
        from pot.data.commit import commit, how_read
        from pot.data.readers import shard_files

        committed = commit(paths, view, "training")
        self.view = view
        self.count = int(committed.commitment.records.count)
        self.root = committed.commitment.records.root_blake3
        self.digests = [row.tobytes() for row in committed.digests]
        how = how_read(committed.commitment)
        self._how: dict[str, Any] = {**how}
        self._files = [file for _, file in shard_files(list(paths), how["container"])]

    def without(self, known: Collection[bytes]) -> list[int]:
        """The numbers of the records whose digests are not among `known`, each content once."""
        seen = set(known)
        kept = []
        for number, digest in enumerate(self.digests):
            if digest not in seen:
                seen.add(digest)
                kept.append(number)
        return kept

    def read(self, wanted: Collection[int]) -> dict[int, Any]:
        """The records with these numbers (from 0). Raises as `RunRecords.read` does."""
        return dict(_pick(self._files, self.view, self._how, set(wanted), "the pool"))


def _pick(
    files: Sequence[Path], view: str, how: dict[str, Any], wanted: set[int], what: str
) -> Iterator[tuple[int, Any]]:
    """(number, record) of the wanted records, read as the commitment's own records were."""
    from pot.data.digest import content_of
    from pot.data.readers import open_shard
    from pot.data.views import view_named

    number, left, seen = 0, len(wanted), view_named(view)
    for path in files if left else ():
        reader = open_shard(path, how["container"], how["fields"], how["on_error"], NEEDS.get(view, "object"))
        for record in reader.records():
            if content_of(seen, record, reader, how["on_error"]) is None:
                continue
            if number in wanted:
                yield number, record.data if record.value is None else record.value
                left -= 1
                if not left:
                    return
            number += 1
    if left:
        raise UsageError(f"{what}: the files hold {number} records, fewer than were committed to")
