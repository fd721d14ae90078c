"""Committing to data: from files through a view to a dataset commitment and its listing.

Spec: `specs/commitments.md`, "Dataset commitment". On disk a commitment `C.json` has its listing beside it: `C.digests`
(32 bytes per record, in order) or, for gram views, `C.keys`. The listing stays with the data's owner; that of an
exclusion or inclusion set is published.

Memory does not grow with the data: at most 1.5 GB for the two roots of 10^9 records (`make bench-data`), and in each
process a batch (`pot.data.digest`). Finished shards are kept in a work folder, so that a commitment that was
interrupted goes on where it was.

Shows / does not show: see `pot.commitments.dataset`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

from pot.canonical import MAX_DOCUMENT_BYTES, read_file, write_file
from pot.commitments.batch import load_kernel as load_hashing
from pot.commitments.dataset import (
    GRAM_VIEWS,
    NEEDS,
    DatasetCommitment,
    Reading,
    Role,
    check_digests,
    commit_digests,
    usual_container,
)
from pot.commitments.hiding import HidingKey
from pot.commitments.listing import digests_of, set_keys_of
from pot.commitments.merkle_verify import ProofRefused
from pot.data.digest import Job, ShardResult, content_batches, digest_batches, digest_shard
from pot.data.readers import check_schemas, container_for, dataset_records, plain_for, shard_files
from pot.data.views import View, view_named
from pot.data.views import load_kernel as load_views
from pot.data.workfolder import WorkFolder, clear, take_listing
from pot.distribute import mapped
from pot.errors import EnvironmentFailure, Malformed, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Committed",
    "HowRead",
    "Progress",
    "commit",
    "commit_records",
    "how_read",
    "listing_path",
    "load_committed",
    "write_committed",
]

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all files)."""

_REPORT_EVERY: Final = 1 << 20  # bytes between two calls inside one shard
_WORTH_A_KERNEL: Final = 1 << 28  # bytes of data from which on hashing with it repays its start


@dataclass(frozen=True, slots=True, eq=False)
class Committed:
    """A commitment with the listing it was made from: bytes, or a uint8 array that may be memory-mapped.

    Two are equal where both parts are. `digests` and `keys` raise `ProofRefused` for a listing of another length.
    """

    commitment: DatasetCommitment
    listing: Any

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Committed):
            return NotImplemented
        return self.commitment == other.commitment and bytes(self.listing) == bytes(other.listing)

    def __hash__(self) -> int:
        return hash(self.commitment.sha256())

    @property
    def digests(self) -> NDArray[np.uint8]:
        """The record digests, uint8 of shape (records, 32)."""
        return digests_of(int(self.commitment.records.count), self.commitment.gram, self.listing)

    @property
    def keys(self) -> NDArray[np.uint64]:
        """The distinct set keys, ascending."""
        return set_keys_of(int(self.commitment.records.count), self.commitment.gram, self.listing)


def commit(
    paths: Sequence[Path],
    view: str,
    role: Role = "training",
    workers: int = 1,
    progress: Progress | None = None,
    *,
    container: str | None = None,
    fields: Mapping[str, str] | None = None,
    on_error: str = "stop",
    key: HidingKey | None = None,
    work: Path | None = None,
    ray: str | None = None,
) -> Committed:
    """Commit to the records of `paths` (files or folders, in this order) through `view`.

    `container`: how they are stored, None: by their names. `fields`: what the view needs -> the container's name for
    it. `on_error`: "stop", or "skip" what cannot be read and count it. `key`: hide the leaves under it. `work`: folder
    in which finished shards are kept until `write_committed`, to be taken up again; None: a temporary one. The result
    does not depend on `workers` (processes, one shard each at a time) or `ray` (a cluster's address; it must see the
    same paths). Raises `UsageError`, `Malformed`, `LimitExceeded`, `EnvironmentFailure`, `MissingExtra`.
    """
    chosen = view_named(view)
    _check_key(key, view)
    stored = container if container is not None else container_for(list(paths), chosen.needs)
    names = _checked_fields(chosen, fields)
    shards = shard_files(list(paths), stored)
    check_schemas(shards, stored, chosen.needs, names, on_error)
    jobs = [Job(name, path, stored, view, role, tuple(sorted(names.items())), on_error, key) for name, path in shards]
    with _folder(work) as folder, WorkFolder(folder, jobs) as kept:
        _digest_all(kept, workers, ray, _Meter(progress, shards))
        listing, results = kept.assemble(view in GRAM_VIEWS, keep=work is not None)
        if not len(listing):
            left = sum(result.skipped for result in results)
            why = f" that could be read ({left} were left out)" if left else ""
            raise UsageError(f"{paths[0]}: holds no record{why}; an empty commitment would say nothing")
    told = plain_for(usual_container([name for name, _ in shards]), chosen.needs)
    reading = _reading(None if stored == told else stored, names, results)
    return _committed(role, view, listing, results, reading, key)


def commit_records(
    dataset: Any,
    view: str,
    role: Role = "training",
    *,
    fields: Mapping[str, str] | None = None,
    key: HidingKey | None = None,
) -> Committed:
    """Commit to the records of a map-style dataset (`torch.utils.data.Dataset`, a list, ...), in index order.

    `fields`, `key`: as for `commit`. Such a commitment lists no shards: it can be tied to data only by whoever has the
    dataset. Raises `UsageError`, `Malformed`.
    """
    chosen = view_named(view)
    _check_key(key, view)
    names = _checked_fields(chosen, fields)
    reader = dataset_records(dataset, chosen.needs, names)
    numbers, rest = bytearray(), bytearray()
    records = view_bytes = 0
    for count, size, some_numbers, some in digest_batches(content_batches(reader, chosen), chosen, role, key):
        records, view_bytes = records + count, view_bytes + size
        numbers += some_numbers
        rest += some
    if not records:
        raise UsageError("the dataset holds no record; an empty commitment would say nothing")
    listing = bytes(numbers + rest)
    hiding = None if key is None else key.hiding
    reading = Reading.model_validate({"source": "dataset", **({"fields": names} if names else {})})
    document = commit_digests(role, view, listing, view_bytes, [], count=records, reading=reading, hiding=hiding)
    return Committed(document, listing)


class HowRead(TypedDict):
    """What `commit` and `open_shard` have to be told to read again what a commitment was made from."""

    container: str
    fields: dict[str, str]
    on_error: str


def how_read(commitment: DatasetCommitment) -> HowRead:
    """How a commitment says that its shards were read, whatever somebody's copies of them are called."""
    reading = commitment.reading or Reading()
    lenient = reading.skipped is not None or reading.cut is not None
    return {
        "container": plain_for(commitment.container, NEEDS.get(commitment.view, "object")),
        "fields": {str(name): source for name, source in (reading.fields or {}).items()},
        "on_error": "skip" if lenient else "stop",
    }


def listing_path(path: Path, commitment: DatasetCommitment) -> Path:
    """Where the listing of the commitment at `path` lies: `C.digests` or `C.keys` beside `C.json`."""
    return path.with_name(path.name.removesuffix(".json") + commitment.listing_suffix)


def write_committed(committed: Committed, out: Path, work: Path | None = None) -> None:
    """Write `out` and its listing, the listing first. Raises `EnvironmentFailure`.

    `work`: the work folder that it was made in; the listing is moved out of it, and what is ours in it removed.
    """
    target = listing_path(out, committed.commitment)
    if work is None:
        write_file(target, bytes(committed.listing))
    else:
        take_listing(work, target)
    write_file(out, committed.commitment.to_bytes())
    if work is not None:
        clear(work)


def load_committed(path: Path) -> Committed:
    """Read a commitment and its listing, and recompute both roots from the listing.

    Raises `UsageError`, `Malformed` (also where listing and commitment disagree), `EnvironmentFailure`.
    """
    commitment = DatasetCommitment.from_bytes(read_file(path, limit=MAX_DOCUMENT_BYTES), what=str(path))
    where = listing_path(path, commitment)
    listing = _map(where)
    try:
        check_digests(commitment, listing, limit=len(listing))
    except ProofRefused as error:
        raise Malformed(f"{where}: is not the digest list of {path.name}: {error}") from None
    return Committed(commitment, listing)


def _map(path: Path) -> Any:
    import numpy as np

    if path.is_symlink() or not path.is_file():
        read_file(path, limit=0)  # says what is wrong with it
    try:
        return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    except (OSError, ValueError) as error:
        raise EnvironmentFailure(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _checked_fields(view: View, fields: Mapping[str, str] | None) -> dict[str, str]:
    for name in fields or ():
        if name != view.needs or name == "object":  # an object is all of a record, under its own names
            raise UsageError(f"view {view.name} does not read {name[:64]!r}; it reads the record's {view.needs}")
    return dict(fields or {})


def _check_key(key: HidingKey | None, view: str) -> None:
    if key is not None and key.leaf_key is None and view in GRAM_VIEWS:
        raise UsageError(f"view {view} has many keys a record, an ecvrf key takes 0.2 ms for each; use a blake3 key")


def _committed(
    role: Role, view: str, listing: Any, results: list[ShardResult], reading: Reading | None, key: HidingKey | None
) -> Committed:
    commitment = commit_digests(
        role,
        view,
        listing,
        sum(result.view_bytes for result in results),
        [result.shard for result in results],
        reading=reading,
        hiding=None if key is None else key.hiding,
    )
    return Committed(commitment, listing)


def _reading(container: str | None, fields: dict[str, str], results: list[ShardResult]) -> Reading | None:
    skipped, cut = sum(result.skipped for result in results), sum(result.cut for result in results)
    value: dict[str, Any] = {} if container is None else {"container": container}
    if fields:
        value["fields"] = fields
    if skipped:
        value["skipped"] = str(skipped)
    if cut:
        value["cut"] = str(cut)
    return Reading.model_validate(value) if value else None


@contextmanager
def _folder(work: Path | None) -> Iterator[Path]:
    if work is not None:
        yield work
        return
    try:
        with tempfile.TemporaryDirectory(prefix="pot-commit-") as folder:
            yield Path(folder)
    except OSError as error:
        raise EnvironmentFailure(f"no temporary folder can be used: {error.strerror or error}") from None


def _digest_all(kept: WorkFolder, workers: int, ray: str | None, meter: _Meter) -> None:
    """Digest every shard that the work folder does not hold yet."""
    open_jobs = kept.open_jobs(in_memory=ray is not None)
    for job in kept.jobs:
        if job.name not in {other.name for other in open_jobs}:
            meter.finish(job.path.stat().st_size)
    alone = workers == 1 and ray is None
    function = partial(digest_shard, inside=meter.inside) if alone else digest_shard
    if workers > 1 and sum(job.path.stat().st_size for job in open_jobs) > _WORTH_A_KERNEL:
        load_hashing()  # compiled once, here, and not by every worker at the same time
        load_views()
    with mapped(function, open_jobs, workers=workers, ray=ray) as results:
        for job, result in zip(open_jobs, results, strict=True):
            kept.keep(job, result)
            meter.finish(int(result.shard.bytes))


class _Meter:
    """Turns bytes read into calls of a progress function; finished shards and the one being read count together."""

    def __init__(self, progress: Progress | None, shards: Sequence[tuple[str, Path]]) -> None:
        self._progress = progress
        self._total = sum(path.stat().st_size for _, path in shards) if progress is not None else 0
        self._finished = self._shown = 0

    def finish(self, size: int) -> None:
        self._finished += size
        self._show(self._finished)

    def inside(self, size: int) -> None:
        if self._finished + size - self._shown >= _REPORT_EVERY:
            self._show(self._finished + size)

    def _show(self, done: int) -> None:
        self._shown = done
        if self._progress is not None:
            self._progress(min(done, self._total), self._total)
