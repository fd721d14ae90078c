"""Tensors cut by rows: what each process holds, put together again, and one digest from either."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pot.commitments.sharded import join_entries, joined_digest, rows_of, shard_entries, sharded_digest
from pot.commitments.state import TensorEntry, tensors_digest
from pot.errors import LimitExceeded, Malformed
from pot.recording.state import digests, read_components, write_components
from pot.recording.transcript import StateFile
from pot.recording.writing.file_names import checkpoint_files, component_files, file_count, shard_name

ROOT = Path(__file__).parents[2]


def tensor(name: str, *shape: int) -> TensorEntry:
    count = 1
    for size in shape:
        count *= size
    return TensorEntry(name, "U16", shape, bytes(place % 251 for place in range(2 * count)))


def model() -> list[TensorEntry]:
    return [tensor("a", 5, 3), tensor("b"), tensor("c", 1), tensor("d", 0, 4), tensor("e", 7), tensor("f", 4, 0)]


def test_the_example_of_the_specification() -> None:
    text = (ROOT / "specs" / "commitments.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(D_0|D_1|digest) += ([0-9a-f]{64})$", text, re.MULTILINE))
    entries = [TensorEntry("b", "F32", (), struct.pack("<f", 1.5)), TensorEntry("w", "U8", (3, 2), bytes(range(6)))]
    held = [shard_entries(entries, rank, 2) for rank in (0, 1)]
    assert [(item.name, item.shape, bytes(item.data)) for item in held[1]] == [("w", (1, 2), b"\4\5")]
    assert [tensors_digest("model", part) for part in held] == [found["D_0"], found["D_1"]]
    assert sharded_digest("model", entries, 2) == found["digest"]


def test_pytorchs_cut_is_the_specifications() -> None:
    torch = pytest.importorskip("torch")
    for count in range(1, 12):
        for world in range(1, 6):
            chunks = [list(chunk) for chunk in torch.arange(count).chunk(world)]
            chunks += [[]] * (world - len(chunks))
            assert [list(range(*rows_of(count, rank, world))) for rank in range(world)] == chunks


@given(st.integers(1, 9), st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=5))
def test_parts_join_to_the_whole_and_give_its_digest(world: int, shapes: list[list[int]]) -> None:
    whole = [tensor(f"t{place}", *shape) for place, shape in enumerate(shapes)]
    parts = [shard_entries(whole, rank, world) for rank in range(world)]
    joined = join_entries(parts)
    assert [(e.name, e.dtype, e.shape, bytes(e.data)) for e in joined] == [
        (e.name, e.dtype, e.shape, bytes(e.data)) for e in whole
    ]
    assert joined_digest("model", [tensors_digest("model", part) for part in parts]) == sharded_digest(
        "model", whole, world
    )


def test_the_digest_tells_processes_components_and_tensors_apart() -> None:
    other = [replace(model()[0], data=b"\1" + bytes(model()[0].data)[1:]), *model()[1:]]
    found = {
        tensors_digest("model", model()),
        *(sharded_digest("model", model(), world) for world in (1, 2, 3, 65536)),
        sharded_digest("optimizer", model(), 2),
        sharded_digest("model", other, 2),
    }
    assert len(found) == 7


def test_what_no_cut_makes_is_refused() -> None:
    first, second = (shard_entries(model(), rank, 2) for rank in (0, 1))
    forgeries = {
        "process 0 does not hold 3 of its 5 rows": [second, first],
        r"process 0 does not hold 2 of its 3 rows": [first, []],
        "cannot be cut, but process 1 holds it": [first, [*second, tensor("b")]],
        "process 0 does not hold 1 of its 1 rows": [[], [tensor("c", 1)]],
        "process 0 does not hold 1 of its 2 rows": [[tensor("c", 2)], [], []],
        "rows of different kinds": [first, [replace(second[0], dtype="I16"), *second[1:]]],
    }
    for sentence, parts in forgeries.items():
        with pytest.raises(Malformed, match=sentence):
            join_entries(parts)
    many = [tensor(f"t{number:03}", 65536) for number in range(33)]
    with pytest.raises(LimitExceeded, match="65536 processes cut it into 2162688 pieces"):
        sharded_digest("model", many, 65536)
    with pytest.raises(Malformed, match="which its shape does not explain"):
        sharded_digest("model", [replace(tensor("a", 3), data=b"12")], 2)
    with pytest.raises(Malformed, match="unknown dtype"):
        shard_entries([replace(tensor("a", 3), dtype="F80")], 0, 2)


def test_files_of_rows_are_read_as_whole_tensors(tmp_path: Path) -> None:
    components = {"model": model(), "scheduler": {"last_epoch": 3}}
    write_components(tmp_path, components, processes=3)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"scheduler.json", *(shard_name("model", rank, 3) for rank in range(3))}
    found = read_components(tmp_path, ["model", "scheduler"], processes=3)
    assert digests(found, processes=3) == digests(components, processes=3)
    assert digests(found)["model"] != digests(found, processes=3)["model"]


def test_names_of_files() -> None:
    components = ["cursor", "frozen", "model", "optimizer", "rng", "scheduler"]
    for processes, count in ((1, 4), (2, 6), (300, 602)):
        wanted = checkpoint_files(20, components, processes=processes)
        assert len(wanted) == count == file_count(components, processes=processes)
    assert frozenset({"checkpoints/step-000020/optimizer-00001-of-00002.safetensors"}) in checkpoint_files(
        20, components, processes=2
    )
    assert not any("00000" in path for paths in checkpoint_files(20, components) for path in paths)
    files = [StateFile(path=f"checkpoints/step-000020/{name}", bytes="8", sha256="0" * 64) for name in (
        shard_name("model", 1, 2), "state.json", shard_name("optimizer", 0, 2), shard_name("model", 0, 2),
    )]  # fmt: skip
    found = [file.path.rpartition("/")[2] for file in component_files(files, "model")]
    assert found == [shard_name("model", 0, 2), shard_name("model", 1, 2)]


def test_no_torch_is_needed() -> None:
    code = "import sys, pot.commitments.sharded; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
