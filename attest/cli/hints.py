"""`pot audit memorization` and `pot audit canaries`: evidence from losses, never proof, for what replays do not reach.

Exit code: 0 when a hint was written, whatever it says: it is no verdict. The loss function is the auditor's own
program, so it is imported and run.

Shows / does not show: see `pot.audit.statistics.memorization` and `pot.audit.statistics.canaries`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from attest.cli.outputs import check_outputs, check_run, refuse_existing, run_files
from attest.cli.terminal import clean, progress_lines

if TYPE_CHECKING:
    from pot.audit.statistics.hints import CanaryFindings, Hint, MemorizationFindings
    from pot.audit.statistics.memorization import Losses

__all__ = ["canaries", "memorization", "register"]

_SENTENCES: Final = {
    "consistent": "consistent with having been trained on",
    "no-sign": "no sign of having been trained on",
    "undecided": "cannot be told from this",
}
_MAX_PROGRAM: Final = 1 << 20

canaries = typer.Typer(
    no_args_is_help=True, help="Plant records that only you know in the data, and look for them after the training."
)


def register(audit: typer.Typer) -> None:
    """Add `memorization` and `canaries` below `pot audit`."""
    audit.command(name="memorization")(memorization)
    audit.add_typer(canaries, name="canaries")


def memorization(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory of a finished run."),
    evaluate: Path = typer.Option(
        ..., "--evaluate", help="Your Python file with losses(checkpoint, records) -> list of numbers."
    ),
    data: list[Path] = typer.Option(..., "--data", help="File or folder that the program reads; repeatable."),
    held_out: list[Path] = typer.Option(
        [], "--held-out", help="Records not trained on; default: committed ones that no step had taken yet."
    ),
    suspected: list[Path] = typer.Option(
        [], "--suspected", help="Ask for these records instead: were they trained on, and where?"
    ),
    nonce: str | None = typer.Option(None, "--nonce", help="64 hex digits; default: fresh random ones."),
    segment: list[int] = typer.Option([], "--segment", help="Test this segment; repeatable. Default: drawn ones."),
    segments: int = typer.Option(8, "--segments", min=1, max=16, help="How many segments are drawn."),
    records: int = typer.Option(256, "--records", min=2, max=4096, help="Records of each group and segment."),
    out: Path = typer.Option(..., "--out", help="Where to write the hint."),
    as_json: bool = typer.Option(False, "--json", help="Print the hint as one JSON object."),
) -> None:
    """Compare how the losses of claimed records fell with those of records not trained on.

    The evidence is weak early in a training and strong late; it never replaces a replay. Suspected records show "no
    sign" only where 200 of them and 200 held-out ones were compared. Exit code 0: a hint was written, and says more.

    Examples:

    pot audit memorization run --evaluate eval.py --data train.jsonl --held-out other.jsonl --out hint.json

    pot audit memorization run --evaluate eval.py --data train.jsonl --held-out other.jsonl --suspected book.jsonl
    --out hint.json
    """
    from pot.audit.statistics.memorization import memorization as run_test
    from pot.canonical import write_file

    check_run(run)
    given = [evaluate, *data, *held_out, *suspected]
    check_outputs([out], reads=[*given, *run_files(run)])
    losses, digest = _load_losses(evaluate)
    hint = run_test(
        run,
        losses,
        data,
        held_out=held_out,
        suspected=suspected,
        nonce=nonce,
        segments=segment,
        sample=segments,
        records=records,
        evaluate_sha256=digest,
        progress=progress_lines(" states"),
    )
    write_file(out, hint.to_bytes())
    findings = hint.memorization
    _end(hint, _segment_lines(findings) if findings is not None else [], as_json)


@canaries.command()
def new(
    out: Path = typer.Option(..., "--out", help="Where to write the registration, to be published before training."),
    opening: Path = typer.Option(..., "--opening", help="Where to write the secret opening; keep it until the test."),
    plant: Path = typer.Option(..., "--plant", help="Where to write the records to mix into the data (.jsonl)."),
    planted: int = typer.Option(16, "--planted", min=1, help="How many candidates are planted."),
    candidates: int = typer.Option(1000, "--candidates", min=100, max=20_000, help="How many are made."),
    template: str = typer.Option("The number of the safe is {}.", "--template", help="A text; {} becomes digits."),
    field: str = typer.Option("text", "--field", help="The record's field that holds the text."),
    listed: Path | None = typer.Option(None, "--from", help="Candidates of your own instead (.jsonl)."),
    as_json: bool = typer.Option(False, "--json", help="Print the registration as one JSON object."),
) -> None:
    """Make candidates, choose by a secret which are planted, and write what is published and what is kept.

    Example: pot audit canaries new --out canaries.json --opening opening.json --plant planted.jsonl
    """
    import secrets

    from pot.audit.statistics.canaries import from_template, new_canaries
    from pot.audit.statistics.canaries import planted as chosen_ones
    from pot.canonical import canonical_bytes, write_file

    check_outputs([out, opening, plant], reads=[listed] if listed is not None else [])
    _refuse_twice([out, opening, plant])
    refuse_existing([opening, plant, out], "its secret would be lost")
    secret = secrets.token_hex(32)
    if listed is None:
        made = from_template(template, field, candidates, secret)
    else:
        from pot.data.readers import RecordDataset

        own = RecordDataset(listed)
        made = [own[at] for at in range(len(own))]
    registration, kept = new_canaries(made, planted, secret)
    write_file(opening, kept.to_bytes(), mode=0o600)  # first: without it the rest is worth nothing
    lines = [canonical_bytes(kept.candidates[at]) + b"\n" for at in chosen_ones(kept)]
    write_file(plant, b"".join(lines), mode=0o600)
    write_file(out, registration.to_bytes())
    if as_json:
        typer.echo(registration.to_bytes().decode())
        return
    typer.echo(
        f"{clean(str(out))}: {registration.planted} of {registration.candidates} candidates are planted\n"
        f"keep {clean(str(opening))} to yourself; publish the registration and mix {clean(str(plant))} into the data"
        " before it is committed"
    )


@canaries.command(name="test")
def look(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory of a finished run."),
    registration: Path = typer.Option(..., "--registration", help="The registration that was published."),
    opening: Path = typer.Option(..., "--opening", help="Its opening."),
    evaluate: Path = typer.Option(
        ..., "--evaluate", help="Your Python file with losses(checkpoint, records) -> list of numbers."
    ),
    out: Path = typer.Option(..., "--out", help="Where to write the hint."),
    as_json: bool = typer.Option(False, "--json", help="Print the hint as one JSON object."),
) -> None:
    """Test whether the planted candidates have lower losses in the run's last state than the others.

    Exit code 0: a hint was written, and says more.

    Example: pot audit canaries test run --registration canaries.json --opening opening.json --evaluate eval.py --out
    hint.json
    """
    from pot.audit.statistics.canaries import Canaries, CanaryOpening, canary_hint
    from pot.canonical import MAX_DOCUMENT_BYTES, read_file, write_file

    check_run(run)
    check_outputs([out], reads=[registration, opening, evaluate, *run_files(run)])
    told = Canaries.from_bytes(read_file(registration, limit=4096), what=str(registration))
    kept = CanaryOpening.from_bytes(read_file(opening, limit=MAX_DOCUMENT_BYTES), what=str(opening))
    losses, digest = _load_losses(evaluate)
    hint = canary_hint(run, told, kept, losses, evaluate_sha256=digest)
    write_file(out, hint.to_bytes())
    _end(hint, _canary_lines(hint.canaries) if hint.canaries is not None else [], as_json)


def _load_losses(path: Path) -> tuple[Losses, str]:
    """Import the auditor's program; its function `losses`, and the file's SHA-256.

    Raises `UsageError` where it cannot be imported or has no such function.
    """
    from pot.canonical import read_file, sha256_hex
    from pot.errors import UsageError

    content = read_file(path, limit=_MAX_PROGRAM)
    spec = importlib.util.spec_from_loader("pot_evaluate", loader=None, origin=str(path))
    if spec is None:
        raise UsageError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.path.insert(0, str(path.resolve().parent))  # what lies beside it can be imported, as by a script
    sys.modules["pot_evaluate"] = module
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)  # noqa: S102 - the auditor's own program
    except (Exception, SystemExit) as error:
        raise UsageError(f"{path}: cannot be imported: {type(error).__name__}: {str(error)[:300]}") from None
    found = getattr(module, "losses", None)
    if not callable(found):
        raise UsageError(f"{path}: has no function losses(checkpoint, records)")

    def guarded(checkpoint: Path, records: Any) -> Any:
        try:
            return found(checkpoint, records)
        except (Exception, SystemExit) as error:
            raise UsageError(f"{path}: losses() failed: {type(error).__name__}: {str(error)[:300]}") from error

    return guarded, sha256_hex(content)


def _refuse_twice(paths: list[Path]) -> None:
    from pot.errors import UsageError

    if len({path.resolve() for path in paths}) != len(paths):
        raise UsageError("registration, opening and planted records must go into three different files")


def _end(hint: Hint, lines: list[str], as_json: bool) -> None:
    typer.echo(hint.to_bytes().decode() if as_json else "\n".join(map(clean, [_SENTENCES[hint.status], *lines])))


def _segment_lines(found: MemorizationFindings) -> list[str]:
    control = "records that no step had taken yet" if found.control == "unseen" else "a held-out pool"
    lines = [f"mean AUC {found.mean_auc} over {found.tested} segments, against {control}; a hint, never proof"]
    for item in found.segments:
        silent = f", {item.silent} of {item.steps} steps silent" if item.steps is not None else ""
        lines.append(
            f"segment {item.segment} (steps {item.first} to {item.last}): AUC {item.auc}, p {item.p}, {item.claimed}"
            f" against {item.control} records{silent}: {_SENTENCES[item.status]}"
        )
    return lines


def _canary_lines(found: CanaryFindings) -> list[str]:
    lines = [
        f"{found.planted} planted among {found.candidates} candidates: AUC {found.auc}, p {found.p} ({found.method})",
        "a hint, never proof",
    ]
    return lines if found.ranks is None else [*lines, f"ranks by loss: {', '.join(found.ranks)}"]
