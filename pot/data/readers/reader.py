"""What every reader of a container is: records in order, the digests of the file, and what was left out.

Spec: `specs/containers.md`, "Reading". A subclass cuts its file into pieces (`_pieces`; a broken stream raises there)
and makes each piece a record (`_record`; a broken record raises there). That is the difference between a shard that is
cut and a record that is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pot.data.readers.record import Record, wanted_names
from pot.data.readers.source import Digests, Source
from pot.errors import EnvironmentFailure, Malformed, UsageError

if TYPE_CHECKING:
    from pot.commitments.spans import Spans

__all__ = ["ON_ERROR", "ShardReader"]

ON_ERROR = ("stop", "skip")


class ShardReader:
    """Reads one shard, once. After `records` or `spans` is exhausted, digests and `bytes_read` are those of the file.

    `skipped`: records left out under on_error "skip". `cut`: the shard was broken, and what follows the break was left
    out (counted as one). `path`, `container`: as given.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        path: Path,
        container: str,
        fields: Mapping[str, str] | None = None,
        on_error: str = "stop",
        needs: str = "object",
    ) -> None:
        """Raises `UsageError` for an unknown `on_error` or `needs`."""
        if on_error not in ON_ERROR:
            raise UsageError(f"on_error is {on_error[:64]!r}; stop and skip are possible")
        self.path = path
        self.container = container
        self.needs = needs
        self.skipped = 0
        self.cut = False
        self._wanted = wanted_names(needs, fields or {})
        self._skipping = on_error == "skip"
        self._digests = Digests()

    @property
    def bytes_read(self) -> int:
        """Bytes of the file that were read so far."""
        return self._digests.size

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the file's bytes."""
        return self._digests.sha256

    @property
    def blake3(self) -> str:
        """BLAKE3-256 (hex) of the file's bytes."""
        return self._digests.blake3

    def skip(self) -> None:
        """Count a record that was read but could not be used, such as one that the view refused."""
        self.skipped += 1

    def records(self) -> Iterator[Record]:
        """The records in order.

        Raises `Malformed` and `LimitExceeded` (on_error "stop"), `UsageError`, `EnvironmentFailure`, `MissingExtra`.
        """
        with self._opened() as source:
            for where, piece in self._until_cut(self._pieces(source)):
                try:
                    record = self._record(where, piece)
                except Malformed:
                    self._leave_out()
                    continue
                yield record
            source.finish()

    def spans(self, needs: str) -> Iterator[Spans] | None:
        """What a view needs of the records as spans, in batches of bounded size; None where there is no such way.

        Raises, when iterated, what `records` raises.
        """
        return None

    def schema(self) -> dict[str, str] | None:
        """The kind of each wanted column, for containers with a schema; None for the others."""
        return None

    def _pieces(self, source: Source) -> Iterator[tuple[str, Any]]:
        raise NotImplementedError

    def _record(self, where: str, piece: Any) -> Record:
        raise NotImplementedError

    def _leave_out(self, count: int = 1) -> None:
        """Count records that are left out; re-raise the current error under on_error "stop"."""
        if not self._skipping:
            raise
        self.skipped += count

    def _until_cut(self, pieces: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                piece = next(pieces)
            except StopIteration:
                return
            except Malformed:
                self._leave_out()
                self.cut = True
                return
            yield piece

    @contextmanager
    def _opened(self) -> Iterator[Source]:
        try:
            with Source(self.path, self._digests) as source:
                yield source
        except OSError as error:
            raise EnvironmentFailure(f"{self.path}: cannot be read: {error.strerror or error}") from None
