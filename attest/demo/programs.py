"""The two training programs of the story: those of `examples/`, as a user would write them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pot.canonical import write_file
from pot.errors import EnvironmentFailure

__all__ = ["FINE_TUNE_PROGRAM", "TRAIN_PROGRAM", "copy_programs"]

TRAIN_PROGRAM: Final = "train_digits.py"
FINE_TUNE_PROGRAM: Final = "finetune_digits.py"


def copy_programs(folder: Path) -> None:
    """Copy both into `folder`. The wheel carries them beside this module, a checkout in `examples/`."""
    here = Path(__file__).resolve().parent
    places = (here / "examples", here.parents[1] / "examples")
    for name in (TRAIN_PROGRAM, FINE_TUNE_PROGRAM):
        source = next((place / name for place in places if (place / name).is_file()), None)
        if source is None:
            raise EnvironmentFailure(f"{name}: is missing from this installation; install pot-attest again")
        write_file(folder / name, source.read_bytes())
