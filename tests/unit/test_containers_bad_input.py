"""Containers that are broken or change while they are read: one sentence with the place, or left out and counted."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from blake3 import blake3
from containers import (
    VALUES,
    WRITERS,
    MapStyle,
    Stored,
    arrow_file,
    arrow_stream,
    files,
    hf,
    jsonl,
    jsonl_zst,
    mds,
    megatron,
    npy,
    parquet,
    tar,
)

from pot.data.readers import ShardReader, check_schemas, dataset_records, open_shard, shard_files
from pot.errors import EnvironmentFailure, LimitExceeded, Malformed, MissingExtra, PotError, UsageError

TEXTS = [f"record {number} " + "lorem ipsum " * 20 for number in range(40)]


def unpadded(stored: Stored) -> Stored:
    """Without the zeros that may follow a tar archive's end marker."""
    os.truncate(stored.path, len(TEXTS) * 1024 + 1024)
    return stored


# containers whose end is marked, so that a shorter file is seen to be cut
CUT: dict[str, Callable[[Path], Stored]] = {
    "jsonl.zst": lambda f: jsonl_zst([{"text": text} for text in TEXTS], f / "a.jsonl.zst"),
    "arrow": lambda f: arrow_file(pa.table({"text": TEXTS}), f / "a.arrow", 5),
    "arrow stream": lambda f: arrow_stream(pa.table({"text": TEXTS}), f / "a.arrow", 5),
    "parquet": lambda f: parquet(pa.table({"text": TEXTS}), f / "a.parquet", 5),
    "hf": lambda f: hf({"text": TEXTS}, f / "hf", shards=1),
    "webdataset": lambda f: unpadded(tar([{"txt": text.encode()} for text in TEXTS], f / "a.tar")),
    "mds": lambda f: mds([{"text": text.encode()} for text in TEXTS], {"text": "str"}, f / "m"),
    "mds.zstd": lambda f: mds([{"text": text.encode()} for text in TEXTS], {"text": "str"}, f / "m", packed=True),
}


def shard(stored: Stored) -> Path:
    ((_, path),) = shard_files([stored.path], stored.container)
    return path


def reader(stored: Stored, needs: str = "text", on_error: str = "stop") -> ShardReader:
    return open_shard(shard(stored), stored.container, stored.fields, on_error, needs)


def texts(found: ShardReader) -> list[Any]:
    return [record.value["text"] for record in found.records() if record.value is not None]


def spanned(found: ShardReader) -> list[str] | None:
    batches = found.spans("text")
    return None if batches is None else [string.decode() for spans in batches for string in spans]


def digests_are_those_of(path: Path, found: ShardReader) -> bool:
    data = path.read_bytes()
    return (found.bytes_read, found.sha256, found.blake3) == (
        len(data), hashlib.sha256(data).hexdigest(), blake3(data).hexdigest(),
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------- cut and damaged


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, -1])
def test_a_file_that_was_cut_short_is_noticed(tmp_path: Path, name: str, kept: float) -> None:
    stored = CUT[name](tmp_path)
    path = shard(stored)
    data = path.read_bytes()
    path.write_bytes(data[:-1] if kept == -1 else data[: int(len(data) * kept)])
    if name == "jsonl.zst" and kept == 0:
        assert texts(reader(stored)) == []  # no frame: nothing was there to be cut
        return
    with pytest.raises(Malformed, match=path.name):
        texts(reader(stored))
    found = reader(stored, on_error="skip")
    left = texts(found)
    assert left == TEXTS[: len(left)]
    assert len(left) < len(TEXTS) or kept == -1
    assert found.cut
    assert found.skipped == 1
    assert digests_are_those_of(path, found)
    fast = reader(stored, on_error="skip")
    same = spanned(fast)
    if same is not None:
        assert same == left
        assert (fast.cut, fast.skipped, fast.sha256) == (True, 1, found.sha256)
        with pytest.raises(Malformed, match=path.name):
            spanned(reader(stored))


def test_a_stream_cut_between_two_batches_is_noticed(tmp_path: Path) -> None:
    """pyarrow alone reads such a file to its end without a word."""
    stored = CUT["arrow stream"](tmp_path)
    whole = stored.path.read_bytes()
    stored.path.write_bytes(whole[:-8])
    with pa.ipc.open_stream(stored.path) as theirs:
        assert theirs.read_all().num_rows == len(TEXTS)
    with pytest.raises(Malformed, match="no end marker"):
        texts(reader(stored))
    stored.path.write_bytes(whole + b"\0" * 8)
    with pytest.raises(Malformed, match="bytes follow"):
        texts(reader(stored))


@pytest.mark.parametrize("needs", ["text", "bytes"])
def test_what_comes_before_a_broken_batch_stands(tmp_path: Path, needs: str) -> None:
    """Also where batches are too small to be handed over one by one."""
    kind = pa.string() if needs == "text" else pa.binary()
    values = [b"abc", None, b"defg", b"h", b"xx", b"ijklmnop", b"q", b"r"]
    stored = arrow_file(pa.table({needs: pa.array(values, pa.binary()).cast(kind)}), tmp_path / "a.arrow", 2)
    data = stored.path.read_bytes()
    honest, bent = (np.array(offsets, "<i4").tobytes() for offsets in ([0, 2, 10], [0, 11, 10]))
    assert data.count(honest) == 1
    stored.path.write_bytes(data.replace(honest, bent))
    for way in ("records", "spans"):
        found = reader(stored, needs, "skip")
        if way == "records":
            left = [record.value[needs] for record in found.records() if record.value is not None]
            left = [value.encode() if isinstance(value, str) else value for value in left]
        else:
            left = [string for spans in found.spans(needs) or () for string in spans]
        assert left == [b"abc", b"defg", b"h"]
        assert (found.skipped, found.cut) == (2, True)
        assert digests_are_those_of(stored.path, found)
    whole = reader(Stored(stored.path, "arrow"), needs).spans(needs)
    with pytest.raises(Malformed, match="row 1: null"):
        list(whole or ())


def test_the_last_line_that_was_cut_is_one_bad_record(tmp_path: Path) -> None:
    stored = jsonl([{"text": text} for text in TEXTS], tmp_path / "a.jsonl")
    stored.path.write_bytes(stored.path.read_bytes()[:-9])
    with pytest.raises(Malformed, match="line 40"):
        texts(reader(stored))
    found = reader(stored, on_error="skip")
    assert texts(found) == TEXTS[:-1]
    assert (found.skipped, found.cut) == (1, False)
    assert digests_are_those_of(stored.path, found)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, writers in WRITERS.items() for name in writers])
def test_damage_gives_one_sentence_or_records(tmp_path: Path, kind: str, name: str) -> None:
    """Bytes that changed, were lost or added: never an error of another library, never a crash."""
    stored = WRITERS[kind][name](VALUES[kind], tmp_path)
    if stored.dataset is not None:
        return
    victims = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size)
    damage = random.Random(f"{kind} {name}")
    sentences: list[str] = []
    for _ in range(30):
        victim = damage.choice(victims)
        whole = victim.read_bytes()
        victim.write_bytes(damaged(whole, damage))
        for on_error in ("stop", "skip"):
            try:
                for _, path in shard_files([stored.path], stored.container):
                    list(open_shard(path, stored.container, stored.fields, on_error, kind).records())
                    list(open_shard(path, stored.container, stored.fields, on_error, kind).spans(kind) or ())
            except UsageError as error:
                sentences.append(str(error))
        victim.write_bytes(whole)
    assert sentences or stored.container in ("file", "text", "images")  # any bytes are a plain file
    assert not [sentence for sentence in sentences if "\n" in sentence or str(tmp_path) not in sentence]


def damaged(data: bytes, damage: random.Random) -> bytes:
    at = damage.randrange(len(data))
    extra = damage.choice([b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0" * 4, damage.randbytes(4), b"\0\0\0\x80"])
    return damage.choice([data[:at], data[:at] + extra + data[at:], data[:at] + extra + data[at + 4 :]])


# ------------------------------------------------------------------------------------------------- while it is read


def bend(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "longer":
        with path.open("ab") as stream:
            stream.write(b"\0")
    elif how == "shorter":
        os.truncate(path, 10)
    elif how == "other bytes":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        os.utime(path, ns=(1, 1))
    elif how == "another file":
        path.with_name("new").write_bytes(data)
        os.replace(path.with_name("new"), path)
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["longer", "shorter", "other bytes", "another file", "gone"])
@pytest.mark.parametrize("name", ["jsonl", *CUT])
@pytest.mark.parametrize("way", ["records", "spans"])
def test_a_file_that_changes_while_it_is_read_is_not_used(tmp_path: Path, name: str, how: str, way: str) -> None:
    """Also under "skip": what was read so far may be half of one file and half of another."""
    stored = jsonl([{"text": t} for t in TEXTS], tmp_path / "a.jsonl") if name == "jsonl" else CUT[name](tmp_path)
    for on_error in ("stop", "skip"):
        found = reader(stored, on_error=on_error)
        stream: Iterator[Any] | None = found.records() if way == "records" else found.spans("text")
        if stream is None:
            return
        whole = shard(stored).read_bytes()
        next(stream)
        bend(found.path, how)
        with pytest.raises((EnvironmentFailure, Malformed) if on_error == "stop" else EnvironmentFailure):
            list(stream)
        found.path.write_bytes(whole)


def test_a_change_is_an_environment_failure(tmp_path: Path) -> None:
    stored = CUT["arrow"](tmp_path)
    stream = reader(stored).records()
    next(stream)
    bend(stored.path, "longer")
    with pytest.raises(EnvironmentFailure, match="changed while it was read; read it again"):
        list(stream)


# --------------------------------------------------------------------------------------------------- single records


def test_rows_without_text_are_refused_or_counted(tmp_path: Path) -> None:
    rows = ["a", None, "b", None, "c"]
    for stored in (
        arrow_file(pa.table({"text": rows}).slice(0), tmp_path / "a.arrow", 2),
        parquet(pa.table({"text": rows}), tmp_path / "a.parquet", 2),
        arrow_file(pa.table({"text": pa.array(rows).dictionary_encode()}), tmp_path / "d.arrow", 3),
        arrow_file(pa.table({"text": pa.array(rows, pa.string_view())}), tmp_path / "v.arrow", 3),
    ):
        for take in (texts, spanned):
            with pytest.raises(Malformed, match="row 1: null"):
                take(reader(stored))
            found = reader(stored, on_error="skip")
            assert take(found) == ["a", "b", "c"]
            assert (found.skipped, found.cut) == (2, False)
    nothing = arrow_file(pa.table({"text": pa.nulls(3)}), tmp_path / "n.arrow")
    found = reader(nothing, on_error="skip")
    assert spanned(found) == []
    assert found.skipped == 3


@pytest.mark.parametrize(
    ("kind", "dictionary"),
    [
        (pa.string(), False),
        (pa.large_string(), False),
        (pa.string_view(), False),
        (pa.string(), True),
        (pa.large_string(), True),
    ],
)
def test_strings_that_are_no_utf8_are_refused_or_counted(tmp_path: Path, kind: Any, dictionary: bool) -> None:
    raw = pa.array([b"good", b"", b"\xff\xfe", "\u00e4".encode(), b"\xed\xa0\x80", b"end"])
    if kind == pa.string_view():
        source = raw.cast(pa.binary_view())
    else:
        source = raw if kind == pa.string() else raw.cast(pa.large_binary())
    column = pa.Array.from_buffers(kind, len(source), source.buffers())
    if dictionary:
        column = pa.DictionaryArray.from_arrays(pa.array(range(len(source)), pa.int8()), column, safe=False)
    stored = arrow_file(pa.table({"text": column}), tmp_path / "a.arrow")
    for take in (texts, spanned):
        with pytest.raises(Malformed, match=r"row 2.* not UTF-8"):
            take(reader(stored))
        found = reader(stored, on_error="skip")
        assert take(found) == ["good", "", "ä", "end"]
        assert (found.skipped, found.cut) == (2, False)


@pytest.mark.parametrize("container", ["webdataset", "mds"])
def test_members_that_are_no_utf8_are_refused_or_counted(tmp_path: Path, container: str) -> None:
    raw = [b"good", b"\xff\xfe", b"end"]
    if container == "mds":
        stored = mds([{"text": data} for data in raw], {"text": "str"}, tmp_path / "m")
    else:
        stored = tar([{"txt": data} for data in raw], tmp_path / "a.tar")
    with pytest.raises(Malformed, match="not UTF-8 at byte 0"):
        texts(reader(stored))
    found = reader(stored, on_error="skip")
    assert texts(found) == ["good", "end"]
    assert (found.skipped, found.cut) == (1, False)


def test_a_record_over_the_cap_is_refused_or_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pot.data.readers.record.MAX_RECORD_BYTES", 64)
    values = ["short", "x" * 100, "end"]
    cases = [
        jsonl([{"text": text} for text in values], tmp_path / "a.jsonl"),
        jsonl_zst([{"text": text} for text in values], tmp_path / "a.jsonl.zst"),
        arrow_file(pa.table({"text": values}), tmp_path / "a.arrow"),
        parquet(pa.table({"text": values}), tmp_path / "a.parquet"),
        tar([{"txt": text.encode()} for text in values], tmp_path / "a.tar"),
        mds([{"text": text.encode()} for text in values], {"text": "str"}, tmp_path / "m"),
    ]
    for stored in cases:
        for take in (texts, spanned):
            if take(reader(stored, on_error="skip")) is None:
                continue
            with pytest.raises(Malformed, match="limit of 64 bytes"):
                take(reader(stored))
            found = reader(stored, on_error="skip")
            assert take(found) == ["short", "end"]
            assert (found.skipped, found.cut) == (1, False)
    tokens = megatron([[1], list(range(50)), [2]], tmp_path / "a.bin")
    assert [len(r.value["tokens"]) for r in reader(tokens, "tokens", "skip").records() if r.value] == [1, 1]
    plain = files([b"x" * 65], tmp_path / "f")
    with pytest.raises(LimitExceeded):
        list(reader(plain, "bytes").records())
    with pytest.raises(LimitExceeded):
        list(dataset_records(MapStyle([b"x" * 65])).records())


def test_a_zstd_bomb_is_not_unpacked_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of a gigabyte in 33 KB: read in pieces, refused by the cap, never held."""
    monkeypatch.setattr("pot.data.readers.record.MAX_RECORD_BYTES", 1 << 16)
    packer = zstandard.ZstdCompressor(level=19).compressobj()
    packed = [packer.compress(b"x" * (1 << 24)) for _ in range(64)]
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b"".join(packed) + packer.flush() + zstandard.compress(b'\n{"text":"end"}\n'))
    with pytest.raises(LimitExceeded, match="line 1"):
        texts(reader(Stored(path, "jsonl.zst")))
    found = reader(Stored(path, "jsonl.zst"), on_error="skip")
    assert texts(found) == ["end"]
    assert digests_are_those_of(path, found)


def test_a_zstd_window_over_the_cap_is_refused(tmp_path: Path) -> None:
    settings = zstandard.ZstdCompressionParameters(window_log=30)
    packer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    (tmp_path / "a.jsonl.zst").write_bytes(packer.compress(b'{"text":"a"}\n' * 9) + packer.flush())
    with pytest.raises(Malformed, match="too much memory"):
        texts(reader(Stored(tmp_path / "a.jsonl.zst", "jsonl.zst")))


def test_the_pipeline_counts_what_the_view_refuses(tmp_path: Path) -> None:
    found = reader(jsonl([{"text": "a"}], tmp_path / "a.jsonl"), on_error="skip")
    found.skip()
    assert found.skipped == 1
    with pytest.raises(UsageError, match="stop and skip"):
        open_shard(tmp_path / "a.jsonl", "jsonl", on_error="ignore")
    with pytest.raises(UsageError, match="cannot need"):
        open_shard(tmp_path / "a.jsonl", "jsonl", needs="sound")
    with pytest.raises(UsageError, match="own names"):
        open_shard(tmp_path / "a.jsonl", "jsonl", {"text": "x"})


def test_a_missing_field_names_what_is_needed(tmp_path: Path) -> None:
    stored = jsonl([{"a": 1}], tmp_path / "a.jsonl")
    with pytest.raises(Malformed, match=r"line 1: no field 'text', which is needed as the record's text"):
        texts(reader(stored))
    with pytest.raises(Malformed, match=r"no field 'b', which is needed as the record's text"):
        list(open_shard(stored.path, "jsonl", {"text": "b"}, needs="text").records())
    for columnar in (
        arrow_file(pa.table({"a": ["x"]}), tmp_path / "a.arrow"),
        mds([{"a": b""}], {"a": "str"}, tmp_path / "m"),
    ):
        for on_error in ("stop", "skip"):  # not one record's fault: there is nothing to leave out
            with pytest.raises(UsageError, match=r"no column 'text', .* columns are 'a'"):
                texts(reader(columnar, on_error=on_error))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, writers in WRITERS.items() for name in writers])
def test_an_empty_shard_has_no_records(tmp_path: Path, kind: str, name: str) -> None:
    if kind not in ("text", "tokens", "bytes") or name.startswith(("files", "text files", "hf")):
        return
    stored = WRITERS[kind][name]([], tmp_path)
    if stored.dataset is not None:
        assert list(dataset_records(stored.dataset, kind).records()) == []
        return
    found = open_shard(shard(stored), stored.container, stored.fields, needs=kind)
    assert list(found.records()) == []
    assert list(open_shard(shard(stored), stored.container, stored.fields, needs=kind).spans(kind) or ()) == []
    assert (found.skipped, found.cut) == (0, False)


# ------------------------------------------------------------------------------------------------------------ columns


def test_types_without_a_json_form_are_refused_by_name(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta
    from decimal import Decimal

    columns = [
        pa.array([datetime(2020, 1, 1, tzinfo=UTC)]),
        pa.array([datetime(2020, 1, 1, tzinfo=UTC).date()]),
        pa.array([timedelta(1)]),
        pa.array([Decimal("1.5")]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([{"deep": [Decimal("1")]}]),
        pa.array([1, 1]).slice(1).run_end_encode() if hasattr(pa.Array, "run_end_encode") else pa.array([Decimal("2")]),
    ]
    for number, column in enumerate(columns):
        table = pa.table({"a": pa.array([1]), "odd": column})
        stored = arrow_file(table, tmp_path / f"{number}.arrow")
        with pytest.raises(UsageError, match=r"column 'odd'.*no JSON form"):
            list(reader(stored, "object").records())
        with pytest.raises(UsageError, match=r"column 'odd'.*no JSON form"):
            check_schemas([("a", stored.path)], "arrow", "object")


@pytest.mark.parametrize("value", [2**53 + 1, -(2**63), float("nan"), float("inf")])
def test_numbers_that_json_cannot_say_are_refused(tmp_path: Path, value: Any) -> None:
    stored = arrow_file(pa.table({"n": [1, value] if isinstance(value, int) else [1.0, value]}), tmp_path / "a.arrow")
    with pytest.raises(Malformed, match="row 1, field 'n'"):
        list(reader(stored, "object").records())
    with pytest.raises(Malformed, match="item 1, field 'n'"):
        list(dataset_records(MapStyle([{"n": 1}, {"n": value}])).records())
    form = "int" if isinstance(value, int) else "float64"
    packed = [{"n": struct.pack("<q" if form == "int" else "<d", number)} for number in (1, value)]
    with pytest.raises(Malformed, match="sample 1, field 'n'"):
        list(reader(mds(packed, {"n": form}, tmp_path / "m", sizes={"n": 8}), "object").records())


def test_integers_to_the_edge_of_doubles_are_kept(tmp_path: Path) -> None:
    stored = arrow_file(pa.table({"n": [2**53 - 1, 1 - 2**53]}), tmp_path / "a.arrow")
    assert [r.value for r in reader(stored, "object").records()] == [{"n": 2**53 - 1}, {"n": 1 - 2**53}]


def test_columns_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    table = pa.table({"text": [b"x"], "tokens": [["x"]], "image": ["x"], "bytes": ["x"]})
    stored = arrow_file(table, tmp_path / "a.arrow")
    for needs in ("text", "tokens", "image", "bytes"):
        with pytest.raises(UsageError, match=f"column '{needs}' holds .* but the record's {needs} is"):
            list(reader(stored, needs).records())
    floats = arrow_file(pa.table({"tokens": [[1.0]]}), tmp_path / "f.arrow")
    with pytest.raises(UsageError, match="tokens are integers"):
        list(reader(floats, "tokens").records())
    holes = arrow_file(pa.table({"tokens": [[1], [1, None], None, [2]]}), tmp_path / "h.arrow")
    with pytest.raises(Malformed, match="row 1: null"):
        list(reader(holes, "tokens").records())
    found = reader(holes, "tokens", "skip")
    assert [r.value["tokens"].tolist() for r in found.records() if r.value] == [[1], [2]]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])
    with pytest.raises(UsageError, match="two columns have one name"):
        texts(reader(arrow_file(table, tmp_path / "a.arrow")))


def test_shards_of_mixed_schemas_are_refused_naming_both(tmp_path: Path) -> None:
    def table(name: str, **columns: list[Any]) -> tuple[str, Path]:
        return name, arrow_file(pa.table(columns), tmp_path / f"{name}.arrow").path

    text, other = table("a", text=["x"], n=[1]), table("b", text=["x"], n=["1"])
    fewer, real, nulls = table("c", text=["x"]), table("d", text=["x"], n=[1.5]), table("e", text=[None], n=[None])
    check_schemas([text, other, fewer, nulls], "arrow", "text")
    check_schemas([text, real, nulls], "arrow", "object")
    for pair in ([text, other], [nulls, text, other]):
        with pytest.raises(UsageError, match=r"a\.arrow and .*b\.arrow: column 'n' is number in one, string in"):
            check_schemas(pair, "arrow", "object")
    with pytest.raises(UsageError, match=r"a\.arrow and .*c\.arrow: only one of them has the column 'n'"):
        check_schemas([text, fewer], "arrow", "object")
    with pytest.raises(UsageError, match=r"c\.arrow: no column 'n'"):
        check_schemas([other, fewer], "arrow", "text", {"text": "n"})
    text[1].write_bytes(b"ARROW1 no more")
    with pytest.raises(Malformed, match=r"a\.arrow"):
        check_schemas([text, fewer], "arrow", "text")
    check_schemas([text, fewer], "arrow", "text", on_error="skip")
    check_schemas([("a", tmp_path / "absent.jsonl")], "jsonl", "object")  # has no schema, is not opened


def test_rows_that_parquet_hides_are_noticed(tmp_path: Path) -> None:
    stored = parquet(pa.table({"text": TEXTS}), tmp_path / "a.parquet", 100)
    data = stored.path.read_bytes()
    assert pq.ParquetFile(stored.path).metadata.num_rows == len(TEXTS)
    refused = 0
    for where in range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data) - 8):
        if data[where] != len(TEXTS) * 2:  # a zigzag varint; the footer says twice how many rows there are
            continue
        stored.path.write_bytes(data[:where] + bytes([2]) + data[where + 1 :])
        try:
            assert texts(reader(stored)) == TEXTS
        except Malformed:
            refused += 1
    assert refused >= 2


# ------------------------------------------------------------------------------------------------------ missing extra


@pytest.mark.parametrize("name", ["arrow", "parquet", "jsonl.zst"])
def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    stored = CUT[name](tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'pot-attest\[data\]'"):
        texts(reader(stored))


# ---------------------------------------------------------------------------------------------- formats with an index


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    index = folder / "index.json"
    value = json.loads(index.read_text())
    change(value)
    index.write_text(json.dumps(value))
    return folder


MDS_LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "version": lambda value: value.update(version=1),
    "no list": lambda value: value.update(shards={}),
    "path": lambda value: value["shards"][0]["raw_data"].update(basename="../a.mds"),
    "link away": lambda value: value["shards"][0]["raw_data"].update(basename="/etc/passwd"),
    "other format": lambda value: value["shards"][0].update(format="json"),
    "samples": lambda value: value["shards"][0].update(samples=41),
    "encoding": lambda value: value["shards"][0].update(column_encodings=["bytes"]),
    "pickle": lambda value: value["shards"][0].update(column_encodings=["pkl"]),
    "unknown": lambda value: value["shards"][0].update(column_encodings=["str_decimal"]),
    "size": lambda value: value["shards"][0].update(column_sizes=[8]),
    "names": lambda value: value["shards"][0].update(column_names=["text", "more"]),
    "gzip": lambda value: value["shards"][0].update(raw_data={"basename": "shard.00000.mds.gz"}),
    "absent": lambda value: value["shards"][0]["raw_data"].update(basename="shard.00009.mds"),
}


@pytest.mark.parametrize("name", MDS_LIES)
def test_an_mds_index_that_lies_is_refused(tmp_path: Path, name: str) -> None:
    stored = CUT["mds"](tmp_path)
    rewritten(stored.path, MDS_LIES[name])
    with pytest.raises(UsageError):
        texts(reader(stored))


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("int8", b"12"), ("str_int", b"1e5"), ("str_int", b"0" * 9), ("str_float", b"nan"), ("str_float", b"1_0"),
        ("json", b"{"), ("json", b'{"a":1,"a":2}'), ("ndarray", b""), ("ndarray", b"\x12\x05\x02\0\0"),
        ("ndarray", bytes([8, 1 << 2 | 3]) + b"\xff" * 8), ("ndarray", bytes([8, 0])),
        ("ndarray:uint8", bytes([4, 9]) + b"x"),
        ("pil", b"\xff" * 40), ("pil", struct.pack("<III", 2, 2, 1) + b"P" + b"1234"), ("pil", b""),
    ],
)  # fmt: skip
def test_mds_values_that_do_not_fit_their_encoding_are_refused(tmp_path: Path, encoding: str, data: bytes) -> None:
    sizes = {"v": 1} if encoding == "int8" else None
    stored = mds([{"v": data}], {"v": encoding}, tmp_path / "m", sizes=sizes)
    with pytest.raises(Malformed):
        list(reader(stored, "object").records())


def test_an_mds_shard_over_the_unpacked_cap_is_refused(tmp_path: Path) -> None:
    stored = CUT["mds.zstd"](tmp_path)
    rewritten(stored.path, lambda value: value["shards"][0]["raw_data"].update(bytes=1 << 40))
    with pytest.raises(LimitExceeded, match="unpacked size"):
        texts(reader(stored))
    rewritten(stored.path, lambda value: value["shards"][0]["raw_data"].update(bytes=100))
    with pytest.raises(Malformed, match="cut short"):
        texts(reader(stored))


def index(**changed: Any) -> bytes:
    """Index of two sequences of 2 and 1 int32 tokens, two documents."""
    told = {"magic": b"MMIDIDX\0\0", "version": 1, "code": 4, "sequences": 2, "documents": 3} | changed
    head = told["magic"] + struct.pack("<QBQQ", told["version"], told["code"], told["sequences"], told["documents"])
    lengths, pointers = told.get("lengths", [2, 1]), told.get("pointers", [0, 8])
    marks = told.get("marks", [0, 1, 2])
    parts = np.array(lengths, "<i4").tobytes(), np.array(pointers, "<i8").tobytes(), np.array(marks, "<i8").tobytes()
    return head + b"".join(parts) + told.get("rest", b"")


@pytest.mark.parametrize(
    "changed",
    [
        {"magic": b"MMIDIDX\0\1"}, {"version": 2}, {"code": 6}, {"code": 7}, {"code": 99}, {"sequences": 2**60},
        {"documents": 2**62}, {"lengths": [-1, 4]}, {"lengths": [2, 2]}, {"pointers": [0, 4]}, {"pointers": [0, 2**62]},
        {"marks": [0, 2, 1]}, {"marks": [1, 1, 2]}, {"marks": [0, 1, 5]}, {"marks": [0, -1, 2]}, {"rest": b"\0\0"},
        {"sequences": 3},
    ],
)  # fmt: skip
def test_a_megatron_index_that_lies_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    (tmp_path / "a.bin").write_bytes(np.arange(3, dtype="<i4").tobytes())
    (tmp_path / "a.idx").write_bytes(index(**changed))
    with pytest.raises(Malformed, match=r"a\.idx"):
        list(reader(Stored(tmp_path / "a.bin", "megatron"), "tokens").records())


def test_a_megatron_pair_is_one_shard(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(np.arange(3, dtype="<i4").tobytes())
    (tmp_path / "a.idx").write_bytes(index())
    assert shard_files([tmp_path], "megatron") == [("a.bin", tmp_path / "a.bin")]
    found = reader(Stored(tmp_path / "a.bin", "megatron"), "tokens")
    assert [r.value["tokens"].tolist() for r in found.records() if r.value] == [[0, 1], [2]]
    pair = index() + (tmp_path / "a.bin").read_bytes()
    assert (found.bytes_read, found.sha256) == (len(pair), hashlib.sha256(pair).hexdigest())
    (tmp_path / "a.idx").unlink()
    with pytest.raises(UsageError, match=r"no a\.idx beside it"):
        list(reader(Stored(tmp_path / "a.bin", "megatron"), "tokens").records())


def test_a_folder_of_splits_is_refused_naming_them(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    part = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(tmp_path / "hf")
    with pytest.raises(UsageError, match=r"several splits \('train', 'test'\)"):
        shard_files([tmp_path / "hf"], "hf")
    assert [name for name, _ in shard_files([tmp_path / "hf" / "train"], "hf")] == ["data-00000-of-00001.arrow"]


@pytest.mark.parametrize("name", ["../a.arrow", "/etc/passwd", "", "..", "a\nb.arrow", 3, None, "absent.arrow"])
def test_a_hf_state_that_leads_elsewhere_is_refused(tmp_path: Path, name: Any) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(UsageError):
        shard_files([tmp_path], "hf")


def test_npy_without_plain_integers_is_refused(tmp_path: Path) -> None:
    good = npy(np.arange(3))
    bad = [
        npy(np.zeros(3)), npy(np.array("text")), npy(np.zeros(2, [("a", "i4")])), npy(np.array(["2020"], "M8[D]")),
        good[:-1], good + b"\0", good.replace(b"(3,)", b"(9,)"), good.replace(b"(3,)", b"(-1)"), b"\x93NUMPY", b"",
        good.replace(b"\x01\x00", b"\x09\x00", 1), good.replace(b"(3,)", b"[3 ]"),
    ]  # fmt: skip
    for number, data in enumerate(bad):
        stored = tar([{"npy": data}], tmp_path / f"{number}.tar")
        with pytest.raises(Malformed, match=r"\.npy"):
            list(reader(stored, "tokens").records())


# ----------------------------------------------------------------------------------------------------------------- tar


def test_samples_of_two_shapes_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("a.txt", "a.txt", "b.txt", "README", ".hidden", "c.TXT"):
            archive.addfile(tarfile.TarInfo(name))
    stored = Stored(tmp_path / "a.tar", "webdataset")
    with pytest.raises(Malformed, match="second with this suffix"):
        texts(reader(stored))
    found = reader(stored, on_error="skip")
    assert len(texts(found)) == 2
    assert found.skipped == 3
    twice = tar([{"json": b'{"text":"a"}', "txt": b"b"}], tmp_path / "b.tar")
    with pytest.raises(Malformed, match="two members give the field 'text'"):
        list(reader(twice, "object").records())
    assert texts(reader(twice)) == ["b"]  # a member that is the text goes before a field of the JSON member
    with pytest.raises(Malformed, match="no decimal integer"):
        list(reader(tar([{"cls": b"1.0"}], tmp_path / "c.tar"), "object").records())


def test_whole_samples_are_objects(tmp_path: Path) -> None:
    stored = tar([{"txt": b"a", "cls": b"-7\n", "meta.json": b"[1]", "json": b'{"x":null}'}], tmp_path / "a.tar")
    assert [r.value for r in reader(stored, "object").records()] == [{"text": "a", "cls": -7, "meta": [1], "x": None}]


# ------------------------------------------------------------------------------------------------------- in memory


class Failing(MapStyle):
    def __getitem__(self, index: int) -> Any:
        raise ZeroDivisionError("no such\nthing")


def test_datasets_that_give_no_records_are_refused() -> None:
    for wrong in (3, "text", iter([])):
        with pytest.raises(UsageError, match="map-style"):
            dataset_records(wrong)
    with pytest.raises(UsageError, match="item 0: is a tuple"):
        list(dataset_records(MapStyle([(1, 2)])).records())
    with pytest.raises(Malformed, match=r"item 0: item cannot be read: no such$"):
        list(dataset_records(Failing([1])).records())
    with pytest.raises(Malformed, match="holds a set"):
        list(dataset_records(MapStyle([{"a": {1}}])).records())
    with pytest.raises(PotError, match="no string"):
        list(dataset_records(MapStyle([{1: 1}])).records())


def test_values_of_datasets_become_plain() -> None:
    import torch

    item = {"n": torch.tensor(3), "f": np.float64(0.5), "t": (1, [np.int8(2)]), "x": {"y": torch.tensor([1, 2])}}
    ((record),) = dataset_records([item]).records()
    assert record.value is not None
    assert record.value["x"]["y"].tolist() == [1, 2]
    assert {name: record.value[name] for name in "nft"} == {"n": 3, "f": 0.5, "t": [1, [2]]}
