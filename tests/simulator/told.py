"""The demo, told once for all tests that need a real release: a training run, step proofs, audits and signatures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

__all__ = ["POT", "Told", "tell"]

POT = str(Path(sys.executable).with_name("pot"))


@dataclass(frozen=True)
class Told:
    """A finished demo: its folder, and what it wrote (None where an existing folder is used)."""

    folder: Path
    out: str | None
    err: str | None


def tell(base: Path) -> Told:
    """The demo of this test session below `base`; or the folder that POT_TEST_DEMO names.

    The first process that asks runs `pot demo --quick`; test processes beside it wait and use the same folder.
    """
    existing = os.environ.get("POT_TEST_DEMO")
    if existing:
        return Told(Path(existing).resolve(), None, None)
    folder, said = base / "demo", base / "said.json"
    with FileLock(base / "lock"):
        if not said.exists():
            told = _run(folder)
            said.write_text(json.dumps([told.out, told.err]))
    out, err = json.loads(said.read_text())
    return Told(folder, out, err)


def _run(folder: Path) -> Told:
    ended = subprocess.run(
        [POT, "demo", "--quick", "--out", str(folder)], capture_output=True, text=True, timeout=900, check=False
    )
    if ended.returncode != 0:
        pytest.fail(f"pot demo ended with {ended.returncode}: {ended.stderr[-4000:]}", pytrace=False)
    return Told(folder, ended.stdout, ended.stderr)
