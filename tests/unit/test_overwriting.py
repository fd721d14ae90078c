"""What could not be made again is not written over: secrets, challenges, signed audits and what they commit to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attest.cli.main import main

CANARIES = ("op.json", "plant.jsonl", "canaries.json")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def canaries() -> int:
    written = ["--opening", "op.json", "--plant", "plant.jsonl", "--out", "canaries.json"]
    return main(["audit", "canaries", "new", *written])


@pytest.mark.parametrize("name", CANARIES)
def test_the_secret_of_canaries_is_not_drawn_again(here: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert canaries() == 0
    for other in CANARIES:
        if other != name:
            (here / other).unlink()
    before = (here / name).read_bytes()
    capsys.readouterr()
    assert canaries() == 2
    assert capsys.readouterr().err == f"pot: {name}: exists already; its secret would be lost, name another file\n"
    assert [path.name for path in here.iterdir()] == [name]
    assert (here / name).read_bytes() == before


@pytest.mark.parametrize("content", [b"an earlier challenge", b""])
def test_a_challenge_is_not_drawn_again_unnoticed(
    finished_run: Any, here: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "c.json").write_bytes(content)
    words = ["challenge", "new", str(finished_run.run_dir), "--forged", "0.2", "--detect", "0.5"]
    assert main([*words, "--out", "c.json"]) == 2
    expected = "pot: c.json: exists already; a challenge drawn again would be a choice, name another file\n"
    assert capsys.readouterr().err == expected
    assert (here / "c.json").read_bytes() == content
    assert main([*words, "--dry-run"]) == 0
    assert main([*words, "--out", "d.json"]) == 0


@pytest.mark.parametrize(
    ("option", "sentence"),
    [("--out", "a signed audit is not written over"), ("--inner-out", "a signed audit may have committed to it")],
)
def test_a_signed_audit_keeps_what_it_says(
    finished_run: Any, here: Path, option: str, sentence: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def begun(*_: Any, **__: Any) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("pot.audit.audit.audit", begun)
    run = str(finished_run.run_dir)
    assert main(["challenge", "new", run, "--forged", "0.2", "--detect", "0.5", "--out", "c.json"]) == 0
    assert main(["keygen", "k.pem"]) == 0
    (here / "old").write_bytes(b"an earlier one")
    given = {"--out": "new.jsonl", "--inner-out": "new.json", option: "old"}
    words = ["audit", run, "--challenge", "c.json", "--data", str(finished_run.folder / "train.jsonl"), "--key",
             "k.pem", *(word for item in given.items() for word in item)]  # fmt: skip
    capsys.readouterr()
    assert main(words) == 2
    assert f"pot: old: exists already; {sentence}, name another file\n" in capsys.readouterr().err
    assert (here / "old").read_bytes() == b"an earlier one"
    (here / "old").unlink()
    assert main(words) == 70  # nothing else was in the way
    assert "the work began" in capsys.readouterr().err
