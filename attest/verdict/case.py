"""One certificate under examination: what it says, what was found of its evidence, and what was concluded so far.

Each step of the procedure reads a case, writes findings into its ledger, and leaves what later steps need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from attest.bundle import WEIGHTS_FILE, ReleaseBundle
from attest.predicate import TrainingCertificate
from attest.verdict.codes import CODES
from attest.verdict.collection import Audited, Certified, DataAudited
from attest.verdict.findings import Ledger, Level, Link, clean, weakest, worst
from attest.verdict.report import ClaimReport
from pot.audit.challenges.challenge import Challenge
from pot.commitments.dataset import DatasetCommitment
from pot.errors import EnvironmentFailure, PotError
from pot.recording.precommit import Precommit
from pot.recording.transcript import Transcript

if TYPE_CHECKING:
    from pot.data.composition_verify import Composition
    from pot.recording.checking.chain import ChainResult
    from pot.zk.kit import VerifyingKit

__all__ = ["Case", "ProvenSteps"]


@dataclass(frozen=True)
class ProvenSteps:
    """The steps whose proofs hold under one circuit; `links`: those of the claim that lists them."""

    kit: VerifyingKit | None
    steps: frozenset[str]
    links: tuple[Link, ...]


@dataclass
class Case:
    """The examination of one certificate. `at_hand`: its model is the folder that is being verified."""

    certified: Certified
    release: ReleaseBundle
    at_hand: bool
    ledger: Ledger = field(default_factory=Ledger)
    precommit: Precommit | None = None
    commitments: dict[str, DatasetCommitment] = field(default_factory=dict)
    transcript: Transcript | None = None
    chain: ChainResult | None = None
    audits: list[Audited] = field(default_factory=list)
    """Audits of the run that count: referred to, about this run, by an accepted auditor."""
    all_audits: list[Audited] = field(default_factory=list)
    """Audits that are referred to and about this run, whoever signed."""
    data_audits: list[DataAudited] = field(default_factory=list)
    """Data audits that count: referred to, about a commitment of this certificate, by an accepted auditor."""
    other_views: dict[str, DatasetCommitment] = field(default_factory=dict)
    """Commitments that proofs are against and that the run did not pre-commit, by digest: the same shards, seen
    otherwise. Only those that hold in step 10.
    """
    same_shards: dict[str, list[str]] = field(default_factory=dict)
    """For each of `other_views`: the pre-committed commitments whose shards it lists."""
    compositions: dict[str, Composition] = field(default_factory=dict)
    """Compositions that hold, by digest, as they were signed: labels are compared before they are cleaned."""
    challenges: list[Challenge] = field(default_factory=list)
    """Challenges of audits that count, drawn by a verifier, and recomputed."""
    one_forged: Fraction = Fraction(0)
    """The probability that what accepted auditors replayed by draws that count meets a single forged segment."""
    proven: dict[str, ProvenSteps] = field(default_factory=dict)
    """What step 11 found of each circuit, by its digest."""
    opened: set[str] = field(default_factory=set)
    """Steps whose batches are opened, and hold the committed records."""
    tied: str | None = None
    """Why the points are those of the run's first and last weights, where every step between is proven."""
    trained: tuple[int, int] | None = None
    """How many tensors of the model the steps between train, and how many it has; the others stayed as they were."""
    converted: dict[str, frozenset[str]] = field(default_factory=dict)
    """The tensors that a declared operation which holds converted, by the digest of its output."""
    parents: list[Case] = field(default_factory=list)
    claims: list[ClaimReport] = field(default_factory=list)
    referenced: set[str] = field(default_factory=set)
    not_shown: set[str] = field(default_factory=set)

    @property
    def certificate(self) -> TrainingCertificate:
        """The predicate."""
        return self.certified.certificate

    @property
    def sha256(self) -> str:
        """The certificate's name: SHA-256 of its payload."""
        return self.certified.sha256

    def object(self, code: str, sha256: str, what: str) -> bytes | None:
        """An object that the certificate refers to; where it is not there, that is found under `code`."""
        self.referenced.add(sha256)
        try:
            data = self.release.object(sha256)
        except EnvironmentFailure:
            raise  # a retry may help, so this is no verdict
        except PotError as error:
            self.ledger.not_checked(code, f"object {sha256}", f"{what} cannot be read: {error}")
            return None
        if data is None:
            wrong = "; the file of that name has other bytes" if sha256 in self.release.objects else ""
            self.ledger.not_checked(code, f"object {sha256}", f"{what} is missing from the release bundle{wrong}")
        return data

    def weights_sha256(self) -> str | None:
        """Digest of the released weights' file, as the certificate lists it."""
        return next((file.sha256 for file in self.certificate.model.files if file.path == WEIGHTS_FILE), None)

    def weights(self, code: str) -> bytes | None:
        """The released weights: the file at hand, or an ancestor's kept among the objects."""
        sha256 = self.weights_sha256()
        if sha256 is None:
            self.ledger.not_checked(code, "model", f"the certificate lists no {WEIGHTS_FILE}")
            return None
        if not self.at_hand:
            return self.object(code, sha256, f"the weights of {self.certificate.model.name}")
        if self.release.weights is None:
            self.ledger.not_checked(code, "model", f"there is no {WEIGHTS_FILE} in the folder")
        return self.release.weights

    def link(self, code: str, *, best: bool = False, about: Sequence[str] | None = None) -> Link:
        """A link of a claim, from the findings under one code; with `about`, from those on these subjects.

        It stands as its worst finding does; with `best`, one that passed is enough where none failed (of several
        audits, one that covers the run suffices). Its level is the lowest that the findings show; where nothing could
        be checked it is `declared` for a blocking code or one without which only a word is left, else `committed`.
        """
        found = [finding for finding in self.ledger.findings if finding.code == code]
        if about is not None:
            wanted = {clean(f"{self.ledger.about}: {subject}" if self.ledger.about else subject) for subject in about}
            found = [finding for finding in found if finding.subject in wanted]
        status = worst(finding.status for finding in found) if found else "not_checked"
        if best and status == "not_checked" and any(finding.status == "passed" for finding in found):
            status = "passed"
        detail = next((finding.detail for finding in found if finding.status == status), "not reached")
        level: Level = "declared"
        if status == "passed":
            level = weakest(f.level for f in found if f.status == "passed" and f.level is not None)
        elif status == "not_checked" and not CODES[code].blocks and not CODES[code].word:
            level = "committed"
        return Link(code=code, status=status, level=level, detail=detail)
