"""The dataset commitment: one small document that fixes a dataset's records in order and as a set.

Spec: `specs/commitments.md`, "Dataset commitment". Two roots over the same record digests: the ordered tree (which
record stands at which index; what the data order and batches refer to) and the set tree (what is not in it).

Shows: whoever holds the digests can recompute both roots and counts; nobody can change a record unnoticed.
Does not show: to somebody without the digests, that the two roots cover the same records. `check_digests` is that tie,
run by everybody for an exclusion set and by auditors for training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from pot.canonical import Count, Document, Hex32
from pot.commitments.hashing import DIGEST_BYTES
from pot.commitments.hiding import Hiding
from pot.commitments.listing import COUNT_BYTES, roots_of, split_digests
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree_verify import MAX_COUNT, depth_for
from pot.errors import LimitExceeded, UsageError

__all__ = [
    "CONTAINER_SUFFIXES",
    "GRAM_VIEWS",
    "MAX_DIGESTS_BYTES",
    "NEEDS",
    "DatasetCommitment",
    "Reading",
    "RecordsRoot",
    "Role",
    "SetRoot",
    "Shard",
    "check_digests",
    "commit_digests",
    "listing_suffix",
    "split_digests",
    "usual_container",
]

MAX_DIGESTS_BYTES: Final = 1 << 28  # 8.4 million records of an X from outside: about 1 GB of memory while hashing

GRAM_VIEWS: Final = frozenset({"tiles50/1", "winnow50/1", "winnow50-tokens/1", "minhash/1"})
"""Views under which a record has many set keys; their listing holds these keys (`pot.commitments.listing`)."""

NEEDS: Final[dict[str, str]] = {
    "text/1": "text", "text-norm/1": "text", "tiles50/1": "text", "winnow50/1": "text", "minhash/1": "text",
    "tokens/1": "tokens", "winnow50-tokens/1": "tokens", "pixels/1": "image", "json/1": "object", "file/1": "bytes",
}  # fmt: skip
"""What each view needs of a record; the same as `pot.data.views.VIEWS` says, for readers that do not import views."""

CONTAINER_SUFFIXES: Final[dict[str, tuple[str, ...]]] = {
    "jsonl": (".jsonl",),
    "jsonl.zst": (".jsonl.zst",),
    "parquet": (".parquet",),
    "arrow": (".arrow", ".feather"),
    "webdataset": (".tar",),
    "images": (".png", ".bmp", ".ppm", ".pgm"),
}
"""The containers that a file's name tells; every other name is that of a plain file."""

Role = Literal["training", "exclusion", "inclusion"]
ViewName = Field(pattern=r"\A[a-z0-9-]{1,32}/[1-9][0-9]{0,3}\z")
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class RecordsRoot(BaseModel):
    """The ordered tree: records, the bytes of their views together, the root over their digests in order."""

    model_config = Document.model_config

    count: Count
    bytes: Count
    root_blake3: Hex32


class SetRoot(BaseModel):
    """The set tree: distinct keys, depth, root."""

    model_config = Document.model_config

    count: Count
    depth: Count
    root_blake3: Hex32


class Shard(BaseModel):
    """One file that records were read from, in reading order."""

    model_config = Document.model_config

    name: str = Field(min_length=1, max_length=512)
    bytes: Count
    records: Count
    sha256: Hex32
    blake3: Hex32


class Reading(BaseModel):
    """How records were read, where that was not the usual way.

    `container`: where it is another than the files' names say. `fields`: what a view needs -> the container's own name
    for it. `skipped`: records left out because they could not be read; `cut`: shards whose rest could not be read.
    `source` "dataset": from a program's own map-style data set, so there are no shards.
    """

    model_config = Document.model_config

    source: Literal["dataset"] | None = None
    container: Annotated[str, StringConstraints(pattern=r"\A[a-z0-9.]{1,32}\z")] | None = None
    fields: dict[Literal["text", "tokens", "image", "bytes"], FieldName] | None = None
    skipped: Count | None = None
    cut: Count | None = None


class DatasetCommitment(Document):
    """Version "pot/dataset-commitment/v1". Its id is `sha256()`, over its canonical bytes."""

    version: Literal["pot/dataset-commitment/v1"]
    role: Role
    view: str = ViewName
    records: RecordsRoot
    set: SetRoot
    shards: list[Shard]
    reading: Reading | None = None
    hiding: Hiding | None = None

    @property
    def gram(self) -> bool:
        """Whether a record has many set keys."""
        return self.view in GRAM_VIEWS

    @property
    def container(self) -> str:
        """How the shards were read: what `reading` says, or else what their names say; plain files are "file"."""
        if self.reading is not None and self.reading.source is not None:
            return self.reading.source
        if self.reading is not None and self.reading.container is not None:
            return self.reading.container
        return usual_container([shard.name for shard in self.shards])

    @property
    def source_field(self) -> str:
        """What the container calls the field that the view needs; "object" for a view of whole records."""
        need = NEEDS.get(self.view, "object")
        fields: dict[Any, str] = dict(self.reading.fields or {}) if self.reading is not None else {}
        return fields.get(need, need)

    @property
    def listing_suffix(self) -> str:
        """The ending of the listing's file."""
        return listing_suffix(self.view)

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        count, distinct = int(self.records.count), int(self.set.count)
        if count > MAX_COUNT:
            raise ValueError(f"more than {MAX_COUNT} records")
        if not self.gram and (distinct > count or (distinct == 0) != (count == 0)):
            raise ValueError(f"{distinct} distinct keys do not fit {count} records")
        if int(self.set.depth) != depth_for(distinct):
            raise ValueError(f"set depth {self.set.depth} does not belong to {distinct} distinct keys")
        if self.reading is not None and self.reading.source == "dataset":
            if self.shards:
                raise ValueError("records of a program's own data set come from no shards")
        elif sum(int(shard.records) for shard in self.shards) != count:
            raise ValueError(f"the shards' records do not add up to {count}")
        if len({shard.name for shard in self.shards}) != len(self.shards):
            raise ValueError("two shards have the same name")
        if self.reading is not None and self.reading == Reading():
            raise ValueError("reading: says nothing; leave it out")
        return self


def listing_suffix(view: str) -> str:
    """The ending of a listing's file under a view: ".keys" for gram views, ".digests" for all others."""
    return ".keys" if view in GRAM_VIEWS else ".digests"


def usual_container(names: Sequence[str]) -> str:
    """The container that the names of shards tell, if all tell the same; else "file"."""
    for container, suffixes in CONTAINER_SUFFIXES.items():
        if names and all(name.lower().endswith(suffixes) for name in names):
            return container
    return "file"


def commit_digests(
    role: Role,
    view: str,
    digests: Any,
    view_bytes: int,
    shards: Sequence[Shard],
    *,
    count: int | None = None,
    reading: Reading | None = None,
    hiding: Hiding | None = None,
) -> DatasetCommitment:
    """Commit to records by their listing. `view_bytes`: length of all views together.

    `digests`: the listing, bytes or a uint8 array: 32 bytes per record, or for gram views `count` numbers and all keys.
    Raises `UsageError` for no records, no keys, a partial digest, or shards that do not add up.
    """
    gram = view in GRAM_VIEWS
    number = count if count is not None else sum(int(shard.records) for shard in shards) if gram else None
    number = len(digests) // DIGEST_BYTES if number is None else number
    if not number:
        raise UsageError("dataset commitment: there is no record to commit to")
    if gram and len(digests) == COUNT_BYTES * number:
        raise UsageError(f"dataset commitment: none of the {number} records is long enough for the view {view}")
    try:
        roots = roots_of(number, gram, digests)
    except ProofRefused as error:
        raise UsageError(f"dataset commitment: {error}") from None
    value: dict[str, Any] = {
        "version": "pot/dataset-commitment/v1",
        "role": role,
        "view": view,
        "records": {"count": str(number), "bytes": str(view_bytes), "root_blake3": roots.records_root},
        "set": {"count": str(roots.distinct), "depth": str(roots.depth), "root_blake3": roots.set_root},
        "shards": [shard.model_dump() for shard in shards],
    }
    for name, part in (("reading", reading), ("hiding", hiding)):
        if part is not None:
            value[name] = part.model_dump(exclude_none=True)
    return DatasetCommitment.from_value(value, what="dataset commitment")


def check_digests(commitment: DatasetCommitment, digests: Any, limit: int = MAX_DIGESTS_BYTES) -> None:
    """Refuse unless the listing `digests` gives both of the commitment's roots and all counts.

    `limit` in bytes guards against lists from outside; raise it only for one's own data. Raises `ProofRefused` with
    the code "digests-length", "digests-records" or "digests-set"; `LimitExceeded` above `limit`.
    """
    count = int(commitment.records.count)
    if len(digests) > limit and len(digests) >= COUNT_BYTES * count:
        raise LimitExceeded(f"digest list: {len(digests)} bytes, more than the limit of {limit}")
    roots = roots_of(count, commitment.gram, digests)
    if roots.records_root != commitment.records.root_blake3:
        raise ProofRefused(
            "digests-records",
            f"digest list: records root {roots.records_root}, expected {commitment.records.root_blake3}",
        )
    found = (str(roots.distinct), str(roots.depth), roots.set_root)
    if found != (commitment.set.count, commitment.set.depth, commitment.set.root_blake3):
        raise ProofRefused(
            "digests-set",
            f"digest list: set of {roots.distinct} with root {roots.set_root}, "
            f"expected {commitment.set.count} with root {commitment.set.root_blake3}",
        )
