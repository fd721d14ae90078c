"""A57: "it does not replay because of threads and versions": the record of the environment is the prover's word.

A record of another machine turns MISMATCH into INCONCLUSIVE, which counts for nothing, and distances say how far the
claim is from what the program gives. What the replayed program says of the *auditor's* machine excuses nothing by
itself, and what can be set as recorded is set.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from float_run import float_run
from noisy_run import noisy_run
from recorded_run import RecordedRun, prepare

from pot.audit.audit import audit
from pot.audit.challenges.challenge import new_challenge
from pot.audit.replaying.replay import Replayer
from pot.recording.environment import environment_sha256


def _replayer(run: RecordedRun, **options: Any) -> Replayer:
    return Replayer(run.run_dir, run.precommit, run.events()[0]["nonce"], [run.folder], run.folder, **options)


def test_a_false_record_gives_no_pass_and_the_distance_is_told(tmp_path: Path) -> None:
    run = noisy_run(tmp_path / "program", steps=10)
    run.bend_tensors(10, "model", lambda values: [values[0] + 10**9, *values[1:]])
    challenge = new_challenge(
        run.precommit.sha256(), run.transcript.sha256(), 2, forged="1", detect="1", nonce="03" * 32
    )
    whole = new_challenge(
        run.precommit.sha256(), run.transcript.sha256(), 2, forged="0.5", detect="1", nonce=challenge.nonce
    )
    result = audit(run.run_dir, whole, [run.folder], run.folder, tolerance=True, suspicious=0)
    assert [unit.outcome for unit in result.replays] == ["INCONCLUSIVE", "INCONCLUSIVE"]
    honest, forged = (unit.distances for unit in result.replays)
    assert honest is not None
    assert forged is not None
    assert float(str(honest.model)) < 1e-6 < 0.5 < float(str(forged.model))
    assert result.tolerance is not None
    assert [segment.within for segment in result.tolerance.segments] == [True, False]
    assert "of its update away" in str(result.replays[1].detail)


REPORTS_FALSELY = """
import os
import pot.recording.environment as environment

if "POT_REPLAY" in os.environ:
    environment._cpu = lambda: {"model": "whatever excuses the result"}
"""


def test_what_the_program_says_of_the_auditors_machine_excuses_nothing(tmp_path: Path) -> None:
    """The forger's program reports a false environment while it is replayed; the record itself is true."""
    run = prepare(tmp_path / "program")
    script = run.folder / "toy_training.py"
    text = script.read_text(encoding="utf-8").replace('semantics="exact"', 'semantics="float"')
    script.write_text(text.replace("\nWIDTH = 4\n", REPORTS_FALSELY + "WIDTH = 4\n"), encoding="utf-8")
    done = run.start()
    assert done.returncode == 0, done.stderr
    run.bend_tensors(10, "model", lambda values: [values[0] + 1, *values[1:]])
    replayer = _replayer(run)
    replay = replayer.segment(run.chain().segments[1])
    assert replay.environment is not None
    assert replay.environment["bits"]["cpu"] == {"model": "whatever excuses the result"}
    from pot.recording.environment import differences

    assert differences(run.precommit.environment, replay.environment)  # by itself it would be an excuse
    assert replayer.foreign(replay.environment) == []
    assert replay.outcome == "MISMATCH"


def test_the_environment_of_the_result_is_the_auditors_and_not_what_the_program_says(tmp_path: Path) -> None:
    run = prepare(tmp_path / "program", steps=10)
    script = run.folder / "toy_training.py"
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace("\nWIDTH = 4\n", REPORTS_FALSELY + "WIDTH = 4\n"), encoding="utf-8")
    done = run.start()
    assert done.returncode == 0, done.stderr
    challenge = new_challenge(run.precommit.sha256(), run.transcript.sha256(), 2, forged="1", detect="1")
    result = audit(run.run_dir, challenge, [run.folder], run.folder, suspicious=0)
    replayer = _replayer(run)
    reported = replayer.initial().environment
    assert reported is not None
    assert result.environment_sha256 == replayer.own.sha256()
    assert result.environment_sha256 != environment_sha256(reported)


def test_another_batch_is_a_mismatch_on_every_machine(tmp_path: Path) -> None:
    run = noisy_run(tmp_path / "program", steps=10)
    segment = run.chain().segments[1]
    from dataclasses import replace

    step = segment.steps[2].model_copy(update={"batch_blake3": "ab" * 32})
    bent = replace(segment, steps=(*segment.steps[:2], step, *segment.steps[3:]))
    replay = _replayer(run).segment(bent)
    assert replay.outcome == "MISMATCH"  # although losses differ before it, as on another machine they may
    assert "step 8: batch_blake3 committed" in replay.detail


def test_what_can_be_set_as_recorded_is_set(tmp_path: Path) -> None:
    """An honest run of the plainest instruction set matches on a machine that has another one by itself."""
    run = float_run(tmp_path / "program", "plain", steps=20)
    assert json.loads((run.run_dir / "precommit.json").read_bytes())["environment"]["bits"]["torch"][
        "cpu_capability"
    ] == "DEFAULT"  # fmt: skip
    replayer = run.replayer()
    assert replayer.segment(run.chain().segments[1]).outcome == "MATCH"
    # nothing has to be set on a processor that has nothing else
    assert replayer.own.settings() == ({"ATEN_CPU_CAPABILITY": "default"} if replayer.own.capability else {})
    run.bend_floats(20)
    forged = replayer.segment(run.chain().segments[1])
    assert forged.outcome == "MISMATCH"  # the record's difference from this machine is no excuse for other bits


def test_what_no_setting_imitates_is_inconclusive_and_measured(tmp_path: Path) -> None:
    run = float_run(tmp_path / "program", "other", steps=20)
    replayer = run.replayer()
    replay = replayer.segment(run.chain().segments[1])
    if replay.outcome == "MATCH":  # a processor that has nothing but the plainest instruction set
        return
    assert replay.outcome == "INCONCLUSIVE"
    assert 0.0 < float(replay.distances["model"]) < 1e-3
    assert "another environment" in replay.detail
    assert any(text.startswith("torch.cpu_capability") for text in replayer.foreign(replay.environment))
