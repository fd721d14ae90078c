"""`pot audit`: re-execute what a challenge chose, or make a commitment to data again, and sign what came out.

`pot audit RUN` audits a run; `pot audit data`, `dispute`, `memorization` and `canaries` are commands of their own (a
run directory with such a name is `./data`). Exit code: 0 when everything matched, 1 when something did not or was
refused, 2 (nothing is signed) when data or code is not what the run committed to, 3 when a replay could not be decided
here.

Shows / does not show: see `pot.audit.audit`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from attest.cli import audit_data, dispute, hints
from attest.cli.outputs import check_outputs, check_run, for_this_run, refuse_existing, run_files
from attest.cli.terminal import clean, counted, progress_lines, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pot.audit.challenges.beacon import ChainInfo
    from pot.audit.result import AuditResult, ReplayedUnit
    from pot.audit.statistics.hints import Hint

__all__ = ["register"]


def register(main: typer.Typer) -> None:
    """Add `pot audit` and what stands below it."""
    main.add_typer(app, name="audit")


class _RunOrCommand(TyperGroup):
    """A group whose words are those of the run's audit, unless the first of them names a command."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        if args and args[0] in self.commands:
            return super().make_context(info_name, args, parent, **extra)
        alone = typer.Typer(rich_markup_mode=None, add_completion=False)
        alone.command(name="audit")(audit)
        return typer.main.get_command(alone).make_context(info_name, args, parent, **extra)


app = typer.Typer(
    name="audit",
    cls=_RunOrCommand,
    rich_markup_mode=None,
    help="Replay what a challenge chose of a run, or make a commitment to data again, and sign the result.",
)
for module in (audit_data, dispute, hints):
    module.register(app)


def audit(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory."),
    challenge: Path = typer.Option(..., "--challenge", help="The challenge to answer."),
    data: list[Path] = typer.Option(..., "--data", help="File or folder that the program reads; repeatable."),
    code: Path = typer.Option(Path(), "--code", help="Folder of the program's code, paths as recorded."),
    key: Path = typer.Option(..., "--key", help="The auditor's private key."),
    out: Path = typer.Option(..., "--out", help="Where to write the signed audit statement (one line)."),
    seed_nonce: Path | None = typer.Option(None, "--seed-nonce", help="The nonce document, if you issued it."),
    hide: list[Path] = typer.Option([], "--hide", help="Folder that the replayed program must not see; repeatable."),
    timeout: float = typer.Option(3600.0, "--timeout", min=1.0, help="Seconds for each segment."),
    workers: int = typer.Option(1, "--workers", min=1, max=64, help="Segments to replay at the same time."),
    ray: str | None = typer.Option(
        None,
        "--ray",
        metavar="ADDRESS",
        help="Spread segments over a Ray cluster; paths must be the same on its nodes.",
    ),
    screening: bool = typer.Option(
        True, "--screening/--no-screening", help="Look at all segments first; suspicious ones are replayed first."
    ),
    suspicious: int = typer.Option(
        5, "--suspicious", min=0, max=1000, help="Suspicious segments to replay besides the challenged ones."
    ),
    tolerance: bool = typer.Option(
        False, "--tolerance", help="Measure what is inconclusive beside this machine's own noise. Never a match."
    ),
    inner_out: Path | None = typer.Option(
        None, "--inner-out", help="Commit to inner digests, and write them, to be revealed later, to this file."
    ),
    hint: list[Path] = typer.Option([], "--hint", help="Hint about this run to sign with the result; repeatable."),
    beacon_chain: Path | None = typer.Option(
        None, "--beacon-chain", help="The chain of the challenge's beacon, if it is not quicknet: drand's info."
    ),
    sign_refusal: bool = typer.Option(
        False, "--sign-refusal", help="Sign REFUSED where the trainer did not deliver committed data or code."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Replay the challenged segments bit by bit and sign the result.

    Cheap checks look at all segments first, and suspicious ones are replayed too. A commitment to data, without any
    run, is audited by pot audit data; two accounts of one run by pot audit dispute; see their own help.

    Exit 0: everything matched. 1: something did not, or was refused: what a trainer cannot show again counts as not
    held. 3: undecided here. 2, and nothing signed: what you gave is not what the run committed to.

    Examples:

    pot audit run --challenge challenge.json --data train.jsonl --code . --key auditor.pem --out audit.jsonl

    pot audit run --challenge challenge.json --data train.jsonl --key auditor.pem --out audit.jsonl --tolerance

    pot audit data train.json --digests train.digests --key auditor.pem --out data-audit.jsonl
    """
    from attest.certify import sign_audit
    from attest.trust.keys import PrivateKey
    from pot.audit.audit import audit as run_audit
    from pot.audit.challenges.challenge import Challenge
    from pot.audit.replaying.sandbox import Limits
    from pot.audit.salted import InnerDigests
    from pot.canonical import MAX_DOCUMENT_BYTES, read_file, write_file
    from pot.recording.begin import PRECOMMIT_FILE
    from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Precommit, SeedNonce, other_inputs

    check_run(run)
    question = Challenge.from_bytes(read_file(challenge, limit=MAX_DOCUMENT_BYTES), what=str(challenge))
    issued = None
    if seed_nonce is not None:
        issued = SeedNonce.from_bytes(read_file(seed_nonce, limit=4096), what=str(seed_nonce))
    given_hints = _hints(hint)
    signer = PrivateKey.load(key)  # a key that cannot sign is found out before the replay, not after it
    _check_folders(code, hide)
    given = [path for path in (challenge, key, seed_nonce, *hint, *data) if path is not None and path.is_file()]
    check_outputs([path for path in (out, inner_out) if path is not None], reads=[*given, *run_files(run)])
    refuse_existing([out], "a signed audit is not written over")
    refuse_existing([] if inner_out is None else [inner_out], "a signed audit may have committed to it")
    path = run / PRECOMMIT_FILE
    inputs = other_inputs(Precommit.from_bytes(read_file(path, limit=MAX_PRECOMMIT_BYTES), what=str(path)))
    kept: list[InnerDigests] = []
    with for_this_run(challenge):
        result = run_audit(
            run,
            question,
            data,
            code,
            seed_nonce=issued,
            limits=Limits(seconds=timeout),
            progress=progress_lines(),
            hidden=[*hide, key],  # the program is the prover's: it must not read the auditor's key
            workers=workers,
            ray=ray,
            screening=screening,
            suspicious=suspicious,
            tolerance=tolerance,
            inner=None if inner_out is None else kept.append,
            hints=given_hints,
            beacon_chain=_chain(beacon_chain),
            undelivered=sign_refusal,
        )
    if inner_out is not None:
        write_file(inner_out, kept[0].to_bytes(), mode=0o600)  # first: what nobody can open is no commitment
    write_file(out, sign_audit(result, signer))
    typer.echo(result.to_bytes().decode() if as_json else "\n".join(map(clean, _lines(result, inputs))))
    _leave(result)


def _chain(path: Path | None) -> ChainInfo | None:
    from pot.audit.challenges.beacon import MAX_BEACON_BYTES, read_chain
    from pot.canonical import read_file

    return None if path is None else read_chain(read_file(path, limit=MAX_BEACON_BYTES), what=str(path))


def _hints(paths: Sequence[Path]) -> list[Hint]:
    from pot.audit.statistics.hints import MAX_HINT_BYTES, Hint
    from pot.canonical import read_file

    return [Hint.from_bytes(read_file(path, limit=MAX_HINT_BYTES), what=str(path)) for path in paths]


def _check_folders(code: Path, folders: Sequence[Path]) -> None:
    from pot.audit.replaying.sandbox import isolation
    from pot.errors import UsageError

    if not code.is_dir():
        raise UsageError(f"{code}: no such folder; it was given as the folder of the program's code")
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; it was given to be hidden from the program")
    if isolation() != "full":
        say(
            f"isolation {isolation()}: this machine cannot hide the run directory and your key from the program;"
            " stop now unless you trust the trainer"
        )


def _leave(result: AuditResult) -> None:
    outcomes = {unit.outcome for unit in result.replays}
    extra = {unit.outcome for unit in result.extra or ()}
    if (
        outcomes & {"MISMATCH", "REFUSED"}
        or "MISMATCH" in extra
        or result.init == "MISMATCH"
        or result.points == "MISMATCH"
        or result.datasets_differ
    ):
        raise typer.Exit(1)
    if outcomes | extra != {"MATCH"} or result.init != "MATCH":
        raise typer.Exit(3)


def _lines(result: AuditResult, inputs: list[str]) -> list[str]:
    all_of_them = counted(int(result.challenge.population), result.challenge.unit)
    lines = [
        f"{len(result.replays)} of {all_of_them} replayed: {_counted(result.replays)}",
        f"initial state  {result.init}" + (f" ({result.init_detail})" if result.init_detail else ""),
        f"dataset roots  {len(result.datasets)} recomputed, {len(result.datasets_differ or ())} differ",
        f"points         {result.points}",
        f"isolation      {result.isolation}",
        *_screening_lines(result),
        *_tolerance_lines(result),
    ]
    if result.inner_commitment is not None:
        lines.append(f"inner digests  committed: {result.inner_commitment}")
    lines += [f"hint           {hint.kind}: {hint.status}" for hint in result.hints or ()]
    if inputs:
        lines.append(f"inputs         that hold no committed records, and might hold the answer: {', '.join(inputs)}")
    return lines + [
        f"{item.outcome.lower()}: {item.unit_number}: {item.detail}"
        for item in (*result.replays, *(result.extra or ()))
        if item.detail
    ]


def _counted(units: Sequence[ReplayedUnit]) -> str:
    outcomes = [unit.outcome for unit in units]
    return ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes))


def _screening_lines(result: AuditResult) -> list[str]:
    found = result.screening
    if found is None:
        return ["screening      not asked for"]
    lines = [f"screening      {found.flagged} of {found.segments} segments lack files or look unlike training"]
    if found.suspicious:
        named = ", ".join(found.suspicious[:10])
        lines.append(f"suspicious     {named}" + (" and others" if len(found.suspicious) > 10 else ""))
    if result.extra:
        lines.append(f"extra          {len(result.extra)} of them replayed besides: {_counted(result.extra)}")
    return lines


def _tolerance_lines(result: AuditResult) -> list[str]:
    found = result.tolerance
    if found is None:
        return []
    lines = [
        f"tolerance      segment {item.segment}: distance {item.distance or 'unknown'},"
        f" tolerance {item.tolerance} (noise {item.noise or 'unknown'}),"
        f" smallest forgery {item.forging or 'not measured'}: "
        + ("within" if item.within else "not within")
        + ("" if item.usable else ", which shows nothing here")
        for item in found.segments
    ]
    return [
        *lines,
        f"drift          {found.drift} over all, budget {found.budget}; {found.same} of {found.signs} residuals go the"
        f" same way (p {found.sign_p})" + (": FLAGGED, one direction" if found.flagged else ""),
    ]
