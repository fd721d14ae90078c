"""The two policies of the story, as a regulator writes them: whom to believe, what must be shown, which X."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attest.demo.digits import X_SIZE

__all__ = ["child_policy", "parent_policy"]

_POLICY = """\
# Whom the regulator believes, what must be shown and at which level, and which X is meant.
version: pot/policy/v1
roles:
  developer:
{developers}
  auditor:
{auditors}
require:
  - claim: training-provenance
    level: audited
  - claim: dataset-exclusion
    level: audited
    exclusion:
      view: pixels/1
      records: {records}
      root_blake3: "{root}"
{more_claims}limits:
  segment_steps: 50
coverage:
  forged: "{forged}"
  detect: "{detect}"
{pins}"""

_STEPS = """\
  - claim: steps-proven
    level: audited
    verifier_chosen: true
"""

_PINS = """\
zk:
  circuits:
    - "{circuit}"
  srs:
    - sha256: "{srs}"
      class: verifier
"""


def parent_policy(keys: Path, x1: Mapping[str, Any], forged: str, detect: str) -> str:
    """For the parent, a float run: replay is the strongest evidence there is. `x1`: the set's commitment."""
    return _fill(keys, x1, forged, detect, "", "")


def child_policy(keys: Path, x1: Mapping[str, Any], forged: str, detect: str, kit: Mapping[str, str]) -> str:
    """For the fine-tuned model: also step proofs of steps a verifier drew, under that verifier's circuit and SRS."""
    return _fill(keys, x1, forged, detect, _STEPS, _PINS.format(circuit=kit["circuit_sha256"], srs=kit["srs_sha256"]))


def _fill(keys: Path, x1: Mapping[str, Any], forged: str, detect: str, claims: str, pins: str) -> str:
    return _POLICY.format(
        developers=_identity("Digits Lab", keys / "developer.pem.pub")
        + _identity("Tuning Ltd", keys / "tuner.pem.pub"),
        auditors=_identity("Independent Audit", keys / "auditor.pem.pub"),
        records=X_SIZE,
        root=x1["records"]["root_blake3"],
        forged=forged,
        detect=detect,
        more_claims=claims,
        pins=pins,
    ).replace("\n\n", "\n")


def _identity(name: str, key: Path) -> str:
    pem = "".join(f"        {line}\n" for line in key.read_text().strip().splitlines())
    return f"    - name: {name}\n      public_key: |\n{pem}"
