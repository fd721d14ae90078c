"""A view: a versioned projection of a record to the bytes, or to the keys, that are committed.

Spec: `specs/views/`, one file per view. What a claim like "X is not in the training data" means depends on the view:
its `sentence` says exactly what absence under it shows. A view never sees the container, so the same record gives the
same bytes wherever it was stored.

A plain view gives one byte string per record, `transform(content)`. A gram view gives many keys of 8 bytes per record,
made from pieces of it; two records are near duplicates where they share one. A packed view takes a shard as one
sequence.

Shows / does not show: nothing by itself; each view's sentence says what its absence shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pot.data.views.grams import GramKeys, Role, Stream, check_role
from pot.errors import UsageError

if TYPE_CHECKING:
    from pot.commitments.spans import Spans
    from pot.data.readers.record import Record

__all__ = ["View", "ViewName", "unchanged"]

ViewName = Literal[
    "text/1", "text-norm/1", "json/1", "tokens/1", "pixels/1", "file/1",
    "tiles50/1", "winnow50/1", "winnow50-tokens/1", "minhash/1",
]  # fmt: skip


def unchanged(spans: Spans) -> Spans:
    """The strings as they are."""
    return spans


@dataclass(frozen=True, slots=True)
class View:
    """A view's name, what it needs of a record, what its absence shows, and what it does.

    `needs`: "text", "tokens", "image", "object" or "bytes". `content`: what is taken from one record; raises
    `Malformed`, `UsageError`. `transform`: what is done to the contents of a batch; as many strings come back. Gram
    views have `grams` (batch by batch) or `shard_stream` (`packed`: a shard is one sequence).
    """

    name: ViewName
    needs: str
    sentence: str
    content: Callable[[Record], bytes]
    transform: Callable[[Spans], Spans] = unchanged
    grams: Callable[[Spans, Role, bytes | None], GramKeys] | None = None
    shard_stream: Callable[[Role, bytes | None], Stream] | None = None

    @property
    def gram(self) -> bool:
        """Whether a record has many keys instead of one digest."""
        return self.grams is not None or self.packed

    @property
    def packed(self) -> bool:
        """Whether a shard's records are one sequence, so that what is split over neighbours is seen."""
        return self.shard_stream is not None

    def stream(self, role: Role, key: bytes | None = None) -> Stream:
        """Takes one shard's transformed batches in order and gives each batch's keys; the batches make no difference.

        `key`: 32 bytes, the key of hidden leaves. Raises `UsageError` for a plain view and for the role "inclusion".
        """
        if self.shard_stream is not None:
            check_role(role, self.name)
            return self.shard_stream(role, key)
        grams = self.grams
        if grams is None:
            raise UsageError(f"view {self.name} gives a digest for each record, no keys of pieces")
        check_role(role, self.name)
        return lambda spans: grams(spans, role, key)

    def keys(self, spans: Spans, role: Role, key: bytes | None = None) -> GramKeys:
        """The keys of a whole shard at once (of any records, where the view is not packed). Raises as `stream`."""
        return self.stream(role, key)(spans)
