"""Makes `tests/simulator` importable: honest worlds in memory and on disk, which tests bend into lies."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("project", deadline=None)  # no test asserts wall time
settings.load_profile("project")

sys.path.insert(0, str(Path(__file__).parent / "simulator"))

# A shell ignores interrupts for what it starts in the background, and so would all commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def demo_told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`pot demo --quick`, run once: its folder and how it ended; POT_TEST_DEMO names a finished demo to use instead."""
    from told import tell

    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):  # test processes side by side share the folder above their own
        base = base.parent
    (base / "story").mkdir(exist_ok=True)
    return tell(base / "story")


@pytest.fixture(scope="session")
def demo_folder(demo_told: Any) -> Path:
    """The folder of a finished demo; not to be changed."""
    folder: Path = demo_told.folder
    return folder


@pytest.fixture
def release(demo_folder: Path, tmp_path: Path) -> Path:
    """A copy of the demo's release bundle, to be bent."""
    return Path(shutil.copytree(demo_folder / "release", tmp_path / "release"))
