"""Canaries: records planted before the training, told apart from as many others afterwards by their loss.

After Carlini and others, "The Secret Sharer" (2019). An auditor makes N candidates that nobody has seen, and plants K
of them, chosen by a secret, in the data. Only the planted ones leave its hands before the training. Had they not been
trained on, each choice of K among the N would be equally likely to have the lowest losses, whatever the model; so the
probability of ranks as low as theirs is exact.

Spec: `specs/hints.md`, "Canaries".

Shows: the planted candidates have lower losses than the others, with the probability of that by chance.
Does not show: when the registration was made (a log does); that the rest of the data was trained on. Canaries that
somebody recognised and left out look like ones that were never planted: no sign.
"""

from __future__ import annotations

import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import JsonValue, model_validator

from pot.audit.statistics.hints import MAX_RANKS, MAX_ROC, Hint, judge
from pot.audit.statistics.mann_whitney import RankTest, decimal, rank_test, roc
from pot.audit.statistics.memorization import Losses, losses_at
from pot.canonical import MAX_DOCUMENT_BYTES, Count, Document, Hex32, canonical_bytes, derive
from pot.commitments.order import Permutation
from pot.errors import Refused, UsageError
from pot.recording.checking.finished import load_run

__all__ = ["MAX_CANDIDATES", "MIN_CANDIDATES", "Canaries", "CanaryOpening", "CanaryTest", "canary_hint",
           "compare_canaries", "from_template", "new_canaries", "open_canaries", "planted"]  # fmt: skip

MAX_CANDIDATES: Final = 20_000
MIN_CANDIDATES: Final = 100  # of fewer, the lowest loss of all would still be nothing rare
_PLANT_CONTEXT: Final = "pot/canaries-plant/v1"
_TEXT_CONTEXT: Final = "pot/canaries-text/v1"


def _check_counts(planted: int, candidates: int) -> None:
    if not MIN_CANDIDATES <= candidates <= MAX_CANDIDATES:
        raise ValueError(f"candidates: {MIN_CANDIDATES} to {MAX_CANDIDATES} are possible, not {candidates}")
    if not 0 < planted < candidates:
        raise ValueError("planted: must be at least one, and fewer than the candidates")


class Canaries(Document):
    """`pot/canaries/v1`, the registration: published before the training.

    `opening_sha256`: the SHA-256 of the opening document, which the auditor keeps until the test.
    """

    version: Literal["pot/canaries/v1"]
    opening_sha256: Hex32
    candidates: Count
    planted: Count

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_counts(int(self.planted), int(self.candidates))
        return self


class CanaryOpening(Document):
    """`pot/canaries-opening/v1`: the secret, the candidates in order, and how many are planted."""

    version: Literal["pot/canaries-opening/v1"]
    secret: Hex32
    planted: Count
    candidates: tuple[dict[str, JsonValue], ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_counts(int(self.planted), len(self.candidates))
        if len({canonical_bytes(candidate) for candidate in self.candidates}) != len(self.candidates):
            raise ValueError("candidates: two are the same record")
        return self


@dataclass(frozen=True)
class CanaryTest:
    """`ranks`: of the planted ones, from 1 for the lowest loss, ties by half; `scores`: the losses' negatives."""

    test: RankTest
    ranks: tuple[float, ...]
    scores: tuple[list[float], list[float]]


def from_template(template: str, field: str, count: int, secret: str) -> list[dict[str, JsonValue]]:
    """`count` records whose text is the template with `{}` replaced by twelve digits that follow from the secret.

    Twelve digits: a chance of 10^-4 that two of 20,000 are the same, which is refused. Raises `UsageError`.
    """
    if template.count("{}") != 1:
        raise UsageError("canaries: the template must hold {} once, where the digits go")
    if not MIN_CANDIDATES <= count <= MAX_CANDIDATES:
        raise UsageError(f"canaries: {MIN_CANDIDATES} to {MAX_CANDIDATES} candidates are possible, not {count}")
    numbers = (derive(_TEXT_CONTEXT, bytes.fromhex(secret), at.to_bytes(8, "little")) for at in range(count))
    return [{field: template.replace("{}", f"{int.from_bytes(n, 'little') % 10**12:012d}")} for n in numbers]


def new_canaries(
    candidates: Sequence[dict[str, JsonValue]], plant: int, secret: str | None = None
) -> tuple[Canaries, CanaryOpening]:
    """The registration and its opening. `secret`: 64 hex digits; None: fresh ones.

    Raises `Malformed` for candidates that are too few, too many or not all different.
    """
    value = {
        "version": "pot/canaries-opening/v1",
        "secret": secret if secret is not None else secrets.token_hex(32),
        "planted": str(plant),
        "candidates": list(candidates),
    }
    opening = CanaryOpening.from_bytes(canonical_bytes(value), what="canaries", limit=MAX_DOCUMENT_BYTES)
    registration = {
        "version": "pot/canaries/v1",
        "opening_sha256": opening.sha256(),
        "candidates": str(len(opening.candidates)),
        "planted": opening.planted,
    }
    return Canaries.from_value(registration, what="canaries"), opening


def planted(opening: CanaryOpening) -> list[int]:
    """Which candidates are planted, from 0, ascending: by the secret and by nobody's taste."""
    key = derive(_PLANT_CONTEXT, bytes.fromhex(opening.secret))
    return sorted(Permutation(key, len(opening.candidates)).slice(0, int(opening.planted)))


def open_canaries(registration: Canaries, opening: CanaryOpening) -> None:
    """Refuse an opening that is not the registered one. Raises `Refused`."""
    found = (opening.sha256(), str(len(opening.candidates)), opening.planted)
    if found != (registration.opening_sha256, registration.candidates, registration.planted):
        raise Refused(
            f"canaries: the opening has SHA-256 {found[0]}, registered is {registration.opening_sha256}, for"
            f" {registration.planted} of {registration.candidates}"
        )


def compare_canaries(opening: CanaryOpening, losses: Sequence[float]) -> CanaryTest:
    """Test whether the planted candidates have the lower losses. `losses`: one for each candidate, in order."""
    if len(losses) != len(opening.candidates):
        raise UsageError(f"canaries: {len(losses)} losses for {len(opening.candidates)} candidates")
    chosen = set(planted(opening))
    first = [-loss for at, loss in enumerate(losses) if at in chosen]
    second = [-loss for at, loss in enumerate(losses) if at not in chosen]
    test = rank_test([(first, second)])
    ordered = sorted(losses)
    ranks = sorted((bisect_left(ordered, -score) + 1 + bisect_right(ordered, -score)) / 2 for score in first)
    return CanaryTest(test, tuple(ranks), (first, second))


def canary_hint(
    run_dir: Path,
    registration: Canaries,
    opening: CanaryOpening,
    losses: Losses,
    *,
    evaluate_sha256: str | None = None,
) -> Hint:
    """Test the last state of a finished run and give the hint. Raises `Refused`, `UsageError`, `EnvironmentFailure`."""
    open_canaries(registration, opening)
    precommit, transcript, chain = load_run(run_dir)
    last = chain.segments[-1].end_state
    found = compare_canaries(opening, losses_at(run_dir, last, list(opening.candidates), losses))
    value: dict[str, Any] = {
        "registration_sha256": registration.sha256(),
        "precommit_sha256": precommit.sha256(),
        "transcript_sha256": transcript.sha256(),
        "step": last.step,
        "candidates": registration.candidates,
        "planted": registration.planted,
        "auc": decimal(found.test.auc),
        "p": decimal(found.test.p),
        "method": found.test.method,
        "roc": [{"false": decimal(false), "true": decimal(true)} for false, true in roc(*found.scores, MAX_ROC)],
    }
    if len(found.ranks) <= MAX_RANKS:
        value["ranks"] = [repr(rank).removesuffix(".0") for rank in found.ranks]
    if evaluate_sha256 is not None:
        value["evaluate_sha256"] = evaluate_sha256
    status = judge(found.test, fewest=1)
    hint = {"version": "pot/hint/v1", "kind": "canaries", "status": status, "canaries": value}
    return Hint.from_bytes(canonical_bytes(hint), what="hint")
