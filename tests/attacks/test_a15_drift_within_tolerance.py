"""A15: every segment ends a little off in one direction, within the tolerance of each; the sum of them is the attack.

Each distance alone passes. The residuals' signs and the norm of their sum tell them from a machine's noise.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from noisy_run import noisy_run
from recorded_run import RecordedRun

from pot.audit.replaying.calibration import calibrate
from pot.audit.replaying.replay import Replayer
from pot.audit.replaying.tolerance import Tolerance


def _measured(run: RecordedRun) -> Tolerance:
    assert run.codes() == []
    replayer = Replayer(run.run_dir, run.precommit, run.events()[0]["nonce"], [run.folder], run.folder)
    return calibrate(replayer, run.chain().segments)


@pytest.fixture(autouse=True)
def _no_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replays for each segment instead of four: what is tested here is the drift."""
    monkeypatch.setattr("pot.audit.replaying.calibration.swaps", lambda *_: [])


def test_a_drift_that_every_segment_passes_is_flagged(tmp_path: Path) -> None:
    found = _measured(noisy_run(tmp_path / "program", drift=2))
    assert all(segment.within for segment in found.segments)  # without the sum of residuals the forgery passes
    assert found.flagged
    assert (found.same, found.signs) == ("7", "7")
    assert float(found.sign_p) < 0.01
