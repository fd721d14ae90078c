"""A50: pickles, links, special files, absurd shapes and sizes in a release bundle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from simulated_release import Simulation, failed, judge, made_points, unchecked, written

from attest import bundle
from attest.bundle import read_release
from attest.verdict.verify import verify
from pot.errors import LimitExceeded, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(Simulation(), tmp_path / "release")


def test_what_is_read_is_what_was_written(folder: Path) -> None:
    simulation = Simulation()
    release = simulation.release()
    read = read_release(folder)
    assert (read.files, read.weights, len(read.lines)) == (release.files, release.weights, len(release.lines))
    assert {name: read.object(name) for name in read.objects} == dict(release.objects)


@pytest.mark.parametrize("place", ["model.safetensors", "extra.bin", "claims.jsonl", ".pot", ".pot/objects"])
def test_links_are_refused(folder: Path, tmp_path: Path, place: str) -> None:
    target = folder / place
    if target.exists():
        target.rename(tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        read_release(folder)


def test_a_link_to_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UsageError, match="symbolic link"):
        read_release(tmp_path / "link")


def test_a_linked_object_is_not_there(folder: Path, tmp_path: Path) -> None:
    simulation = Simulation()
    name = sorted(simulation.release().objects)[0]
    path = folder / ".pot/objects" / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    report = verify(read_release(folder), simulation.policy(), step_verifier=judge, point_maker=made_points)
    assert report.verdict == "INCOMPLETE"
    assert ("object", f".pot/objects/{name}") in {(note.code, note.subject) for note in report.notes}


def test_a_pipe_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / ".pot/objects" / ("0" * 64))
    assert read_release(folder).object("0" * 64) is None
    os.mkfifo(folder / "model.bin")
    with pytest.raises(UsageError):
        read_release(folder)


def test_too_many_lines_are_refused_before_any_is_parsed(folder: Path) -> None:
    (folder / "claims.jsonl").write_bytes(b"x\n" * (bundle.MAX_LINES + 1))
    with pytest.raises(LimitExceeded, match="lines"):
        read_release(folder)


def test_an_object_over_the_budget_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bundle, "MAX_TOTAL_BYTES", sum(p.stat().st_size for p in folder.iterdir() if p.is_file()) + 5000
    )
    report = verify(read_release(folder), Simulation().policy())
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()


@pytest.mark.parametrize("claims", [b"", b"\n\n", b"\x00\xff\n", b"{}\n", b"[" * 100_000 + b"\n", b"x" * (1 << 21)])
def test_hostile_claims_give_a_report(folder: Path, claims: bytes) -> None:
    (folder / "claims.jsonl").write_bytes(claims)
    report = verify(read_release(folder), Simulation().policy())
    assert report.verdict == "INCOMPLETE"
    assert "identity" in unchecked(report)


PICKLE = b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
HUGE = b'{"w":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    "weights", [PICKLE, b"", b"\xff" * 64, len(HUGE).to_bytes(8, "little") + HUGE + b"1234", b"PK\x03\x04" * 10]
)
def test_weights_that_are_not_safetensors_are_denied(weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the developer certifies them."""
    monkeypatch.setattr("simulated_release.floats", lambda data: weights)
    report = Simulation().verify()
    assert report.verdict == "DENY"
    assert "operation" in failed(report)


@pytest.mark.parametrize("missing", ["absent", "file"])
def test_one_sentence_for_no_folder(tmp_path: Path, missing: str) -> None:
    path = tmp_path / missing
    if missing == "file":
        path.write_text("x")
    with pytest.raises(UsageError):
        read_release(path)
