"""What is installed, and how: the lock, the Makefile, the metadata of the distribution."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
PINS = dict(re.findall(r"(?m)^([a-z0-9][a-z0-9._-]*)==(\S+)", LOCK))
EXTRAS = {"train", "zk", "sigstore", "hf", "lightning", "fast", "ray", "server", "postgres", "all"}


def name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[=<>!~; ]", requirement)[0]).lower()


def test_the_base_is_what_verifying_needs() -> None:
    assert {name(entry) for entry in PROJECT["dependencies"]} == {
        "blake3", "cryptography", "jinja2", "numpy", "pydantic", "rfc8785", "ruamel-yaml", "safetensors", "typer",
    }  # fmt: skip


def test_the_extras_are_those_of_the_design() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) >= EXTRAS
    every = re.fullmatch(r"pot-attest\[(.*)\]", extras["all"][0])
    assert every is not None
    assert set(every[1].split(",")) == set(extras) - {"all"}


def test_every_locked_package_has_hashes_and_no_address() -> None:
    blocks = re.split(r"(?m)^(?=[a-z0-9])", LOCK)[1:]
    assert len(blocks) == len(PINS) > 30
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.splitlines()[0]
    assert not re.search(r"://|--index-url|--extra-index-url|--trusted-host|--find-links", LOCK)


def test_the_lock_serves_the_declared_dependencies() -> None:
    direct = re.findall(r"(?m)^([a-z0-9][a-z0-9._-]*)==(\S+)", (ROOT / "requirements.in").read_text("utf-8"))
    assert {entry: PINS.get(name(entry)) for entry, _ in direct} == dict(direct)
    needed = [
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["zk"],
        *PROJECT["optional-dependencies"]["server"],
    ]
    assert {name(entry) for entry in needed} <= set(PINS)
    assert {"hatchling", "editables"} <= set(PINS)


def test_torch_is_pinned_outside_the_lock() -> None:
    assert "torch" not in PINS
    assert re.search(r"(?m)^TORCH := torch==2\.13\.0$", (ROOT / "Makefile").read_text("utf-8"))
    assert PROJECT["optional-dependencies"]["train"] == ["torch==2.13.*"]


def test_a_second_make_installs_nothing_and_a_changed_lock_does(tmp_path: Path) -> None:
    """`make --dry-run` in a copy whose stamp exists prints no install; one more byte in the lock and it does."""
    for file in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-comparators.lock"):
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())

    def planned() -> str:
        ended = subprocess.run(
            ["make", "--no-print-directory", "--dry-run", "install"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return ended.stdout

    first = planned()
    assert "--require-hashes -r requirements.lock" in first
    stamp = re.search(r"touch (\.venv/\.installed-\S+)", first)
    assert stamp is not None
    (tmp_path / ".venv").mkdir()
    (tmp_path / stamp[1]).touch()
    assert "pip" not in planned()
    (tmp_path / "requirements.lock").write_text(LOCK + "# changed\n")
    assert "--require-hashes -r requirements.lock" in planned()


def test_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text("utf-8")
