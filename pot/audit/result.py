"""The result of an audit: one document, which says what this auditor's machine found and is signed as it is.

Spec: `specs/transcript.md`, "Audit". Every field after `isolation`, and `extra`, is optional.

Shows / does not show: see `pot.audit.audit`.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel

from pot.audit.challenges.challenge import Challenge
from pot.audit.replaying.comparison import PointsOutcome
from pot.audit.replaying.replay import Outcome
from pot.audit.replaying.sandbox import Isolation
from pot.audit.replaying.tolerance import Tolerance
from pot.audit.screening.checks import Screening
from pot.audit.statistics.hints import Hint
from pot.canonical import Count, Decimal, Document, Hex32
from pot.recording.precommit import SeedNonce

__all__ = ["MAX_DETAIL", "MAX_EXPLAINED", "MAX_HINTS", "AuditResult", "Distances", "ReplayedUnit"]

MAX_DETAIL: Final = 300  # characters of an explanation, and
MAX_EXPLAINED: Final = 50  # units that get one: a statement must stay under 64 KiB
MAX_HINTS: Final = 2  # of 8 KiB each


class Distances(BaseModel):
    """How far a replayed end state is from the committed one, by component, over the segment's update (L2)."""

    model_config = Document.model_config

    model: Decimal | None = None
    optimizer: Decimal | None = None


class ReplayedUnit(BaseModel):
    """The outcome of one unit. `distances`: where the states differ and both could be measured."""

    model_config = Document.model_config

    unit_number: Count
    outcome: Outcome
    detail: str | None = None
    distances: Distances | None = None


class AuditResult(Document):
    """`pot/audit-result/v1`. `datasets`: commitments whose roots were recomputed; `datasets_differ`: and differed.

    `screening`: what the cheap checks over all segments found; `extra`: units replayed because they looked suspicious;
    `tolerance`: distances beside this machine's noise, for what was INCONCLUSIVE; `inner_commitment`: SHA-256 of the
    auditor's inner digests; `hints`: statistical tests about this transcript. None of these lifts anything.
    """

    version: Literal["pot/audit-result/v1"]
    precommit_sha256: Hex32
    transcript_sha256: Hex32
    challenge: Challenge
    replays: tuple[ReplayedUnit, ...]
    extra: tuple[ReplayedUnit, ...] | None = None
    datasets: tuple[Hex32, ...]
    datasets_differ: tuple[Hex32, ...] | None = None
    init: Literal["MATCH", "MISMATCH", "NOT_CHECKED"]
    init_detail: str | None = None
    points: PointsOutcome
    seed_nonce: SeedNonce | None = None
    environment_sha256: Hex32
    isolation: Isolation
    screening: Screening | None = None
    tolerance: Tolerance | None = None
    inner_commitment: Hex32 | None = None
    hints: tuple[Hint, ...] | None = None
