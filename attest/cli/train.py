"""`pot run`: start a training script that knows nothing of pot, and record it from outside.

The script runs in a process of its own (`pot.recording.scripts.attach`), with its own arguments. Exit code: 0 when all
promised steps are recorded, 3 when the script ended before them, 1 when the script failed or does what cannot be
recorded, 129, 130 or 143 when a signal ended it: the script gets that too, and `--resume` goes on.

Shows / does not show: see `pot.recording.scripts.attach`; what could not be seen is listed at the end, and in
`run/notes.txt`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

import typer

from attest.bundle import WEIGHTS_FILE
from attest.cli.terminal import say, show

__all__ = ["register"]

_MAX_CONFIG_BYTES: Final = 1 << 20
_MAX_REPORT_BYTES: Final = 16 << 20
_PYTHONS: Final = ("python", "python3")


def register(app: typer.Typer) -> None:
    """Add `pot run`."""
    app.command(context_settings={"allow_interspersed_args": False})(run)


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- python SCRIPT [ARGS]...", help="What to start.")],
    run_dir: Annotated[Path, typer.Option("--run", metavar="DIR", help="The run directory to write.")] = Path("run"),
    commitment: Annotated[
        list[Path] | None, typer.Option("--commitment", metavar="C.json", help="Of the training data; repeatable.")
    ] = None,
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", metavar="FILE", help="What the script reads; repeatable.")
    ] = None,
    code: Annotated[
        list[Path] | None, typer.Option("--code", metavar="FILE", help="Code that it loads late; repeatable.")
    ] = None,
    parent: Annotated[
        Path | None,
        typer.Option("--parent", metavar="MODEL", help="Release bundle that training begins from."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Hyper-parameters to commit to: a JSON object.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps that are promised.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead: passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Records in a batch.")] = None,
    accumulate: Annotated[int, typer.Option("--accumulate", min=1, help="Batches in an optimizer step.")] = 1,
    checkpoint_every: Annotated[
        int | None, typer.Option("--checkpoint-every", min=1, help="Steps between two digests of the state.")
    ] = None,
    state_every: Annotated[
        int | None, typer.Option("--state-every", min=1, help="Steps between two checkpoints with files.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="The loader is iterable: record what it yields.")] = False,
    nonce: Annotated[
        str, typer.Option("--nonce", help="self, verifier or beacon:quicknet:ROUND (wait), or 64 hex digits.")
    ] = "self",
    mode: Annotated[
        str, typer.Option("--mode", help="segment, or step: a digest of the state after each.")
    ] = "segment",
    on_error: Annotated[str, typer.Option("--on-error", help="stop, or gap: train on when the disk fails.")] = "stop",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="OMP_NUM_THREADS for the script.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse what a replay will not repeat.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run, if there is one.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; the script's output to stderr.")
    ] = False,
) -> None:
    """Record a training script that knows nothing of pot.

    Its DataLoader over exactly the committed records gives them in the committed order, each step of its optimizer is a
    step of the run. What could not be seen is listed at the end. "python" is the Python that pot runs in.

    Examples:

    pot run --commitment train.json --input train.jsonl --batch-size 32 --epochs 3 -- python train.py train.jsonl

    pot run --run run --commitment train.json --batch-size 32 --steps 500 --resume -- python train.py

    pot run --parent base --commitment tune.json --batch-size 32 --epochs 1 -- python tune.py base/model.safetensors
    """
    from pot.errors import UsageError
    from pot.recording.scripts.attach import Attachment

    python, words = _split(command)
    if (run_dir / "precommit.json").exists() and not resume:
        untrained = not (run_dir / "transcript.jsonl").exists()
        kind = "a run in which nothing was trained yet; delete it," if untrained else "a run already;"
        raise UsageError(f"{run_dir}: holds {kind} go on with it by --resume, or name another folder by --run")
    if steps is not None and epochs is not None:
        raise UsageError("--steps and --epochs: one of them promises how far the script trains")
    _check_nonce(nonce)
    for value, name, known in ((mode, "--mode", ("segment", "step")), (on_error, "--on-error", ("stop", "gap"))):
        if value not in known:
            raise UsageError(f"{name} {value[:40]}: is {known[0]} or {known[1]}")
    begin: dict[str, Any] = {
        "commitments": _texts(commitment),
        "config": _config(config, epochs),
        "inputs": _texts([*(inputs or []), *([] if parent is None else [parent / WEIGHTS_FILE])]),
        "parent": None if parent is None else _parent(parent),
        "code": _texts(code),
        "batch_size": batch_size,
        "steps": steps,
        "accumulate": accumulate,
        "stream": stream,
        "checkpoint_every": checkpoint_every,
        "state_every": state_every,
        "nonce": nonce,
        "mode": mode,
        "strict": strict,
    }
    _check_promise(begin)
    with tempfile.TemporaryDirectory(prefix="pot-run-") as place:
        report = Path(place) / "report.json"
        attachment = Attachment(str(run_dir), str(report), begin, cast("Literal['stop', 'gap']", on_error))
        ended, stopped = _start(python, words, attachment, threads, as_json)
        found = _report(report, ended, stopped)
    _finish(run_dir, found, as_json)


def _texts(paths: list[Path] | None) -> list[str]:
    return [str(path) for path in paths or ()]


def _parent(folder: Path) -> dict[str, str]:
    """The certificate in a release bundle that is about its weights, and the model, as a pre-commitment names them."""
    from attest.bundle import SigstoreBundle, read_release
    from attest.predicate import TRAINING_CERTIFICATE
    from attest.statement import Statement
    from pot.canonical import sha256_hex
    from pot.commitments.model import model_digest
    from pot.errors import PotError, UsageError

    release = read_release(folder)
    model, found = model_digest(release.files), set()
    for number, line in enumerate(release.lines):
        what = f"{folder}: claim {number + 1}"
        try:
            payload = SigstoreBundle.from_line(line, what=what).dsse_envelope.payload_bytes()
            statement = Statement.from_payload(payload, what=what)
        except PotError:  # a line of another kind; a verifier reports it, and it names no parent
            continue
        if statement.predicate_type == TRAINING_CERTIFICATE and statement.subject_sha256 == model:
            found.add(sha256_hex(payload))
    if len(found) != 1:
        raise UsageError(f"{folder}: holds {len(found)} certificates of its model, one is needed to build on it")
    return {"certificate_sha256": found.pop(), "model_sha256": model, "operation": "none"}


def _check_promise(begin: dict[str, Any]) -> None:
    """What the script cannot be asked. Raises `UsageError`, before the script is started."""
    from pot.errors import UsageError

    config = begin["config"]
    if not begin["commitments"]:
        raise UsageError(
            "name the commitment of the training data by --commitment; make one with: pot data commit PATH"
            " --view json/1 --out C.json"
        )
    if begin["batch_size"] is None and "batch_size" not in config:
        raise UsageError("say by --batch-size how many records a batch of the script has")
    if begin["steps"] is None and not {"steps", "epochs"} & config.keys():
        raise UsageError("promise by --steps or --epochs how far the script trains")


def _check_nonce(nonce: str) -> None:
    """Raises `UsageError`, before a script has run to where its run begins."""
    from pot.errors import UsageError
    from pot.recording.describe import seed_source

    if seed_source(nonce)["seed_source"] == "self" and nonce != "self" and not re.fullmatch("[0-9a-f]{64}", nonce):
        raise UsageError(f"--nonce {nonce[:80]}: is self, verifier, beacon:quicknet:ROUND, or 64 lowercase hex digits")


def _split(command: list[str]) -> tuple[str, list[str]]:
    """The interpreter, and the script with its arguments."""
    from pot.errors import UsageError

    name = Path(command[0]).name
    if not name.startswith("python") or len(command) < 2 or command[1].startswith("-"):
        raise UsageError("give the script as in: pot run [OPTIONS] -- python train.py ARGS")
    return sys.executable if command[0] in _PYTHONS else command[0], command[1:]


def _config(path: Path | None, epochs: int | None) -> dict[str, Any]:
    from pot.canonical import read_file
    from pot.errors import UsageError

    found: Any = {}
    if path is not None:
        try:
            found = json.loads(read_file(path, limit=_MAX_CONFIG_BYTES))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}: is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise UsageError(f"{path}: must hold one JSON object, of hyper-parameters by name")
    if epochs is not None:
        if found.get("epochs", epochs) != epochs:
            raise UsageError(f"--epochs {epochs}: {path} says {found['epochs']}")
        found["epochs"] = epochs
    return cast("dict[str, Any]", found)


def _start(python: str, words: list[str], attachment: Any, threads: int | None, as_json: bool) -> tuple[int, Any]:
    """Run the script to its end; its process's exit code, and the signal that stopped us, if one did."""
    import pot
    from attest.cli.child import run_child
    from pot.errors import EnvironmentFailure
    from pot.recording.scripts.attach import OPTIONS_VARIABLE

    variables = {**os.environ, OPTIONS_VARIABLE: attachment.to_text()}
    variables.setdefault("PYTHONHASHSEED", "0")  # sets are iterated in the same order in a replay
    if threads is not None:
        variables.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    source = Path(pot.__file__).resolve().parent.parent
    if "site-packages" not in source.parts:
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(source), variables.get("PYTHONPATH"))))
    command = [python, "-P", "-m", "pot.recording.scripts.attach", *words]
    try:
        return run_child(command, variables, sys.stderr if as_json else None)
    except OSError as error:
        raise EnvironmentFailure(f"{python}: cannot be started: {error.strerror or error}") from None


def _report(path: Path, ended: int, stopped: Any) -> dict[str, Any]:
    from pot.canonical import read_file
    from pot.errors import EnvironmentFailure

    if ended in (130, -signal.SIGINT) or (stopped is not None and not path.exists()):
        say("pot: stopped; the same command with --resume goes on from the latest checkpoint")
        raise KeyboardInterrupt
    if not path.exists():
        how = f"signal {-ended}" if ended < 0 else f"exit code {ended}"
        raise EnvironmentFailure(
            f"the script's process ended by {how} without a report; the same command with --resume goes on"
        )
    return cast("dict[str, Any]", json.loads(read_file(path, limit=_MAX_REPORT_BYTES)))


def _finish(run_dir: Path, found: dict[str, Any], as_json: bool) -> None:
    from pot.errors import EnvironmentFailure, Refused, UsageError

    notes = found["notes"]
    fresh = [note for note in notes if note not in found["said"]]
    if fresh:
        more = f", {len(notes) - len(fresh)} more are told above" if len(fresh) < len(notes) else ""
        say(f"pot: not seen or not the run's own ({len(fresh)}{more}):")
    for note in fresh:
        say(f"  - {note}")
    code, sentence = found["code"], (found["sentence"] or "").removeprefix("pot run: ")
    if code not in (0, 3):
        raise {1: Refused, 2: UsageError}.get(code, EnvironmentFailure)(sentence)
    facts = _facts(run_dir)
    lines = [f"{run_dir}: step {facts['step']} of {facts['steps']}, {facts['state']}"]
    if facts["model_blake3"] is not None:
        lines.append(f"model  blake3 {facts['model_blake3']}, in {facts['weights']}")
    show(as_json, {**facts, "run": str(run_dir), "not_seen": notes}, lines)
    if code:
        say(f"pot: {sentence}")
        raise typer.Exit(code)


def _facts(run_dir: Path) -> dict[str, Any]:
    """What the run directory says now."""
    from pot.canonical import read_file
    from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Precommit
    from pot.recording.transcript import EndEvent, StepEvent, load_transcript

    path = run_dir / "precommit.json"
    precommit = Precommit.from_bytes(read_file(path, limit=MAX_PRECOMMIT_BYTES), what=str(path))
    transcript = load_transcript(run_dir)
    end = transcript.events[-1]
    complete = isinstance(end, EndEvent)
    step = next((event.step for event in reversed(transcript.events) if isinstance(event, StepEvent)), "0")
    return {
        "step": step,
        "steps": precommit.steps,
        "state": "complete" if complete else "not finished",
        "model_blake3": end.model_blake3 if isinstance(end, EndEvent) else None,
        "weights": str(run_dir / f"checkpoints/step-{int(step):06d}/model.safetensors") if complete else None,
        "precommit_sha256": precommit.sha256(),
        "transcript_sha256": transcript.sha256(),
    }
