"""`pot status` and `pot show`: what a run directory says about its run.

Shows: how far the run is, and whether its chain holds. Does not show: that the states are what the steps give.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from attest.cli.outputs import check_run
from attest.cli.terminal import clean

if TYPE_CHECKING:
    from pot.recording.precommit import Precommit

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `pot status` and `pot show`."""
    app.command()(status)
    app.command()(show)


def status(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of text."),
) -> None:
    """Say how far a run is and whether its chain holds; exit 1 if it does not, 3 if the run is not finished.

    Example: pot status run
    """
    from pot.recording.transcript import TRANSCRIPT_FILE

    check_run(run)
    if not os.path.lexists(run / TRANSCRIPT_FILE):
        facts = _begun(run)
        typer.echo(json.dumps(facts, sort_keys=True) if as_json else clean(f"{run}: {facts['sentence']}"))
        raise typer.Exit(3)
    facts = _facts(run)
    problems = facts["problems"]
    if as_json:
        typer.echo(json.dumps(facts, sort_keys=True))
    else:
        typer.echo(f"{clean(str(run))}: step {facts['step']} of {facts['steps']}, {facts['state']}")
        typer.echo(f"transcript  sha256 {facts['transcript_sha256']}, {facts['events']} lines")
        typer.echo(f"segments    {_segments(facts)}, {facts['dropped']} steps repeated after interruptions")
        typer.echo(f"precommit   sha256 {facts['precommit_sha256']}, seed from {facts['seed_source']}")
        if facts["other_inputs"]:
            typer.echo(clean(f"inputs      that hold no committed records: {', '.join(facts['other_inputs'])}"))
        for gap in facts["gaps"]:
            typer.echo(clean(f"gap         no state was kept after step {gap['step']}: {gap['reason']}"))
        for fork in facts["forks"]:
            typer.echo(f"fork        line {fork['index']}: back to step {fork['step']} from step {fork['abandoned']}")
        for problem in problems:
            typer.echo(clean(f"problem     {problem['code']}: {problem['detail']}"))
    if any(problem["code"] not in ("unfinished", "torn") for problem in problems):
        raise typer.Exit(1)
    if problems:
        raise typer.Exit(3)


def _segments(facts: dict[str, Any]) -> str:
    """How many are closed by a state with files; before the end, out of how many."""
    closed = str(facts["segments"])
    if facts["state"] == "complete":
        return closed
    return f"{closed} of {-(-int(facts['steps']) // int(facts['segment_steps']))} complete"


def show(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory."),
    steps: str = typer.Option(..., "--steps", help="A:B, the first and the last step; A may equal B."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON lines instead of text."),
) -> None:
    """Show the events of some steps: batch, loss, and the checkpoints and gaps among them.

    A checkpoint that is a root only has a digest, and no files to replay from.

    Example: pot show run --steps 1:25
    """
    from pot.errors import UsageError
    from pot.recording.transcript import CheckpointEvent, GapEvent, StepEvent, load_transcript

    check_run(run)
    match = re.fullmatch(r"([0-9]{1,15}):([0-9]{1,15})", steps, re.ASCII)
    if match is None or int(match[1]) > int(match[2]):
        raise UsageError(f"--steps {steps[:40]}: must be A:B with A at most B, such as 1:25")
    found = 0
    for event in load_transcript(run).events:
        if not isinstance(event, (StepEvent, CheckpointEvent, GapEvent)):
            continue
        if not int(match[1]) <= int(event.step) <= int(match[2]):
            continue
        found += 1
        if as_json:
            typer.echo(event.to_bytes().decode())
        elif isinstance(event, StepEvent):
            typer.echo(
                f"step {event.step}  epoch {event.epoch}  position {event.position}  records {event.records}"
                f"  batch {event.batch_blake3[:16]}  loss {event.loss if event.loss is not None else '-'}"
            )
        elif isinstance(event, GapEvent):
            typer.echo(clean(f"gap {event.step}  no state kept: {event.reason}"))
        else:
            typer.echo(
                f"checkpoint {event.step}  state {event.state_blake3}"
                + ("" if event.files else "  root only, no files")
            )
    if not found:
        raise UsageError(f"{run}: has no event of the steps {steps}")


def _precommit(run: Path) -> Precommit:
    from pot.canonical import read_file
    from pot.recording.begin import PRECOMMIT_FILE
    from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Precommit

    path = run / PRECOMMIT_FILE
    return Precommit.from_bytes(read_file(path, limit=MAX_PRECOMMIT_BYTES), what=str(path))


def _begun(run: Path) -> dict[str, Any]:
    """What there is to say before the first line of a transcript."""
    from pot.recording.begin import NONCE_FILE, PRECOMMIT_FILE

    precommit = _precommit(run)
    sentence = "begun, no step yet"
    if precommit.seed_source != "self" and not os.path.lexists(run / NONCE_FILE):
        beacon = " --beacon ROUND.json" if precommit.beacon is not None else ""
        give = f"pot challenge seed {run / PRECOMMIT_FILE}{beacon} --out {run / NONCE_FILE}"
        sentence += f"; waits for {run / NONCE_FILE}: {give}"
    return {
        "step": "0",
        "steps": precommit.steps,
        "state": "begun",
        "sentence": sentence,
        "precommit_sha256": precommit.sha256(),
        "seed_source": precommit.seed_source,
    }


def _is_recorded_now(run: Path) -> bool:
    """Whether a recorder holds the run's lock."""
    from pot.recording.writing.journal import LOCK_FILE

    try:
        handle = os.open(run / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # a copy of a run has none, or none that we may look at
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _state(broken: bool, running: bool, complete: bool) -> str:
    if broken:
        return "does not hold"
    return "is being recorded" if running else "complete" if complete else "not finished"


def _facts(run: Path) -> dict[str, Any]:
    from pot.recording.precommit import other_inputs
    from pot.recording.transcript import CheckpointEvent, StepEvent, check_chain, load_transcript

    precommit = _precommit(run)
    transcript = load_transcript(run)
    chain = check_chain(transcript, precommit)
    last = next(
        (event for event in reversed(transcript.events) if isinstance(event, (StepEvent, CheckpointEvent))), None
    )
    problems = [{"code": problem.code, "detail": problem.detail} for problem in chain.problems]
    broken = any(problem["code"] not in ("unfinished", "torn") for problem in problems)
    running = not broken and bool(problems) and _is_recorded_now(run)
    if running:  # a line may be half written: nothing has stopped
        problems = [{"code": "unfinished", "detail": "the run is being recorded"}]
    return {
        "step": last.step if last is not None else "0",
        "steps": precommit.steps,
        "segments": str(len(chain.segments)),
        "segment_steps": precommit.state_every or precommit.checkpoint_every,
        "events": str(chain.events),
        "dropped": str(chain.dropped),
        "state": _state(broken, running, complete=not problems),
        "forks": [{"index": str(f.index), "step": str(f.step), "abandoned": str(f.abandoned)} for f in chain.forks],
        "gaps": [{"step": str(gap.step), "reason": gap.reason} for gap in chain.gaps],
        "problems": problems,
        "precommit_sha256": precommit.sha256(),
        "transcript_sha256": transcript.sha256(),
        "seed_source": precommit.seed_source,
        "semantics": precommit.semantics,
        "other_inputs": other_inputs(precommit),
    }
