"""A model's files: what is hashed, in which order, and what is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pot.commitments.model import ModelFile, model_digest, model_files, names_digest, safe_files
from pot.errors import LimitExceeded, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    for name in ("config.json", "a/x.safetensors", "a-b.txt", "a/y/z.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content of " + name.encode())
    return root


def test_root_digest_is_sha256_over_digests_in_name_order_part_by_part(folder: Path) -> None:
    files = model_files(folder)
    assert [file.path for file in files] == ["a/x.safetensors", "a/y/z.txt", "a-b.txt", "config.json"]
    digests = [hashlib.sha256(b"content of " + file.path.encode()).digest() for file in files]
    assert model_digest(files) == hashlib.sha256(b"".join(digests)).hexdigest()
    assert model_digest(files[::-1]) == model_digest(files)
    assert [int(file.bytes) for file in files] == [11 + len(file.path) for file in files]


def test_claims_evidence_and_signature_are_ignored_at_the_top_only(folder: Path) -> None:
    before = model_files(folder)
    (folder / "claims.jsonl").write_text("x")
    (folder / "model.sig").write_text("x")
    (folder / ".pot" / "objects").mkdir(parents=True)
    (folder / ".pot" / "objects" / "0").write_text("x")
    assert model_files(folder) == before
    (folder / "a" / "model.sig").write_text("x")
    assert len(model_files(folder)) == len(before) + 1


def test_names_are_bound_by_the_second_digest_only(folder: Path) -> None:
    before = model_files(folder)
    (folder / "config.json").rename(folder / "configs.json")
    after = model_files(folder)
    assert model_digest(after) == model_digest(before)
    assert names_digest(after) != names_digest(before)


def test_each_content_byte_counts(folder: Path) -> None:
    before = model_files(folder)
    (folder / "a" / "y" / "z.txt").write_bytes(b"content of a/y/z.txu")
    assert model_digest(model_files(folder)) != model_digest(before)


def test_links_and_special_files_are_refused_not_skipped(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_text("secret")
    (folder / "link").symlink_to(outside)
    with pytest.raises(UsageError, match="symbolic link"):
        model_files(folder)
    (folder / "link").unlink()
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UsageError, match="symbolic link"):
        model_files(folder)
    (folder / "linked").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        model_files(folder)


@pytest.mark.parametrize("name", ["new\nline", "esc\x1b[2J", "back\\slash", "zero\u200bwidth", "\u202ertl"])
def test_names_that_could_deceive_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("x")
    with pytest.raises(UsageError, match="file name holds"):
        model_files(folder)


def test_names_that_are_not_utf8_are_refused(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("x")
    with pytest.raises(UsageError, match="not UTF-8"):
        model_files(folder)


def test_long_paths_and_deep_folders_are_refused(folder: Path) -> None:
    deep = folder.joinpath(*["d"] * 40)
    deep.mkdir(parents=True)
    (deep / "f").write_text("x")
    with pytest.raises(LimitExceeded):
        model_files(folder)
    long = folder / ("n" * 200) / ("n" * 200)
    long.mkdir(parents=True)
    (long / ("n" * 200)).write_text("x")
    with pytest.raises(LimitExceeded):
        safe_files(folder)


def test_what_is_no_folder_with_files_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for path in (tmp_path / "empty", tmp_path / "absent", folder / "config.json", tmp_path / "link"):
        with pytest.raises(UsageError):
            model_files(path)


def test_model_file_is_strict() -> None:
    assert ModelFile.model_validate({"path": "a", "bytes": "1", "sha256": "0" * 64}).bytes == "1"
    for bad in ({"bytes": 1}, {"sha256": "0" * 63}, {"more": "x"}, {"bytes": "01"}):
        with pytest.raises(ValueError, match="validation error"):
            ModelFile.model_validate({"path": "a", "bytes": "1", "sha256": "0" * 64, **bad})
