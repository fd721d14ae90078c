"""A50: containers that run code, lead out of their folder, hide members, or swell when they are read.

Each test says which check catches the file, and shows what a reader without that check makes of it.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from containers import mds, tar

from pot.data.readers import open_shard, shard_files
from pot.errors import LimitExceeded, Malformed, UsageError


class Runs:
    """Runs code when it is read as a pickle: makes the folder `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.path,)


def texts(path: Path, container: str, on_error: str = "stop", needs: str = "text") -> list[Any]:
    return [record.value for record in open_shard(path, container, on_error=on_error, needs=needs).records()]


def test_a_pickle_in_npy_is_never_loaded(tmp_path: Path) -> None:
    """Caught by the check of the dtype, before any value is read."""
    array, ran = np.array([Runs(tmp_path / "ran")], object), tmp_path / "ran"
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    stored = tar([{"npy": stream.getvalue()}], tmp_path / "a.tar")
    with pytest.raises(Malformed, match="only integers"):
        texts(stored.path, "webdataset", needs="tokens")
    assert not ran.exists()
    np.load(io.BytesIO(stream.getvalue()), allow_pickle=True)
    assert ran.is_dir()


@pytest.mark.parametrize("encoding", ["pkl", "pickle"])
def test_a_pickle_in_mds_is_never_loaded(tmp_path: Path, encoding: str) -> None:
    """Caught by the closed list of encodings, before the shard is opened."""
    ran = tmp_path / "ran"
    data = pickle.dumps(Runs(ran))
    stored = mds([{"text": data}], {"text": encoding}, tmp_path / "m")
    for needs in ("text", "object"):
        with pytest.raises(UsageError, match="a pickle runs code"):
            texts(stored.path / "shard.00000.mds", "mds", needs=needs)
    assert not ran.exists()
    pickle.loads(data)
    assert ran.is_dir()


def linked(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("000.txt")
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"), (tarfile.LNKTYPE, "a hard link"), (tarfile.CHRTYPE, "neither"),
        (tarfile.BLKTYPE, "neither"), (tarfile.FIFOTYPE, "neither"), (tarfile.CONTTYPE, "neither"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"), (b"V", "neither"), (b"Z", "neither"),
    ],
)  # fmt: skip
def test_members_that_are_no_files_are_refused(tmp_path: Path, kind: bytes, what: str) -> None:
    """Caught by the list of member types. `tarfile` gives a hard link the content of whatever it names."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        first = tarfile.TarInfo("secret.txt")
        first.size = 6
        archive.addfile(first, io.BytesIO(b"secret"))
        archive.addfile(linked(kind, "secret.txt"))
    with pytest.raises(Malformed, match=what):
        texts(path, "webdataset")
    if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        with tarfile.open(path) as archive:
            found = archive.extractfile("000.txt")
            assert found is not None
            assert found.read() == b"secret"


def test_members_behind_the_end_are_not_hidden(tmp_path: Path) -> None:
    """Two archives in one file: `tarfile` sees the first, a reader that ignores zeros sees both."""
    first = tar([{"txt": b"shown"}], tmp_path / "a.tar").path
    second = tar([{"txt": b"hidden"}], tmp_path / "b.tar").path
    joined = tmp_path / "c.tar"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(Malformed, match="bytes follow the archive's end marker"):
        texts(joined, "webdataset")
    with tarfile.open(joined) as archive:
        assert len(archive.getmembers()) == 1
    with tarfile.open(joined, ignore_zeros=True) as archive:
        assert len(archive.getmembers()) == 2


def with_pax(path: Path, headers: dict[str, str]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("000.txt")
        member.size, member.pax_headers = 5, headers
        archive.addfile(member, io.BytesIO(b"hello"))
    return path


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99"},
        {"GNU.sparse.map": "0,5", "GNU.sparse.size": "5"},
        {"linkpath": "/etc/passwd"},
        {"size": "99999999999999"},
        {"size": "-5"},
        {"size": "0x5"},
        {"path": "a\x00b.txt"},
        {"path": "a\x1b[2J.txt"},
        {"path": "a\u202etxt.exe"},
        {"path": "x" * 600 + ".txt"},
        {"unknown.key": "1"},
    ],
)
def test_extended_headers_that_change_a_member_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    """Caught by the list of pax keys and the checks of names and sizes; two readers would see two archives."""
    with pytest.raises(Malformed):
        texts(with_pax(tmp_path / "a.tar", headers), "webdataset")
    assert texts(with_pax(tmp_path / "b.tar", {"path": "ok.txt", "mtime": "1.5"}), "webdataset") == [{"text": "hello"}]


def header(size: bytes = b"00000000005\0", magic: bytes = b"ustar\00000", bent: int = 0) -> bytes:
    block = bytearray(512)
    block[:7], block[124:136], block[156:157], block[257:265] = b"000.txt", size, b"0", magic
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) + bent)
    return bytes(block)


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (header(size=b"\x80" + b"\xff" * 11), "cut short"), (header(size=b"\xff" * 12), "no octal number"),
        (header(size=b"77777777777\0"), "cut short"), (header(size=b"-0000000005\0"), "no octal number"),
        (header(size=b"5 5 5 5 5 5 "), "no octal number"), (header(bent=1), "checksum"),
        (header(magic=b"\0" * 8), "no tar header"), (b"\x1f\x8b" + bytes(510), "no tar header"),
    ],
)  # fmt: skip
def test_headers_that_lie_are_refused_before_anything_is_allocated(tmp_path: Path, block: bytes, why: str) -> None:
    """Caught by the checks of a member's size against the file's, and of the header's checksum."""
    path = tmp_path / "a.tar"
    path.write_bytes(block + b"hello" + bytes(507) + bytes(1024))
    with pytest.raises(Malformed, match=why):
        texts(path, "webdataset")
    path.write_bytes(header() + b"hello" + bytes(507) + bytes(1024))
    assert texts(path, "webdataset") == [{"text": "hello"}]


def swollen(path: Path) -> Path:
    """One dictionary entry of 1 MiB, a million rows that point to it: a terabyte, in a file of 2 MB."""
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1 << 20, np.int8)), pa.array(["x" * (1 << 20)]))
    table = pa.table({"text": column})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    return path


def test_a_dictionary_is_not_unfolded_whole(tmp_path: Path) -> None:
    """Caught by decoding slice by slice, after the rows' lengths were summed."""
    path = swollen(tmp_path / "a.arrow")
    batches = open_shard(path, "arrow", needs="text").spans("text")
    assert batches is not None
    for _ in range(3):
        assert next(batches).size <= 9 << 20
    records = open_shard(path, "arrow", needs="text").records()
    first, second = next(records).value, next(records).value
    assert first is not None
    assert second is not None
    assert first["text"] is second["text"]


def test_lists_that_take_no_bytes_are_counted(tmp_path: Path) -> None:
    """Caught by counting values before they become objects: two billion nulls in a file of 500 bytes."""
    for column in (
        pa.ListArray.from_arrays(pa.array([0, 2**31 - 1], pa.int32()), pa.nulls(2**31 - 1)),
        pa.FixedSizeListArray.from_arrays(pa.nulls(2**31 - 1), 2**31 - 1),
    ):
        path = tmp_path / "a.arrow"
        with pa.ipc.new_file(path, pa.schema([("x", column.type)])) as writer:
            writer.write_batch(pa.record_batch([column], ["x"]))
        assert path.stat().st_size < 1024
        with pytest.raises(LimitExceeded, match="row 0: lists of more than"):
            texts(path, "arrow", needs="object")


def test_rows_without_columns_are_refused(tmp_path: Path) -> None:
    """Caught by the schema: a batch of no columns has as many rows as it says."""
    path = tmp_path / "a.arrow"
    batch = pa.record_batch([pa.array([1, 2, 3])], ["x"]).select([])
    with pa.ipc.new_file(path, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(UsageError, match="no columns"):
        texts(path, "arrow", needs="object")


def test_a_bomb_of_zstd_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caught by the cap on records, reached after 1 MiB of 1 GiB."""
    monkeypatch.setattr("pot.data.readers.record.MAX_RECORD_BYTES", 1 << 20)
    packer = zstandard.ZstdCompressor(level=19).compressobj()
    data = b"".join(packer.compress(b" " * (1 << 24)) for _ in range(64)) + packer.flush()
    (tmp_path / "a.jsonl.zst").write_bytes(data)
    assert len(data) < 1 << 18
    with pytest.raises(LimitExceeded):
        texts(tmp_path / "a.jsonl.zst", "jsonl.zst")


LIES: dict[str, Callable[[bytes], bytes]] = {
    "footer length": lambda data: data[:-8] + struct.pack("<I", 0x7FFFFFFF) + b"PAR1",
    "negative length": lambda data: data[:-8] + b"\xff\xff\xff\xff" + b"PAR1",
    "no footer": lambda data: b"PAR1" + b"\0\0\0\0" + b"PAR1",
    "encrypted": lambda data: data[:-4] + b"PARE",
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("name", LIES)
def test_parquet_footers_that_lie_are_refused(tmp_path: Path, name: str) -> None:
    """Caught by Parquet's own checks; what its library raises becomes ours."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a"]}), path)
    path.write_bytes(LIES[name](path.read_bytes()))
    with pytest.raises(Malformed, match=r"a\.parquet"):
        texts(path, "parquet")


@pytest.mark.parametrize("offsets", [[0, 3, 1 << 30], [0, 12, 9], [-4, 3, 9], [0, -1, 9], [1 << 30, 3, 9]])
def test_offsets_outside_their_buffer_are_refused(tmp_path: Path, offsets: list[int]) -> None:
    """Caught by full validation of each slice: an offset of 2^30 in a column of 9 bytes would read foreign memory."""
    path = tmp_path / "a.arrow"
    with pa.ipc.new_file(path, pa.schema([("text", pa.string())])) as writer:
        writer.write_batch(pa.record_batch([pa.array(["abc", "defghi"])], ["text"]))
    honest, bent = (np.array(numbers, "<i4").tobytes() for numbers in ([0, 3, 9], offsets))
    data = path.read_bytes()
    assert data.count(honest) == 1
    path.write_bytes(data.replace(honest, bent))
    assert pa.ipc.open_file(path.read_bytes()).read_all().num_rows == 2  # unchecked, until somebody looks at a value
    for on_error in ("stop", "skip"):
        for way in ("records", "spans"):
            reader = open_shard(path, "arrow", on_error=on_error, needs="text")
            found = reader.records() if way == "records" else reader.spans("text")
            if on_error == "stop":
                with pytest.raises(Malformed, match=r"a\.arrow row 0"):
                    list(found or ())
            else:
                assert list(found or ()) == []
                assert (reader.skipped, reader.cut) == (1, True)


@pytest.mark.parametrize("name", ["state.json", "index.json"])
def test_a_link_in_place_of_an_index_is_refused(tmp_path: Path, name: str) -> None:
    """Caught where the index is opened: a link could name any file of the reader's."""
    (tmp_path / "elsewhere").write_text(json.dumps({"_data_files": [], "shards": [], "version": 2}))
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="symbolic link"):
        shard_files([folder], "hf" if name == "state.json" else "mds")


def test_a_link_in_place_of_a_shard_is_refused(tmp_path: Path) -> None:
    """Caught at the listing, and again where the file is opened: it may have become a link in between."""
    stored = mds([{"text": b"a"}], {"text": "str"}, tmp_path / "m")
    shard = stored.path / "shard.00000.mds"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="no file"):
        shard_files([stored.path], "mds")
    for container in ("mds", "jsonl", "arrow", "parquet", "webdataset", "file"):
        with pytest.raises(UsageError, match="symbolic link"):
            texts(shard, container, on_error="skip")
