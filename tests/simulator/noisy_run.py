"""A toy run of "float" semantics whose last bits depend on the machine, without torch: cheap to replay many times.

Its weights move by millions and every step adds one or takes one away, as the machine likes; `drift` is what a forger
adds at each step besides, always in one direction.
"""

from __future__ import annotations

from pathlib import Path

from recorded_run import RecordedRun, prepare

MACHINE = """
import os
import pot.recording.environment as environment

MACHINE = os.environ.pop("POT_TEST_MACHINE", "")
DRIFT = int(os.environ.pop("POT_TEST_DRIFT", "0"))
if MACHINE:
    environment._cpu = lambda: {"model": "another processor"}
NOISE = random.Random(MACHINE + os.environ.get("OMP_NUM_THREADS", "") + os.environ.get("POT_REPLAY", ""))
RATE = 3_000_000
"""
ROUNDING = """
        self.weights = [weight + NOISE.choice((-1, 1)) + DRIFT for weight in self.weights]
        return sum(self.weights)
"""


def noisy_run(folder: Path, machine: str = "another", drift: int = 0, steps: int = 40) -> RecordedRun:
    """A finished run, recorded on another machine than the replays'; `drift`: added to every weight at each step."""
    run = prepare(folder, steps=steps)
    script = folder / "toy_training.py"
    text = script.read_text(encoding="utf-8")
    for old, new in (
        ("RATE = 3\n", MACHINE),
        ("\n        return sum(self.weights)\n", ROUNDING),
        ('semantics="exact"', 'semantics="float"'),
        ("if random.random() < 0.9:", "if True:"),  # every record counts, so every exchange of one shows
    ):
        assert old in text
        text = text.replace(old, new)
    script.write_text(text, encoding="utf-8")
    done = run.start(POT_TEST_MACHINE=machine, POT_TEST_DRIFT=str(drift))
    assert done.returncode == 0, done.stderr
    return run
