"""Writers: the same records into every container that can hold them, as the containers' own libraries write them.

`WRITERS[kind]` maps the name of a way to store records of that kind to a function (values, folder) -> `Stored`. MDS and
Megatron files are written here, after their formats' descriptions: their libraries are not installed.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from PIL import Image

JSON = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """Where records lie and how: `path` (or a `dataset` in memory), `container`, `fields`."""

    path: Path
    container: str
    fields: dict[str, str] = field(default_factory=dict)
    dataset: Any = None


Writer = Callable[[Sequence[Any], Path], Stored]


# ------------------------------------------------------------------------------------------------ one container each


def jsonl(records: Iterable[JSON], path: Path) -> Stored:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
    return Stored(path, "jsonl")


def jsonl_zst(records: Iterable[JSON], path: Path, frame: int = 1 << 30) -> Stored:
    """`frame`: lines in one zstd frame."""
    lines = [json.dumps(record).encode() + b"\n" for record in records]
    packed = [zstandard.compress(b"".join(part)) for part in _parts(lines, frame)]
    path.write_bytes(b"".join(packed))
    return Stored(path, "jsonl.zst")


def arrow_file(table: Any, path: Path, batch: int = 1000, **options: Any) -> Stored:
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=batch)
    return Stored(path, "arrow")


def arrow_stream(table: Any, path: Path, batch: int = 1000) -> Stored:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return Stored(path, "arrow")


def parquet(table: Any, path: Path, group: int = 1000, **options: Any) -> Stored:
    pq.write_table(table, path, row_group_size=group, **options)
    return Stored(path, "parquet")


def hf(columns: dict[str, list[Any]], folder: Path, features: Any = None, shards: int = 2) -> Stored:
    import datasets

    datasets.disable_progress_bars()
    count = len(next(iter(columns.values())))
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder, num_shards=min(shards, count))
    return Stored(folder, "hf")


def tar(samples: Iterable[dict[str, bytes]], path: Path, form: int = tarfile.PAX_FORMAT, folder: str = "") -> Stored:
    """`samples`: suffix -> content."""
    with tarfile.open(path, "w", format=form) as archive:
        for number, sample in enumerate(samples):
            for suffix, content in sample.items():
                member = tarfile.TarInfo(f"{folder}{number:06}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return Stored(path, "webdataset")


def mds(
    samples: Sequence[dict[str, bytes]],
    encodings: dict[str, str],
    folder: Path,
    shard: int = 1000,
    packed: bool = False,
    sizes: dict[str, int] | None = None,
) -> Stored:
    """`samples`: column -> encoded bytes. `sizes`: of the columns whose values have all the same. `shard`: samples."""
    folder.mkdir()
    names = sorted(encodings)
    widths = [(sizes or {}).get(name) for name in names]
    columns = {
        "column_encodings": [encodings[name] for name in names], "column_names": names, "column_sizes": widths,
        "compression": "zstd" if packed else None, "format": "mds", "hashes": [], "size_limit": 1 << 26, "version": 2,
    }  # fmt: skip
    entries = []
    for number, part in enumerate(_parts(samples, shard)):
        raw, name = mds_shard(part, names, widths, columns), f"shard.{number:05}.mds"
        entry = {**columns, "raw_data": {"basename": name, "bytes": len(raw), "hashes": {}}, "zip_data": None}
        if packed:
            raw, name = zstandard.compress(raw), name + ".zstd"
            entry["zip_data"] = {"basename": name, "bytes": len(raw), "hashes": {}}
        (folder / name).write_bytes(raw)
        entries.append({**entry, "samples": len(part)})
    (folder / "index.json").write_text(json.dumps({"shards": entries, "version": 2}))
    return Stored(folder, "mds")


def mds_shard(samples: Sequence[dict[str, bytes]], names: list[str], widths: list[int | None], columns: JSON) -> bytes:
    bodies = []
    for sample in samples:
        head = b"".join(
            struct.pack("<I", len(sample[name])) for name, width in zip(names, widths, strict=True) if width is None
        )
        bodies.append(head + b"".join(sample[name] for name in names))
    config = json.dumps(columns, sort_keys=True).encode()
    first = 4 + 4 * (len(bodies) + 1) + len(config)
    offsets = np.cumsum([first, *(len(body) for body in bodies)]).astype("<u4")
    return struct.pack("<I", len(bodies)) + offsets.tobytes() + config + b"".join(bodies)


MEGATRON_CODES = {"u1": 1, "i1": 2, "i2": 3, "i4": 4, "i8": 5, "u2": 8}


def megatron(
    sequences: Sequence[Sequence[int]], path: Path, dtype: str = "<i4", documents: Sequence[int] = ()
) -> Stored:
    """`path`: the .bin. `documents`: where documents begin and end, in sequences; () for none."""
    path.write_bytes(b"".join(np.array(sequence, dtype).tobytes() for sequence in sequences))
    lengths = np.array([len(sequence) for sequence in sequences], "<i4")
    ends = np.cumsum(lengths, dtype="<i8") * np.dtype(dtype).itemsize
    pointers = ends - lengths * np.dtype(dtype).itemsize
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, MEGATRON_CODES[dtype[1:]], len(sequences), len(documents))
    marks = np.array(documents, "<i8")
    path.with_suffix(".idx").write_bytes(head + lengths.tobytes() + pointers.astype("<i8").tobytes() + marks.tobytes())
    return Stored(path, "megatron")


def files(contents: Iterable[bytes], folder: Path, suffix: str = ".bin", container: str = "file") -> Stored:
    folder.mkdir()
    for number, content in enumerate(contents):
        (folder / f"{number:06}{suffix}").write_bytes(content)
    return Stored(folder, container)


class MapStyle:
    """A torch map-style dataset without torch: `__len__` and `__getitem__`."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def map_style(items: Sequence[Any], path: Path) -> Stored:
    return Stored(path, "dataset", dataset=MapStyle(items))


def torch_dataset(tensors: Sequence[dict[str, Any]], path: Path) -> Stored:
    """Values become tensors of a real `torch.utils.data.Dataset`."""
    import torch

    class Tensors(torch.utils.data.Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return len(tensors)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {name: torch.tensor(value) for name, value in tensors[index].items()}

    return Stored(path, "dataset", dataset=Tensors())


def _parts(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)] or [[]]


# -------------------------------------------------------------------------------------------------- forms of one value


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def encoded(pixels: Any, form: str) -> bytes:
    """`pixels`: rows of values, or of lists of three. `form`: PNG, BMP, PPM."""
    stream = io.BytesIO()
    Image.fromarray(np.array(pixels, np.uint8)).save(stream, form)
    return stream.getvalue()


def mds_array(array: Any) -> bytes:
    """dtype code, (axes << 2 | width of extents), extents, values."""
    codes = {"uint8": 8, "uint16": 16, "int32": 33, "uint32": 32, "int64": 65}
    return (
        bytes([codes[array.dtype.name], array.ndim << 2 | 1]) + np.array(array.shape, "<u2").tobytes() + array.tobytes()
    )


def mds_pil(pixels: Any) -> bytes:
    array = np.array(pixels, np.uint8)
    mode = b"L" if array.ndim == 2 else b"RGB"
    return struct.pack("<III", array.shape[1], array.shape[0], len(mode)) + mode + array.tobytes()


def text_column(texts: Sequence[str], kind: Any) -> Any:
    column = pa.array(list(texts), pa.string())
    return column.dictionary_encode() if kind == "dictionary" else column.cast(kind)


def _texts(texts: Sequence[str], kind: Any = "string", name: str = "text") -> Any:
    # further columns stand beside the wanted one, and the array starts in the middle of its buffers
    texts = ["not a record", *texts, "nor this"]
    table = pa.table(
        {"n": pa.array(range(len(texts))), name: text_column(texts, kind), "d": pa.array([b"x"] * len(texts))}
    )
    return table.slice(1, len(texts) - 2)


def _tokens(rows: Sequence[Sequence[int]], kind: Any) -> Any:
    return pa.table({"tokens": pa.array([[7], *rows], kind)}).slice(1)


def _named(values: Sequence[Any], name: str) -> list[JSON]:
    return [{name: value} for value in values]


# --------------------------------------------------------------------------------------------------- what can hold what


def text_writers() -> dict[str, Writer]:
    found: dict[str, Writer] = {
        "jsonl": lambda v, f: jsonl(_named(v, "text"), f / "a.jsonl"),
        "jsonl, another field": lambda v, f: _renamed(jsonl(_named(v, "content"), f / "a.jsonl")),
        "jsonl.zst": lambda v, f: jsonl_zst(_named(v, "text"), f / "a.jsonl.zst"),
        "jsonl.zst, frames": lambda v, f: jsonl_zst(_named(v, "text"), f / "a.jsonl.zst", 2),
        "arrow stream": lambda v, f: arrow_stream(_texts(v), f / "a.arrow", 3),
        "arrow, lz4": lambda v, f: arrow_file(_texts(v), f / "a.arrow", 3, compression="lz4"),
        "arrow, another column": lambda v, f: _renamed(arrow_file(_texts(v, "string", "content"), f / "a.arrow")),
        "parquet, zstd": lambda v, f: parquet(_texts(v), f / "a.parquet", 4, compression="zstd"),
        "parquet, no dictionary": lambda v, f: parquet(_texts(v), f / "a.parquet", use_dictionary=False),
        "hf": lambda v, f: hf({"text": list(v), "id": list(range(len(v)))}, f / "hf"),
        "webdataset": lambda v, f: tar([{"txt": text.encode()} for text in v], f / "a.tar"),
        "webdataset, gnu": lambda v, f: tar(
            [{"cls": b"3", "txt": text.encode()} for text in v], f / "a.tar", tarfile.GNU_FORMAT, "d" * 120 + "/"
        ),
        "webdataset, json": lambda v, f: tar([{"json": json.dumps({"text": t}).encode()} for t in v], f / "a.tar"),
        "webdataset, content.txt": lambda v, f: _renamed(
            tar([{"content.txt": t.encode(), "a.txt": b""} for t in v], f / "a.tar", tarfile.USTAR_FORMAT)
        ),
        "mds": lambda v, f: mds(
            [{"text": t.encode(), "n": bytes(8)} for t in v], {"text": "str", "n": "int"}, f / "m", 3, sizes={"n": 8}
        ),
        "mds, zstd": lambda v, f: mds([{"text": t.encode()} for t in v], {"text": "str"}, f / "m", 4, packed=True),
        "text files": lambda v, f: files([t.encode() for t in v], f / "t", ".txt", "text"),
        "map-style": lambda v, f: map_style(_named(v, "text"), f),
    }
    kinds = {"string": "string", "large": "large_string", "view": "string_view", "dictionary": "dictionary"}
    for (name, kind), batch in itertools.product(kinds.items(), (1, 3, 1000)):
        found[f"arrow, {name}, {batch}"] = partial(_arrow_of, kind=kind, batch=batch)
        if name != "view":
            found[f"parquet, {name}, {batch}"] = partial(_parquet_of, kind=kind, batch=batch)
    return found


def _arrow_of(texts: Sequence[str], folder: Path, kind: str, batch: int) -> Stored:
    return arrow_file(_texts(texts, kind), folder / "a.arrow", batch, emit_dictionary_deltas=True)


def _parquet_of(texts: Sequence[str], folder: Path, kind: str, batch: int) -> Stored:
    return parquet(_texts(texts, kind), folder / "a.parquet", batch)


def _renamed(stored: Stored) -> Stored:
    return Stored(stored.path, stored.container, {"text": "content"})


def token_writers() -> dict[str, Writer]:
    return {
        "jsonl": lambda v, f: jsonl(_named(v, "tokens"), f / "a.jsonl"),
        "jsonl.zst": lambda v, f: jsonl_zst(_named(v, "tokens"), f / "a.jsonl.zst"),
        "arrow": lambda v, f: arrow_file(_tokens(v, pa.list_(pa.int32())), f / "a.arrow", 2),
        "arrow, large": lambda v, f: arrow_stream(_tokens(v, pa.large_list(pa.uint32())), f / "a.arrow", 2),
        "parquet": lambda v, f: parquet(_tokens(v, pa.list_(pa.int64())), f / "a.parquet", 2),
        "hf": lambda v, f: hf({"tokens": [list(row) for row in v]}, f / "hf"),
        "webdataset, npy": lambda v, f: tar([{"npy": npy(np.array(row, ">i4"))} for row in v], f / "a.tar"),
        "webdataset, tokens.npy": lambda v, f: tar([{"tokens.npy": npy(np.array(r, "<u2"))} for r in v], f / "a.tar"),
        "webdataset, json": lambda v, f: tar(
            [{"json": json.dumps({"tokens": row}).encode()} for row in v], f / "a.tar"
        ),
        "mds": lambda v, f: mds(
            [{"tokens": mds_array(np.array(row, np.int32))} for row in v], {"tokens": "ndarray"}, f / "m", 2
        ),
        "mds, dtype": lambda v, f: mds(
            [{"tokens": mds_array(np.array(row, np.int64))[1:]} for row in v], {"tokens": "ndarray:int64"}, f / "m"
        ),
        "mds, json": lambda v, f: mds([{"tokens": json.dumps(row).encode()} for row in v], {"tokens": "json"}, f / "m"),
        "megatron": lambda v, f: megatron(v, f / "a.bin"),
        "megatron, u16": lambda v, f: megatron(v, f / "a.bin", "<u2", range(len(v) + 1)),
        "megatron, documents": lambda v, f: megatron(
            [part for row in v for part in (row[:2], row[2:])], f / "a.bin", "<i8", range(0, 2 * len(v) + 1, 2)
        ),
        "map-style": lambda v, f: map_style(_named(v, "tokens"), f),
        "torch": lambda v, f: torch_dataset(_named(v, "tokens"), f),
    }


def image_writers() -> dict[str, Writer]:
    def hf_images(values: Sequence[Any], folder: Path) -> Stored:
        import datasets

        packed = [{"bytes": encoded(value, "PNG"), "path": None} for value in values]
        return hf({"image": packed}, folder / "hf", datasets.Features({"image": datasets.Image()}))

    def binary(values: Sequence[Any]) -> Any:
        return pa.table({"image": pa.array([encoded(value, "PNG") for value in values], pa.binary())})

    found: dict[str, Writer] = {
        "jsonl": lambda v, f: jsonl(_named(v, "image"), f / "a.jsonl"),
        "arrow, lists": lambda v, f: arrow_file(pa.table({"image": list(v)}), f / "a.arrow", 2),
        "arrow, png": lambda v, f: arrow_file(binary(v), f / "a.arrow", 2),
        "parquet, lists": lambda v, f: parquet(pa.table({"image": list(v)}), f / "a.parquet", 2),
        "hf, Image": hf_images,
        "hf, lists": lambda v, f: hf({"image": list(v)}, f / "hf"),
        "webdataset, npy": lambda v, f: tar([{"image.npy": npy(np.array(i, np.uint8))} for i in v], f / "a.tar"),
        "mds, png": lambda v, f: mds([{"image": encoded(i, "PNG")} for i in v], {"image": "png"}, f / "m"),
        "mds, pil": lambda v, f: mds([{"image": mds_pil(i)} for i in v], {"image": "pil"}, f / "m"),
        "mds, ndarray": lambda v, f: mds(
            [{"image": mds_array(np.array(i, np.uint8))} for i in v], {"image": "ndarray"}, f / "m"
        ),
        "map-style": lambda v, f: map_style([{"image": np.array(i, np.uint8)} for i in v], f),
        "map-style, PIL": lambda v, f: map_style([{"image": Image.fromarray(np.array(i, np.uint8))} for i in v], f),
    }
    for form in ("PNG", "BMP", "PPM"):
        found[f"files, {form}"] = partial(_image_files, form=form)
        found[f"webdataset, {form}"] = partial(_image_tar, form=form)
    return found


def _image_files(values: Sequence[Any], folder: Path, form: str) -> Stored:
    return files([encoded(value, form) for value in values], folder / "images", f".{form.lower()}", "images")


def _image_tar(values: Sequence[Any], folder: Path, form: str) -> Stored:
    return tar([{form.lower(): encoded(value, form), "cls": b"1"} for value in values], folder / "a.tar")


def object_writers() -> dict[str, Writer]:
    """For records of one shape: id (integer), score (real), name (string or null), tags (strings), at (object)."""
    encodings = {"id": "int", "score": "float64", "name": "json", "tags": "json", "at": "json"}

    def table(values: Sequence[JSON], text: Any, integer: Any) -> Any:
        plain = pa.large_string() if text == pa.large_string() else pa.string()
        fields = [
            ("score", pa.float64()), ("id", integer), ("name", text), ("tags", pa.list_(plain)),
            ("at", pa.struct([("y", pa.list_(pa.bool_())), ("x", pa.int16())])),
        ]  # fmt: skip
        return pa.Table.from_pylist([*values, *values], pa.schema(fields)).slice(len(values))

    def mds_sample(value: JSON) -> dict[str, bytes]:
        written = {name: json.dumps(value[name]).encode() for name in ("name", "tags", "at")}
        return {**written, "id": struct.pack("<q", value["id"]), "score": struct.pack("<d", value["score"])}

    return {
        "jsonl": lambda v, f: jsonl(v, f / "a.jsonl"),
        "jsonl.zst": lambda v, f: jsonl_zst(v, f / "a.jsonl.zst"),
        "arrow": lambda v, f: arrow_file(table(v, pa.string(), pa.int64()), f / "a.arrow", 2),
        "arrow, large": lambda v, f: arrow_stream(table(v, pa.large_string(), pa.uint64()), f / "a.arrow"),
        "parquet": lambda v, f: parquet(table(v, pa.string(), pa.int32()), f / "a.parquet", 2),
        "parquet, dictionary": lambda v, f: parquet(
            table(v, pa.dictionary(pa.int8(), pa.string()), pa.int64()), f / "a.parquet"
        ),
        "hf": lambda v, f: hf({name: [value[name] for value in v] for name in v[0]}, f / "hf"),
        "webdataset": lambda v, f: tar([{"json": json.dumps(value).encode()} for value in v], f / "a.tar"),
        "webdataset, members": lambda v, f: tar(
            [{f"{name}.json": json.dumps(value[name]).encode() for name in value} for value in v], f / "a.tar"
        ),
        "mds": lambda v, f: mds([mds_sample(x) for x in v], encodings, f / "m", 2, sizes={"id": 8, "score": 8}),
        "map-style": lambda v, f: map_style(v, f),
    }


def bytes_writers() -> dict[str, Writer]:
    def table(values: Sequence[bytes], kind: Any) -> Any:
        return pa.table({"bytes": pa.array([b"before", *values], pa.binary()).cast(kind)}).slice(1)

    return {
        "files": lambda v, f: files(v, f / "b"),
        "arrow": lambda v, f: arrow_file(table(v, pa.binary()), f / "a.arrow", 2),
        "arrow, large": lambda v, f: arrow_stream(table(v, pa.large_binary()), f / "a.arrow", 3),
        "parquet": lambda v, f: parquet(table(v, pa.binary()), f / "a.parquet", 2),
        "hf": lambda v, f: hf({"bytes": list(v)}, f / "hf"),
        "webdataset": lambda v, f: tar([{"bin": value} for value in v], f / "a.tar"),
        "mds": lambda v, f: mds([{"bytes": value} for value in v], {"bytes": "bytes"}, f / "m", 2),
        "map-style": lambda v, f: map_style(_named(v, "bytes"), f),
        "map-style, bare": lambda v, f: map_style(v, f),
    }


WRITERS: dict[str, dict[str, Writer]] = {
    "text": text_writers(),
    "tokens": token_writers(),
    "image": image_writers(),
    "object": object_writers(),
    "bytes": bytes_writers(),
}

VALUES: dict[str, list[Any]] = {
    "text": ["a", "two words", "", "Ünïcödé ☃ 😀", "line\nbreak\r\n", "\ufeffmark", "e\u0301", "x" * 5000, "a"],
    "tokens": [[1, 2, 3], [65535], [5, 4, 3, 2, 1, 0], [1, 2, 3], [9] * 300],
    "image": [[[0, 255, 7], [1, 2, 3]], [[9]], [[1, 2], [3, 4], [5, 6]], [[0] * 20] * 20],
    "object": [
        {"id": 1, "score": 0.5, "name": "ä", "tags": ["x", "y"], "at": {"x": 1, "y": [True, False]}},
        {"id": 2**31 - 1, "score": 1e300, "name": None, "tags": [], "at": {"x": -3, "y": []}},
        {"id": 0, "score": -7.0, "name": "", "tags": ["😀"], "at": {"x": 0, "y": [False]}},
        {"id": 1, "score": 0.5, "name": "ä", "tags": ["x", "y"], "at": {"x": 1, "y": [True, False]}},
    ],
    "bytes": [b"\x00\x01", b"", b"\xff" * 300, bytes(range(256)), b"\x00\x01"],
}
"""Records of each kind that every writer of that kind can hold."""
