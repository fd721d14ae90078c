"""From one shard to its listing: records through a view to digests, in batches of bounded size.

Spec: `specs/commitments.md`, "Listing". The same records give the same listing whatever the batches, the container or
the process.

Memory: `MAX_BATCH_BYTES` of content, a few times over while it is normalised and hashed, and the largest record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from pot.commitments.dataset import Role, Shard
from pot.commitments.hiding import HidingKey
from pot.commitments.spans import Spans
from pot.data.readers import Record, open_shard
from pot.data.views import View, view_named
from pot.errors import EnvironmentFailure, LimitExceeded, Malformed

__all__ = ["Job", "ShardResult", "Sink", "content_batches", "content_of", "digest_batches", "digest_shard"]

MAX_BATCH_BYTES: Final = 8 << 20
MAX_BATCH_RECORDS: Final = 1 << 16

Inside = Callable[[int], None]
"""Called with the bytes of the shard that were read so far."""


@dataclass(frozen=True, slots=True)
class Job:
    """One shard and how to read it. `folder`: where the listing is written, None: it comes back as bytes."""

    name: str
    path: Path
    container: str
    view: str
    role: Role
    fields: tuple[tuple[str, str], ...] = ()
    on_error: str = "stop"
    key: HidingKey | None = field(default=None, repr=False)
    folder: Path | None = None

    @property
    def stem(self) -> Path | None:
        """Where the shard's two files are written, without their endings."""
        from pot.canonical import sha256_hex

        return None if self.folder is None else self.folder / sha256_hex(self.name.encode())[:32]


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What a shard gave: its entry, lengths and counts. `listing`: (numbers, rest) where no folder was named."""

    shard: Shard
    view_bytes: int
    skipped: int
    cut: bool
    listing: tuple[bytes, bytes] | None = None

    def to_json(self) -> bytes:
        """Without the listing."""
        return json.dumps({**asdict(self), "shard": self.shard.model_dump(), "listing": None}).encode()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ShardResult:
        """Read what `to_json` wrote."""
        return cls(Shard.model_validate(value["shard"]), value["view_bytes"], value["skipped"], value["cut"])


class Sink:
    """Where a shard's listing goes: numbers of keys (gram views only) and digests or keys; files or memory."""

    def __init__(self, stem: Path | None) -> None:
        self._parts: tuple[list[bytes], list[bytes]] = ([], [])
        self._files: tuple[BinaryIO, ...] = ()
        if stem is not None:
            self._files = (open(f"{stem}.numbers", "wb"), open(f"{stem}.list", "wb"))  # noqa: SIM115 - closed by `close`

    def write(self, numbers: bytes, rest: bytes) -> None:
        """Append the listing of a batch."""
        for place, data in enumerate((numbers, rest)):
            if self._files:
                self._files[place].write(data)
            else:
                self._parts[place].append(data)

    def close(self) -> tuple[bytes, bytes] | None:
        """Close the files, or return what was gathered."""
        for stream in self._files:
            stream.flush()
            os.fsync(stream.fileno())
            stream.close()
        return None if self._files else (b"".join(self._parts[0]), b"".join(self._parts[1]))


def digest_shard(job: Job, inside: Inside | None = None) -> ShardResult:
    """Read one shard and write its listing. Raises `Malformed`, `LimitExceeded`, `UsageError`, `EnvironmentFailure`."""
    view = view_named(job.view)
    reader = open_shard(job.path, job.container, dict(job.fields), job.on_error, needs=view.needs)
    records = view_bytes = 0
    try:
        sink = Sink(job.stem)
        batches = content_batches(reader, view, job.on_error)
        for count, size, numbers, rest in digest_batches(batches, view, job.role, job.key):
            records += count
            view_bytes += size
            sink.write(numbers, rest)
            if inside is not None:
                inside(reader.bytes_read)
        listing = sink.close()
    except OSError as error:
        where = job.folder if job.folder is not None else "memory"
        reason = error.strerror or error
        raise EnvironmentFailure(f"{where}: the digests of {job.path} cannot be written: {reason}") from None
    shard = Shard(
        name=job.name,
        bytes=str(reader.bytes_read),
        records=str(records),
        sha256=reader.sha256,
        blake3=reader.blake3,
    )
    return ShardResult(shard, view_bytes, reader.skipped, reader.cut, listing)


def content_batches(reader: Any, view: View, on_error: str = "stop") -> Iterator[Spans]:
    """What the view needs of the reader's records, as spans; columnar containers hand them over without a copy."""
    ready = reader.spans(view.needs)
    if ready is not None:
        yield from ready
        return
    contents: list[bytes] = []
    size = 0
    for record in reader.records():
        content = content_of(view, record, reader, on_error)
        if content is None:
            continue
        contents.append(content)
        size += len(content)
        if size >= MAX_BATCH_BYTES or len(contents) >= MAX_BATCH_RECORDS:
            yield Spans.of(contents)
            contents, size = [], 0
    if contents:
        yield Spans.of(contents)


def content_of(view: View, record: Record, reader: Any, on_error: str) -> bytes | None:
    """What a view takes of a record; None for one that is left out, which the reader counts. Raises `Malformed`."""
    try:
        return view.content(record)
    except LimitExceeded:
        raise
    except Malformed:
        if on_error != "skip":
            raise
        reader.skip()
        return None


def digest_batches(
    batches: Iterator[Spans], view: View, role: Role, key: HidingKey | None
) -> Iterator[tuple[int, int, bytes, bytes]]:
    """For each batch: records, bytes of their views, numbers of keys (u32 each, gram views), digests or keys."""
    from pot.commitments.batch import hash_spans

    leaf_key = None if key is None else key.leaf_key
    if not view.gram:
        for spans in batches:
            viewed = view.transform(spans)
            digests = hash_spans(viewed, leaf_key)
            if key is not None and leaf_key is None:
                digests = key.blind(digests)
            yield len(viewed), viewed.size, b"", digests.tobytes()
        return
    stream = view.stream(role, leaf_key)
    for spans in batches:
        counts, keys = stream(view.transform(spans))
        yield len(counts), 8 * len(keys), counts.astype("<u4").tobytes(), keys.astype(">u8").tobytes()
