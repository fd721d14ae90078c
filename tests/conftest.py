"""Makes `tests/simulator` importable: honest worlds in memory and on disk, which tests bend into lies."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "simulator"))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One honest recorded run, made once; not to be changed."""
    from recorded_run import honest_run

    return honest_run(tmp_path_factory.mktemp("honest") / "program")


@pytest.fixture
def recorded(finished_run: Any, tmp_path: Path) -> Any:
    """A copy of the honest run, to be bent."""
    from recorded_run import RecordedRun

    shutil.copytree(finished_run.folder, tmp_path / "program")
    return RecordedRun(tmp_path / "program", finished_run.arguments)
