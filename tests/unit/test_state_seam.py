"""The recorder's seam: any state source, points that come at the end of a segment, and a crash in between."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun, prepare
from toy_training import Sums, config

from pot import begin, record
from pot.commitments.state import TensorEntry, entries_from_safetensors, tensors_digest
from pot.data.readers import RecordDataset
from pot.errors import Malformed, Refused, UsageError
from pot.recording import state as seam
from pot.recording.state import (
    capture_rng,
    digests,
    read_components,
    restore_rng,
    write_components,
)
from pot.recording.transcript import Points


class Pointed(Sums):
    """A source with made-up points; `asked` are the segments that the recorder asked for."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.asked: list[list[int]] = []

    def points_for_segment(self, steps: list[int]) -> list[Points]:
        self.asked.append(steps)
        return [Points(before=f"{n:0128x}", batch="0" * 128, after=f"{n + 1:0128x}") for n in steps]


def _train(run: RecordedRun, source: type[Sums] = Pointed, stop: int | None = None) -> Any:
    begun = begin(
        run.run_dir,
        commitments=[run.folder / "train.json"],
        config=config(12, 5, 4),
        inputs=[run.folder / "train.jsonl"],
        semantics="exact",
    )
    state = source(begun.torch_seed("init"))
    dataset = RecordDataset(run.folder / "train.jsonl")
    with record(begun, state=state, data=dataset) as recording:
        for items in recording.batches(dataset):
            recording.step(loss=state.update(items))
            if recording.done == stop:
                break
    return state


def test_points_are_asked_for_once_per_segment_and_stand_in_every_step(tmp_path: Path) -> None:
    run = prepare(tmp_path / "program")
    state = _train(run)
    assert state.asked == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12]]
    assert run.codes() == []
    steps = [event for event in run.events() if event["type"] == "step"]
    assert [int(event["points"]["before"], 16) for event in steps] == list(range(1, 13))


def test_a_stop_loses_only_the_open_segment(tmp_path: Path) -> None:
    run = prepare(tmp_path / "program")
    _train(run, stop=8)
    assert [event["step"] for event in run.events() if event["type"] == "step"] == ["1", "2", "3", "4", "5"]
    state = _train(run)
    assert state.asked == [[6, 7, 8, 9, 10], [11, 12]]
    assert run.codes() == []
    whole = prepare(tmp_path / "whole")
    whole.run_dir.mkdir()
    for name in ("precommit.json", "nonce.json"):
        (whole.run_dir / name).write_bytes((run.run_dir / name).read_bytes())
    assert _train(whole).weights == state.weights


def test_a_wrong_number_of_points_stops_the_run(tmp_path: Path) -> None:
    class Short(Pointed):
        def points_for_segment(self, steps: list[int]) -> list[Points]:
            return super().points_for_segment(steps)[:-1]

    with pytest.raises(UsageError, match="4 points for 5 steps"):
        _train(prepare(tmp_path / "program"), Short)


def test_recording_without_torch_does_not_import_it(tmp_path: Path) -> None:
    run = prepare(tmp_path / "program")
    (run.folder / "toy_training.py").write_text(
        (run.folder / "toy_training.py").read_text(encoding="utf-8")
        + "    assert 'torch' not in sys.modules\n    print('light')\n",
        encoding="utf-8",
    )
    done = run.start()
    assert done.stdout == "light\n", done.stderr


def test_importing_pot_is_light() -> None:
    code = "import sys, pot; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules); assert callable(pot.record)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_components_read_back_with_their_digests(tmp_path: Path) -> None:
    tensors = [
        TensorEntry("a", "U8", (3,), b"\1\2\3"),
        TensorEntry("b", "F64", (1, 2), b"\0" * 16),
        TensorEntry("c", "I64", (), b"\7" * 8),
        TensorEntry("d", "F32", (0,), b""),
    ]
    write_components(tmp_path, {"model": tensors, "scheduler": {"n": 1}})
    found = read_components(tmp_path, ["model", "scheduler"])
    assert digests(found) == digests({"model": tensors, "scheduler": {"n": 1}})
    data = (tmp_path / "model.safetensors").read_bytes()
    assert tensors_digest("model", entries_from_safetensors(data)) == digests(found)["model"]


def test_files_of_a_checkpoint_are_those_that_safetensors_reads(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    write_components(tmp_path, {"model": [TensorEntry("w", "I64", (2,), (5).to_bytes(8, "little") * 2)]})
    assert numpy.load((tmp_path / "model.safetensors").read_bytes())["w"].tolist() == [5, 5]


def test_generators_come_back_exactly() -> None:
    import numpy

    random.gauss(0, 1)
    state = capture_rng()
    drawn = random.random(), random.gauss(0, 1), numpy.random.random()
    restore_rng(state, what="state")
    assert (random.random(), random.gauss(0, 1), numpy.random.random()) == drawn


@pytest.mark.parametrize(
    "state", [None, {}, {"python": []}, {"python": ["3", "zz", "none"]}, {"python": ["3", "00", "x"]}]
)
def test_generator_states_of_another_form_are_refused(state: Any) -> None:
    with pytest.raises(Malformed, match="not the state of the random generators"):
        restore_rng(state, what="state")


def test_a_transcript_of_another_nonce_is_not_continued(tmp_path: Path) -> None:
    run = prepare(tmp_path / "program")
    _train(run, stop=6)
    events = run.events()
    events[0]["nonce"] = "11" * 32
    run.relink(events)
    with pytest.raises(Refused, match="not of this pre-commitment and nonce"):
        _train(run)


def _two_parts(first: int, second: int) -> dict[str, Any]:
    draw = random.Random(7)
    sizes = {"model": first, "optimizer": second}
    return {
        **{name: [TensorEntry("t", "U8", (size,), draw.randbytes(size))] for name, size in sizes.items()},
        "cursor": {"step": "3"},
    }


@pytest.mark.parametrize(
    ("cores", "first", "second", "hashers"),
    [
        (2, 1 << 20, 2 << 20, {"model": "pot-hasher_0", "optimizer": "MainThread"}),
        (2, 3 << 20, 2 << 20, {"model": "MainThread", "optimizer": "pot-hasher_0"}),
        (2, 1 << 10, 4 << 20, {"model": "MainThread", "optimizer": "MainThread"}),  # nearly all of it is one part
        (2, 1 << 10, 2 << 10, {"model": "MainThread", "optimizer": "MainThread"}),  # not worth a thread
        (4, 1 << 20, 2 << 20, {"model": "MainThread", "optimizer": "MainThread"}),
    ],
)
def test_two_cores_hash_a_part_each_and_the_digests_are_those_of_one_core(
    cores: int, first: int, second: int, hashers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}

    def watched(kind: str, entries: Any, *, threads: int = 1) -> str:
        seen[kind] = threading.current_thread().name
        return tensors_digest(kind, entries, threads=threads)

    parts = _two_parts(first, second)
    alone = digests(parts)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(seam, "tensors_digest", watched)
    assert list(digests(parts, threads=0).items()) == list(alone.items())
    assert seen == hashers


def test_what_the_other_core_refuses_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    parts = _two_parts(2 << 20, 2 << 20)
    parts["optimizer"] *= 2  # one name twice, in the larger part
    with pytest.raises(Malformed, match="names must ascend"):
        digests(parts, threads=0)


def test_only_a_durable_file_has_its_sha256_made(tmp_path: Path) -> None:
    value = [TensorEntry("t", "U8", (3,), b"abc")]
    kept = seam.write_files(tmp_path, {"model": value}, durable=True)["model.safetensors"]
    written = (tmp_path / "model.safetensors").read_bytes()
    assert kept == (len(written), seam.file_sha256(tmp_path / "model.safetensors"))
    assert seam.write_files(tmp_path, {"model": value})["model.safetensors"] == (len(written), "")
    assert (tmp_path / "model.safetensors").read_bytes() == written
