"""The commands of `attest`: what they print, and one sentence with the right exit code for bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from simulated_release import Simulation, key, written

from attest.cli.main import main
from attest.verdict.codes import CODES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(Simulation(), tmp_path_factory.mktemp("commands") / "release")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    value = {
        "version": "pot/policy/v1",
        "roles": {"developer": [{"name": "Acme", "public_key": key("developer").public.pem().decode()}]},
        "require": [{"claim": "training-provenance", "level": "committed"}],
    }
    path.write_text(json.dumps(value))
    return path


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("pot: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err


def test_the_verdict_is_the_exit_code(
    folder: Path, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(folder)]) == 3
    assert "--policy" in capsys.readouterr().out
    # the step proofs' circuit is not pinned by this policy
    assert main(["verify", str(folder), "--policy", str(policy), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["verdict"] == "INCOMPLETE"
    bent = written(Simulation().bend("lines", lambda lines: lines), tmp_path / "bent")
    (bent / "foreign.py").write_text("x")
    assert main(["verify", str(bent), "--policy", str(policy), "--report", str(tmp_path / "r.html")]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("DENY")
    assert "report written" in printed.err
    assert "DENY" in (tmp_path / "r.html").read_text()


def bad_files(tmp_path: Path) -> list[Path]:
    paths = [
        tmp_path / name
        for name in ("absent", "empty", "binary", "truncated", "twice", "version", "huge", "folder", "link")
    ]
    absent, empty, binary, truncated, twice, version, huge, folder, link = paths
    assert not absent.exists()
    empty.write_bytes(b"")
    binary.write_bytes(os.urandom(64) + b"\xff\x00")
    truncated.write_bytes(b'{"version":"pot/policy/v1","roles":{"dev')
    twice.write_bytes(b'{"version":"pot/policy/v1","version":"pot/policy/v1"}')
    version.write_bytes(b'{"version":"pot/policy/v9"}')
    huge.write_bytes(b" " * (65 << 20))
    folder.mkdir()
    link.symlink_to(version)
    return paths


def test_bad_policies(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in bad_files(tmp_path):
        for command in (["verify", str(folder), "--policy", str(path)], ["policy", "check", str(path)]):
            assert main(command) == 2, path
            one_sentence(capsys)


def test_bad_release_folders(tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in bad_files(tmp_path):
        assert main(["verify", str(path), "--policy", str(policy)]) == 2, path
        one_sentence(capsys)
    assert main(["verify", "x\x00y"]) == 2
    one_sentence(capsys)
    assert main(["verify", "x" * 5000]) == 2
    one_sentence(capsys)


def test_bad_files_to_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in bad_files(tmp_path):
        expected = 0 if path.name == "version" else 2
        assert main(["inspect", str(path)]) == expected, path
        capsys.readouterr()


def test_bad_keys(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in bad_files(tmp_path):
        assert main(["certify", str(folder), "--run", str(tmp_path), "--key", str(path)]) == 2, path
        one_sentence(capsys)


def test_a_report_that_cannot_be_written_is_the_environments_fault(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert main(["verify", str(folder), "--report", str(tmp_path / "file" / "r.html")]) == 4
    one_sentence(capsys)


def test_inspect_shows_statements_and_hides_what_lies(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(folder / "claims.jsonl")]) == 0
    printed = capsys.readouterr()
    assert "training-certificate/v0.1" in printed.out
    assert "no signature" in printed.err
    evil = tmp_path / "evil.json"
    evil.write_text(json.dumps({"name": "\u202egnp.exe \x1b[2J \u200b"}, ensure_ascii=False))
    assert main(["inspect", str(evil)]) == 0
    shown = capsys.readouterr().out
    assert "gnp.exe" in shown
    assert not set(shown) & set("\u202e\x1b\u200b")


def test_keygen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", str(tmp_path / "a.pem"), "--algorithm", "ecdsa-p256", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["algorithm"] == "ecdsa-p256"
    assert Path(facts["public"]).exists()
    assert "PRIVATE" not in json.dumps(facts)
    assert main(["keygen", str(tmp_path / "a.pem")]) == 2
    one_sentence(capsys)
    assert main(["keygen", str(tmp_path / "b.pem"), "--algorithm", "rsa"]) == 2
    assert main(["keygen", "--out", str(tmp_path / "c.pem")]) == 0
    assert (tmp_path / "c.pem.pub").exists()
    capsys.readouterr()
    for words in ([], [str(tmp_path / "d.pem"), "--out", str(tmp_path / "e.pem")]):
        assert main(["keygen", *words]) == 2
        one_sentence(capsys)
    assert not (tmp_path / "d.pem").exists()


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    for code in CODES:
        assert main(["explain", code]) == 0
        assert code in capsys.readouterr().out
    assert main(["explain", "--list", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(CODES)
    for arguments in (["explain"], ["explain", "nonsense"], ["explain", "subject", "--list"]):
        assert main(arguments) == 2
        one_sentence(capsys)


def test_policy_commands(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", str(policy)]) == 0
    assert "Acme" in capsys.readouterr().out
    assert main(["policy", "check", str(policy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == "pot/policy/v1"
    assert main(["policy", "schema"]) == 0
    assert "properties" in json.loads(capsys.readouterr().out)
    assert main(["policy", "show"]) == 0
    for name in capsys.readouterr().out.split():
        assert main(["policy", "show", name]) == 0
        assert "version: pot/policy/v1" in capsys.readouterr().out
    assert main(["policy", "show", "nonsense"]) == 2
    one_sentence(capsys)
