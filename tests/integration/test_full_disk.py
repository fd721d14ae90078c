"""A full disk, at every byte: one sentence, nothing half-written counts, and the same command goes on afterwards."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recorded_run import ROOT, prepare

from pot.errors import EnvironmentFailure, PotError
from pot.recording.transcript import StartEvent
from pot.recording.writing.journal import Journal


def _start(run: Any, limit: int | None) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        if limit is not None:  # a file that would grow beyond it: EFBIG, as a full disk gives ENOSPC
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    code = "import runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    code += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", code, "toy_training.py", *run.arguments], cwd=run.folder, text=True, check=False,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=limited,
    )  # fmt: skip


@pytest.mark.parametrize("limit", [10_500, 11_111, 12_345])
def test_a_run_that_met_a_full_disk_goes_on_to_the_end(tmp_path: Path, limit: int) -> None:
    run = prepare(tmp_path / "program", steps=30, every=5)
    stopped = _start(run, limit)
    assert stopped.returncode == 1
    assert re.search(r"pot\.errors\.EnvironmentFailure: run/transcript\.jsonl: cannot be written: File too large;",
                     stopped.stderr)  # fmt: skip
    assert "During handling" not in stopped.stderr
    done = _start(run, None)
    assert done.returncode == 0, done.stderr
    assert run.codes() == []
    assert len(run.chain().segments) == 6


def test_a_full_device_is_one_sentence_and_writes_nothing_later(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    journal = Journal(tmp_path)
    journal._stream = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    event: dict[str, Any] = {"type": "start", "precommit_sha256": "0" * 64, "nonce": "0" * 64, "nonce_source": "self"}
    with pytest.raises(EnvironmentFailure, match="No space left on device; free space, then start the same command"):
        journal.append(StartEvent, **event)
    with pytest.raises(PotError, match="an earlier line could not be written"):
        journal.append(StartEvent, **event)
    journal.close()
    assert Journal(tmp_path).length == 0
