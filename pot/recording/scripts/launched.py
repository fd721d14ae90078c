"""A script launched by `pot run`: when its run begins, which generators get the run's seed, and where it goes on.

The run begins when the script makes its first module: its imports and settings are made by then, its weights are not.
What a script draws before comes from fixed seeds, so that a replay draws it too; a seed that the script sets by itself
is left to it, and said.

Shows / does not show: see `pot.recording.scripts.attach`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pot.errors import Refused
from pot.recording.begin import Begun, prepare
from pot.recording.describe import Options
from pot.recording.environment import capture, differences
from pot.recording.precommit import total_records
from pot.recording.scripts.seen import Notes, Reads
from pot.recording.transcript import TRANSCRIPT_FILE, CheckpointEvent, load_transcript

__all__ = ["SEEDED", "Launched"]

SEEDED: Final = {"torch.manual_seed": "torch", "random.seed": "python", "numpy.random.seed": "numpy"}
"""Functions that seed a global generator, and that generator's name."""

_EARLY_SEED: Final = 0


class Launched:
    """What is launched: nothing is promised before `begin`."""

    def __init__(self, run_dir: Path, options: Options, notes: Notes, reads: Reads | None) -> None:
        self.options, self.notes, self.reads = options, notes, reads
        self.begun: Begun | None = None
        self.busy = False
        """Whether our own code is running, whose loaders, seeds and modules are none of the script's."""
        self._run_dir = run_dir
        self._own_seeds: set[str] = set()
        with self.ours():
            _seed(dict.fromkeys(SEEDED.values(), _EARLY_SEED))

    @contextmanager
    def ours(self) -> Iterator[None]:
        """Our own code, until the context ends."""
        outer, self.busy = self.busy, True
        try:
            yield
        finally:
            self.busy = outer

    def begin(self) -> Begun:
        """Begin the run if that has not happened, and seed what the script has not seeded. Raises what `begin` does."""
        if self.begun is not None:
            return self.begun
        if self.reads is not None:
            self.reads.active = False  # what we read is not what the script reads
        _refuse_processes()
        begun = prepare(self._run_dir, self.options)
        begun.seeded = True
        _seed({name: begun.torch_seed(name) for name in SEEDED.values() if name not in self._own_seeds})
        if self.reads is not None:
            program = begun.precommit.program
            self.reads.commit([file.path for file in program.files] + [file.path for file in program.data_files])
            self.reads.active = True
        self.begun = begun
        return begun

    def seeds(self, function: str) -> None:
        """The script calls this function of `SEEDED`."""
        self._own_seeds.add(SEEDED[function])
        what = "the initial weights follow" if function == "torch.manual_seed" else "what it draws follows"
        self.notes.add(f"the script sets its own seed ({function}): {what} from it, not from the run's")

    def records(self) -> int:
        """How many records are committed."""
        return total_records(self.begin().precommit)

    def start(self) -> int:
        """The step that the run or the replay goes on from."""
        begun = self.begin()
        if begun.replay is not None:
            return begun.replay.first
        if not (begun.run_dir / TRANSCRIPT_FILE).exists():
            return 0
        events = load_transcript(begun.run_dir).events
        return next((int(e.step) for e in reversed(events) if isinstance(e, CheckpointEvent) and e.files), 0)

    def check_settings(self) -> None:
        """Raise `Refused` where the script changed a setting after the pre-commitment named it."""
        begun = self.begin()
        if begun.replay is not None:
            return
        found = differences(begun.precommit.environment, capture())
        changed = [text for text in found if not text.startswith("variables.")]
        if changed:
            raise Refused(
                f"pot run: the script changes a setting after it made its first module: {changed[0]}; move that to the"
                " front"
            )

    def check_reads(self) -> None:
        """Say which files are read uncommitted. Raises `Refused` for them with `strict`."""
        sentences = self.reads.sentences() if self.reads is not None else []
        if not sentences and self.begun is not None and self.begun.lacks is not None:
            sentences = [self.begun.lacks]  # read by native code or by workers, or not read at all
        if sentences and self.options.strict:
            raise Refused(f"pot run --strict: {sentences[0]}")
        for sentence in sentences:
            self.notes.add(sentence, loud=True)

    def end_model(self) -> str | None:
        """The digest of the model that the recorded run ended with."""
        begun = self.begun
        if begun is None or begun.replay is not None:
            return None
        last = load_transcript(begun.run_dir).events[-1].model_dump()
        return str(last["model_blake3"]) if "model_blake3" in last else None

    def close(self) -> None:
        """Let another recorder use the run directory."""
        if self.begun is not None:
            self.begun.close()


def _refuse_processes() -> None:
    import torch

    distributed: Any = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise Refused(
            "pot run: the script trains in several processes, and one can be recorded from outside; put the recorder's"
            " three lines into it"
        )


def _seed(seeds: Mapping[str, int]) -> None:
    import random

    import numpy
    import torch

    for name, seed in seeds.items():
        if name == "torch":
            torch.manual_seed(seed)
        elif name == "python":
            random.seed(seed)
        else:
            numpy.random.seed(seed & 0xFFFFFFFF)
