"""Two accounts of one run: the same pre-commitment and nonce, and a second machine that errs at one step."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from recorded_run import RecordedRun, prepare

from pot.audit.party import Party, load_party
from pot.audit.replaying.replay import Replayer

FAULT = """
        global DONE
        DONE += 1
        if DONE == FAULT:
            self.weights[2] += 1
        return sum(self.weights)
"""
HEAD = """
import os

FAULT = int(os.environ.get("POT_TEST_FAULT", "0"))
DONE = int(os.environ.get("POT_REPLAY", "0:0").split(":")[0])
RATE = 3
"""


@dataclass(frozen=True)
class TwoParties:
    """`first` is sound; the machine of `second` adds one to a weight in step `fault`."""

    first: RecordedRun
    second: RecordedRun
    fault: int

    def parties(self, *, replayed: bool, own_machines: bool = False) -> tuple[Party, Party]:
        """Both parties; `replayed`: by one auditor; `own_machines`: each on a machine of its own."""
        faults = ("0", str(self.fault) if own_machines else "0")
        made = [
            load_party(run.run_dir, _replayer(run, fault) if replayed else None)
            for run, fault in zip((self.first, self.second), faults, strict=True)
        ]
        return made[0], made[1]


def _replayer(run: RecordedRun, fault: str):  # type: ignore[no-untyped-def]
    variables = {"POT_TEST_FAULT": fault}
    return lambda precommit, nonce: Replayer(
        run.run_dir, precommit, nonce, [run.folder / "train.jsonl"], run.folder, variables=variables
    )


def two_parties(folder: Path, fault: int = 13, steps: int = 20, every: int = 10) -> TwoParties:
    """Both runs, finished; nothing is recorded of the second machine's fault."""
    first = prepare(folder / "first", steps=steps, every=every)
    script = first.folder / "toy_training.py"
    text = script.read_text(encoding="utf-8").replace("RATE = 3\n", HEAD)
    script.write_text(text.replace("\n        return sum(self.weights)\n", FAULT), encoding="utf-8")
    done = first.start()
    assert done.returncode == 0, done.stderr
    shutil.copytree(first.folder, folder / "second")
    second = RecordedRun(folder / "second", first.arguments)
    shutil.rmtree(second.run_dir / "checkpoints")
    (second.run_dir / "transcript.jsonl").unlink()
    done = second.start(POT_TEST_FAULT=str(fault))
    assert done.returncode == 0, done.stderr
    return TwoParties(first, second, fault)
