"""Readers: from containers on disk to records, one at a time, with the digests of the very bytes that were read.

Spec: `specs/containers.md`. One module per container; `open_shard` finds the one that reads a shard. A container's
library is loaded when a shard of it is read, and not before.
"""

from __future__ import annotations

from pot.data.readers.dataset import RecordDataset, dataset_records
from pot.data.readers.reader import ShardReader
from pot.data.readers.record import MAX_RECORD_BYTES, Record
from pot.data.readers.shards import (
    COLUMNAR,
    CONTAINERS,
    MAX_SHARDS,
    Container,
    check_schemas,
    container_for,
    guess_container,
    open_shard,
    plain_for,
    read_one,
    read_records,
    shard_files,
)

__all__ = [
    "COLUMNAR",
    "CONTAINERS",
    "MAX_RECORD_BYTES",
    "MAX_SHARDS",
    "Container",
    "Record",
    "RecordDataset",
    "ShardReader",
    "check_schemas",
    "container_for",
    "dataset_records",
    "guess_container",
    "open_shard",
    "plain_for",
    "read_one",
    "read_records",
    "shard_files",
]
