"""`pot policy`: check a policy file, print its schema, print one to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from attest.cli.terminal import clean, say

__all__ = ["TEMPLATES", "app", "register"]

app = typer.Typer(
    name="policy",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Policies: whom to believe and what to require.\n\nExample: pot policy check policy.yaml",
)

_PLACEHOLDER: Final = "REPLACE"
"""How everything begins that a template leaves open."""

_HEAD: Final = """\
version: pot/policy/v1
roles:
  developer:            # who may certify models
    - name: REPLACE-DEVELOPER
      public_key: |
        REPLACE with the content of the developer's .pub file, indented like this line
  auditor:              # whose re-execution counts
    - name: REPLACE-AUDITOR
      public_key: |
        REPLACE with the content of the auditor's .pub file, indented like this line
"""

_COVERAGE: Final = """\
coverage:               # a challenge must catch this share of forged steps with this probability
  forged: "0.05"
  detect: "0.95"
limits:
  segment_steps: 100    # longer segments are refused
# audit:                # if one auditor is not enough
#   auditors: 2         # so many different ones must carry the coverage
#   independent: true   # two of them must have shown that they computed the same states
"""

_CIRCUITS: Final = """\
zk:
  circuits:
    - REPLACE with the SHA-256 of a circuit that you have looked at
  srs:
    - sha256: REPLACE with the SHA-256 of the reference string
      class: verifier   # or public-ceremony, or insecure-local
"""

TEMPLATES: Final[dict[str, str]] = {
    "provenance": _HEAD
    + """\
require:
  - claim: training-provenance
    level: audited
"""
    + _COVERAGE,
    "exclusion": _HEAD
    + """\
require:
  - claim: training-provenance
    level: committed
  - claim: dataset-exclusion
    level: audited
    exclusion:          # the set that must be out: from your own commitment of it
      view: pixels/1
      records: 200
      root_blake3: REPLACE with records.root_blake3 of your commitment
"""
    + _COVERAGE,
    "inclusion": _HEAD
    + """\
require:
  - claim: dataset-inclusion
    level: audited
    inclusion:          # the set that must have been used: from your own commitment of it
      view: text/1
      records: 200
      root_blake3: REPLACE with records.root_blake3 of your commitment
"""
    + _COVERAGE,
    "composition": _HEAD
    + """\
require:
  - claim: data-composition
    level: audited      # an auditor summed the data and its labels up again
    only:               # no group of any dataset has another label
      licence: [CC0-1.0, MIT, Apache-2.0]
"""
    + _COVERAGE,
    "step-proofs": _HEAD
    + """\
require:
  - claim: steps-proven
    level: audited      # the points are tied to weights and records by an auditor
    verifier_chosen: true
"""
    + _COVERAGE
    + _CIRCUITS,
    "every-step": _HEAD
    + """\
require:
  - claim: steps-proven
    level: proved       # from the first weights to the released ones: no auditor's word is needed
    every_step: true
  - claim: step-exclusion
    level: proved       # every step's batch is opened, and none read a record of X
    every_step: true
    exclusion:
      view: pixels/1
      records: 1000
      root_blake3: REPLACE with records.root_blake3 of your commitment
"""
    + _CIRCUITS,
}
"""Policies to start from, by name."""


def register(main: typer.Typer) -> None:
    """Add `pot policy` with its commands."""
    main.add_typer(app, name="policy")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="POLICY", help="The policy file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the policy as one JSON object.")] = False,
) -> None:
    """Say whether a policy can be used, and what it means; exit 2 if it cannot.

    Example: pot policy check policy.yaml
    """
    from attest.verdict.policy import load_policy
    from pot.errors import UsageError

    policy = load_policy(file)
    for role, name, _ in policy.keys:
        if name.startswith(_PLACEHOLDER):
            raise UsageError(f"{file}: roles.{role}: the name is still {name!r}; write whose key it is")
    if as_json:
        typer.echo(policy.document.to_bytes().decode())
        return
    typer.echo(clean(f"{file}: good, sha256 {policy.sha256}"))
    for role, name, key in policy.keys:
        typer.echo(clean(f"{role}  {name}  {key.algorithm} {key.hint()}"))
    for item in policy.document.require:
        pin = item.exclusion or item.inclusion
        extra = f" of {pin.records} records, view {pin.view}, root {pin.root_blake3}" if pin else ""
        extra += f", field {pin.field}" if pin is not None and pin.field is not None else ""
        extra += f", under key {pin.hiding.id}" if pin is not None and pin.hiding is not None else ""
        extra += "".join(f", only {name}: {', '.join(labels)}" for name, labels in (item.only or {}).items())
        extra += ", of every step of the run" if item.every_step else ""
        extra += ", steps chosen by a verifier" if item.verifier_chosen else ""
        typer.echo(clean(f"requires  {item.claim} at {item.level}{extra}"))
    if policy.document.coverage is not None:
        target = policy.document.coverage
        typer.echo(f"coverage  {target.forged} forged steps are caught with probability {target.detect}")
    if policy.segment_limit is not None:
        typer.echo(f"limits    no segment is longer than {policy.segment_limit} steps")
    if policy.auditors > 1 or policy.independent:
        alike = "; two must have committed to the same inner states" if policy.independent else ""
        typer.echo(f"audit     different auditors: at least {policy.auditors}{alike}")
    if policy.beacon is not None:
        first = policy.beacon.not_before_round
        typer.echo(f"beacon    challenges may be drawn by chain {policy.beacon.chain} from round {first} on")


@app.command()
def schema() -> None:
    """Print the JSON Schema of policy files (their YAML read as JSON).

    Example: pot policy schema
    """
    from attest.verdict.policy import PolicyDocument

    typer.echo(json.dumps(PolicyDocument.model_json_schema(by_alias=True), indent=2, sort_keys=True))


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which one; left out: list them.")] = None,
) -> None:
    """Print a policy to start from.

    Example: pot policy show exclusion
    """
    from pot.errors import UsageError

    if name is None:
        typer.echo("\n".join(TEMPLATES))
        say("these are names, not a policy; pot policy show NAME prints one")
        return
    if name not in TEMPLATES:
        raise UsageError(f"no policy is called {name[:64]!r}; there are {', '.join(TEMPLATES)}")
    typer.echo(TEMPLATES[name], nl=False)
