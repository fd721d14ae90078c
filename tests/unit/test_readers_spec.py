"""The example and the lists of `specs/containers.md` are what the readers read."""

from __future__ import annotations

import json
import re
import struct
import tarfile
from pathlib import Path

import pytest

from pot.data.readers import CONTAINERS, open_shard
from pot.data.readers.mds_encodings import SCALARS, VARIABLE, fixed_size
from pot.data.readers.shards import SUFFIXES
from pot.data.readers.tar import _PASSED_OVER
from pot.data.readers.webdataset import NAMES

SPEC = (Path(__file__).parents[2] / "specs" / "containers.md").read_text("utf-8")


def hi_jsonl(folder: Path) -> Path:
    (folder / "a.jsonl").write_bytes(b'{"text":"hi"}\n')
    return folder / "a.jsonl"


def hi_tar(folder: Path) -> Path:
    member = tarfile.TarInfo("000.txt")
    member.size = 2
    (folder / "a.tar").write_bytes(member.tobuf() + b"hi" + bytes(510) + bytes(1024))
    return folder / "a.tar"


def hi_mds(folder: Path) -> Path:
    columns = {"column_names": ["text"], "column_encodings": ["str"], "column_sizes": [None]}
    config = json.dumps(columns).encode()
    first = 4 + 8 + len(config)
    body = struct.pack("<III", 1, first, first + 6) + config + struct.pack("<I", 2) + b"hi"
    entry = {
        "format": "mds",
        "version": 2,
        "samples": 1,
        "raw_data": {"basename": "shard.00000.mds", "bytes": len(body)},
    }
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": [{**columns, **entry}]}))
    (folder / "shard.00000.mds").write_bytes(body)
    return folder / "shard.00000.mds"


def hi_text(folder: Path) -> Path:
    (folder / "a.txt").write_bytes(b"hi")
    return folder / "a.txt"


@pytest.mark.parametrize("container", ["jsonl", "webdataset", "mds", "text"])
def test_the_example_is_read(tmp_path: Path, container: str) -> None:
    write = {"jsonl": hi_jsonl, "webdataset": hi_tar, "mds": hi_mds, "text": hi_text}[container]
    path = write(tmp_path)
    assert f"| `{container}` | `{path.name}` |" in SPEC
    (record,) = open_shard(path, container, needs="text").records()
    assert (record.data if record.value is None else record.value["text"].encode()) == b"hi"


def test_every_container_and_suffix_stands_in_the_spec() -> None:
    assert not [name for name in CONTAINERS if f"`{name}`" not in SPEC]
    table = SPEC[SPEC.index("| container | names |") : SPEC.index("Where no container is named")]
    for container, suffixes in SUFFIXES.items():
        assert f"`{container}`" in table
        assert not [suffix for suffix in suffixes if f"`{suffix}`" not in table]


def test_every_encoding_and_key_stands_in_the_spec() -> None:
    part = SPEC[SPEC.index("| encoding | value |") : SPEC.index("## megatron")]
    numbered = re.sub(r"`(u?int|float)(\d+)` … `\1(\d+)`", lambda m: _range(*m.groups()), part)
    assert not [name for name in [*VARIABLE, *SCALARS, "ndarray"] if f"`{name}`" not in numbered]
    for name in [*VARIABLE, *SCALARS]:
        fixed_size(name, "column")
    tar = SPEC[SPEC.index("## webdataset") : SPEC.index("### npy")]
    assert not [name for name in [*_PASSED_OVER, *NAMES] if f"`{name}`" not in tar]


def _range(kind: str, low: str, high: str) -> str:
    return " ".join(f"`{kind}{bits}`" for bits in (8, 16, 32, 64) if int(low) <= bits <= int(high))
