"""The generators' state of a start checkpoint: what `capture_rng` gives passes, anything more is named."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from pot.audit.replaying.generators import check_generators
from pot.canonical import canonical_bytes
from pot.errors import Malformed
from pot.recording.generators import capture_rng
from pot.recording.precommit import Layout, Precommit


def _check(folder: Path, precommit: Precommit, rng: Any) -> None:
    path = folder / "state.json"
    path.write_bytes(canonical_bytes({"version": "pot/checkpoint/v1", "step": "5", "rng": rng, "cursor": {}}))
    check_generators(path, precommit)


def _stream(precommit: Precommit) -> Precommit:
    return precommit.model_copy(update={"order": precommit.order.model_copy(update={"method": "stream/1"})})


def _processes(precommit: Precommit, count: int) -> Precommit:
    return precommit.model_copy(update={"layout": Layout(processes=str(count), sharding="replicated")})


def test_every_state_that_is_captured_passes(tmp_path: Path, finished_run: Any) -> None:
    precommit = finished_run.precommit
    import torch

    assert "torch" in sys.modules
    torch.manual_seed(7)
    for _ in range(5):
        random.gauss(0.0, 1.0)
        numpy.random.standard_normal()
        state = capture_rng()
        assert set(state) >= {"python", "numpy", "torch"}
        _check(tmp_path, precommit, state)
    device = "00" * 16
    _check(tmp_path, precommit, {**state, "cuda": [device, device]})
    ranked = {**state, "cuda_current": device}
    _check(tmp_path, _processes(precommit, 2), {"ranks": [ranked, ranked]})
    for began in (None, state):
        kept = {"epoch": "1", "first": "20", "generators": began}
        _check(tmp_path, _stream(precommit), {**state, "stream": kept})
        _check(tmp_path, _processes(_stream(precommit), 2), {"ranks": [{**ranked, "stream": kept}, ranked]})


def _python() -> list[str]:
    found: Any = capture_rng()["python"]
    return list(found)


@pytest.mark.parametrize(
    "rng",
    [
        [],
        "00",
        {"hint": "00"},
        {"python": ["3", "00" * 2501, "none"]},
        {"python": ["3", "00" * 2500, "none", "7777"]},
        {"python": ["3", "GG" * 2500, "none"]},
        {"python": ["3", "00" * 2500, "0x1." + "7" * 100 + "p+1"]},
        {"python": ["7777", "00" * 2500, "none"]},
        {"numpy": ["MT19937", "00" * 2496, "7" * 40, "0", "0x0.0p+0"]},
        {"numpy": ["another", "00" * 2496, "0", "0", "0x0.0p+0"]},
        {"numpy": {"state": "77"}},
        {"torch": "00" * 5057},
        {"torch": ["00" * 5056]},
        {"cuda": ["00" * 16] * 129},
        {"cuda": ["00" * 65]},
        {"cuda_current": "0"},
        {"stream": {"epoch": "0", "first": "0", "generators": None}},
        {"ranks": []},
    ],
)
def test_anything_else_is_named(tmp_path: Path, finished_run: Any, rng: Any) -> None:
    with pytest.raises(Malformed, match="the generators' state holds something else: '"):
        _check(tmp_path, finished_run.precommit, rng)


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"epoch": "0", "first": "0", "generators": None, "hint": "7"},
        {"epoch": "7" * 40, "first": "0", "generators": None},
        {"epoch": "0", "first": "0", "generators": {"hint": "7"}},
        {"epoch": "0", "first": "0", "generators": {"stream": None}},
    ],
)
def test_what_a_stream_remembers_is_checked_too(tmp_path: Path, finished_run: Any, kept: Any) -> None:
    with pytest.raises(Malformed, match="something else: 'stream'"):
        _check(tmp_path, _stream(finished_run.precommit), {"python": _python(), "stream": kept})


@pytest.mark.parametrize("rng", [{}, {"ranks": {}}, {"ranks": [{}]}, {"ranks": [{}, {}], "hint": "7"}])
def test_several_processes_have_a_state_each(tmp_path: Path, finished_run: Any, rng: Any) -> None:
    with pytest.raises(Malformed, match=r"several processes|is that of 1 processes"):
        _check(tmp_path, _processes(finished_run.precommit, 2), rng)
