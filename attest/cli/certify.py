"""`pot certify`: a signed training certificate, with its evidence, into the model's folder.

Exit code: 0 when it was written, 1 when it would not hold, 3 when the run is not finished (nothing is written then).

Shows / does not show: see `attest.certify`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from attest.cli.outputs import check_run
from attest.cli.terminal import clean, say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `pot certify`."""
    app.command()(certify)


def certify(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="Folder with the model's files.")],
    run: Annotated[Path, typer.Option("--run", help="The run directory that the recorder wrote.")],
    key: Annotated[Path, typer.Option("--key", help="The developer's private key.")],
    exclude: Annotated[
        list[Path] | None, typer.Option("--exclude", help="File of pot data exclude; repeatable.")
    ] = None,
    include: Annotated[
        list[Path] | None, typer.Option("--include", help="File of pot data include; repeatable.")
    ] = None,
    composition: Annotated[
        list[Path] | None, typer.Option("--composition", help="File of pot data compose; repeatable.")
    ] = None,
    commitment: Annotated[
        list[Path] | None, typer.Option("--commitment", help="Commitment, or folder of them; repeatable.")
    ] = None,
    audit: Annotated[
        list[Path] | None, typer.Option("--audit", help="Signed audit of the run or its data; repeatable.")
    ] = None,
    step_proofs: Annotated[
        list[Path] | None, typer.Option("--step-proofs", help="Step proof, or folder of them; repeatable.")
    ] = None,
    kit: Annotated[Path | None, typer.Option("--kit", help="The folder of the step proofs' circuit.")] = None,
    secret: Annotated[
        Path | None, typer.Option("--secret", help="The run's secret: opens the points of its first and last state.")
    ] = None,
    kept: Annotated[
        Path | None, typer.Option("--kept", help="Folder of a float run's kept states, to open them.")
    ] = None,
    step_exclude: Annotated[
        list[Path] | None,
        typer.Option("--step-exclude", help="Commitment of a set that no proven step read from; repeatable."),
    ] = None,
    records: Annotated[
        list[Path] | None,
        typer.Option("--records", help="The run's data, to DISCLOSE the records of all proven steps; repeatable."),
    ] = None,
    parent: Annotated[Path | None, typer.Option("--parent", help="Release bundle of the model built on.")] = None,
    inner: Annotated[
        list[Path] | None, typer.Option("--inner", help="Inner digests that an auditor revealed; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The model's name; default: the folder's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Certify a model: which run made it, and what is claimed about it.

    Example: pot certify model --run run --key developer.pem --exclude x1.exclusion --audit audit.jsonl
    """
    from attest.certify import certify as make
    from attest.step_claims import Disclosure
    from attest.trust.keys import PrivateKey

    check_run(run)
    made = make(
        model,
        run,
        PrivateKey.load(key),
        exclusions=exclude or [],
        inclusions=include or [],
        compositions=composition or [],
        audits=audit or [],
        step_proofs=_files(step_proofs or []),
        kit=kit,
        disclosure=Disclosure(secret, kept, tuple(step_exclude or ()), tuple(records or ())),
        parent=parent,
        commitments=commitment or [],
        inner=inner or [],
        name=name,
    )
    for path, outcomes in made.empty_audits:
        say(f"pot: {path}: this audit holds no match ({outcomes}); it shows nothing for the claims")
    subject = made.statement.subject_sha256
    if as_json:
        typer.echo(json.dumps({"certificate_sha256": made.certificate_sha256, "model_sha256": subject}, sort_keys=True))
    else:
        typer.echo(clean(f"{model}: certificate {made.certificate_sha256}"))
        typer.echo(f"model {subject}, {made.objects} objects of evidence")
        for claim in made.claims:
            typer.echo(clean(f"claim {claim.type}: {claim.sentence}"))
            lacking = [link.code for link in claim.links if (link.status, link.level) != ("passed", "proved")]
            if lacking:
                typer.echo(f"      not proved by the release alone: {', '.join(dict.fromkeys(lacking))}")
        typer.echo(
            "what each of these needs is told by pot explain CODE; a policy says whose audits and circuits count"
        )


def _files(paths: list[Path]) -> list[Path]:
    """Step proof files: those given, and those in the folders given."""
    from pot.errors import UsageError

    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"{path}: holds no step proof; pot prove writes them")
        found += inside
    return found
