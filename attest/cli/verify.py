"""`pot verify`: the verdict over a released model, offline, in one command.

Exit code: 0 PASS, 1 DENY, 3 INCOMPLETE. Reads no ambient configuration: what counts is the folder and the policy.

Shows / does not show: see `attest.verdict.verify` and the report itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from attest.cli.outputs import check_outputs
from attest.cli.terminal import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `pot verify`."""
    app.command()(verify)


def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="Folder of the released model.")],
    policy: Annotated[Path | None, typer.Option("--policy", help="Whom to believe and what to require.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Also write the report as an HTML page.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Open no socket (this version never does).")] = False,
) -> None:
    """Verify a released model: exit 0 PASS, 1 DENY, 3 INCOMPLETE.

    Example: pot verify release --policy policy.yaml --report report.html
    """
    from attest.bundle import read_release
    from attest.export.text import render_text
    from attest.verdict.policy import load_policy
    from attest.verdict.verify import verify as judge
    from pot.errors import UsageError

    if report is not None:
        check_outputs([report], reads=[model, *([policy] if policy is not None else [])])
        if Path(os.path.realpath(model)) in Path(os.path.realpath(report)).parents:
            raise UsageError(f"{report}: lies in the model's folder, where it would count as a file of the model")
    rules = load_policy(policy) if policy is not None else None
    result = judge(read_release(model), rules)
    if report is not None:
        from attest.export.page import render_page
        from pot.canonical import write_file

        write_file(report, render_page(result).encode())
        say(f"report written to {report}")
    typer.echo(result.to_bytes().decode() if as_json else render_text(result))
    raise typer.Exit(result.exit_code)
