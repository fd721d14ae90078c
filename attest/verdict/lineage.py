"""Step 13, and the order of the steps for one certificate: its ancestors first, then itself.

Spec: `specs/verification.md`, "For each certificate" and step 13. Ancestors are found by the payload digest of their
certificates, so a lineage cannot have a circle; an ancestor that two models share is examined once.

Shows: every ancestor's certificate is there, by an accepted developer, about the model that was built on, and holds.
Does not show: anything about ancestors that a certificate does not name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from attest.bundle import ReleaseBundle
from attest.verdict.audits import check_audits, gather_audits
from attest.verdict.case import Case
from attest.verdict.claims import compose_claims
from attest.verdict.collection import Certified, Collection
from attest.verdict.composition import check_compositions
from attest.verdict.coverage import check_coverage
from attest.verdict.exclusion import check_exclusions
from attest.verdict.findings import Ledger
from attest.verdict.inclusion import check_inclusions
from attest.verdict.independence import check_independence
from attest.verdict.policy import Policy
from attest.verdict.run import check_precommit, check_transcript, check_weights
from attest.verdict.screening import check_screening
from attest.verdict.seed import check_seed
from attest.verdict.step_exclusion import check_step_exclusions
from attest.verdict.step_states import PointMaker, check_blinding
from attest.verdict.steps import StepVerifier, check_steps, step_events
from attest.verdict.subject import check_subject

__all__ = ["MAX_DEPTH", "Examiner"]

MAX_DEPTH: Final = 64  # generations; a lineage that is deeper is not examined further


@dataclass
class Examiner:
    """Examines certificates of one release bundle under one policy; remembers ancestors."""

    release: ReleaseBundle
    collection: Collection
    policy: Policy | None
    verify_step: StepVerifier
    make_points: PointMaker
    _known: dict[str, Case] = field(default_factory=dict)

    def examine(self, certified: Certified, *, at_hand: bool, depth: int = 0) -> Case:
        """Steps 2 to 14 for one certificate and, before what depends on them, for its ancestors."""
        if not at_hand and certified.sha256 in self._known:
            return self._known[certified.sha256]
        case = Case(certified, self.release, at_hand, Ledger(about=certified.certificate.model.name))
        self._sign(case)  # 2, 3
        subject = f"certificate {case.sha256[:16]}"
        case.ledger.not_checked(
            "time-source", subject, "no time source is consulted; nothing here rests on a clock"
        )  # 4
        case.ledger.not_checked("log-inclusion", subject, "no log is consulted; order rests on verifiers' nonces")  # 5
        self._form(case)  # 6
        check_subject(case)  # 7
        check_precommit(case)  # 8
        check_transcript(case)  # 8 order, 9 chain
        gather_audits(case, self.collection)  # 12, needed for the seed and the first weights
        check_seed(case, self.policy)  # 8
        self._ancestors(case, depth)  # 13
        check_weights(case)  # 9
        set_claims = [*check_exclusions(case), *check_inclusions(case), *check_compositions(case)]  # 10
        steps = check_steps(case, self.policy, self.verify_step, self.make_points)  # 11
        steps += check_step_exclusions(case, self.make_points, step_events(case))  # 11
        check_blinding(case)  # 11
        check_audits(case, self.policy)  # 12
        check_independence(case, self.policy)  # 12
        check_screening(case)  # 12
        check_coverage(case)  # 12
        compose_claims(case, set_claims, steps)  # 13
        case.ledger.not_checked("status", subject, "no revocation list is consulted")  # 14
        if not at_hand:
            self._known[certified.sha256] = case
        return case

    def _sign(self, case: Case) -> None:
        subject = f"certificate {case.sha256[:16]}"
        if self.policy is None:
            case.ledger.not_checked("signature", subject, "without a policy there is no key to check it with")
            case.ledger.not_checked("identity", subject, "identity not checked: pass --policy with the developer's key")
            return
        case.ledger.passed("signature", subject, "a good signature by a key of the policy")
        case.ledger.passed("identity", subject, f"signed by {case.certified.signer}, an accepted developer")

    def _form(self, case: Case) -> None:
        subject = f"certificate {case.sha256[:16]}"
        case.ledger.passed("statement", subject, "in-toto Statement v1, one subject, canonical")
        case.ledger.passed("predicate", subject, case.certified.statement.predicate_type)

    def _ancestors(self, case: Case, depth: int) -> None:
        for item in case.certificate.inputs.parents:
            subject = f"parent {item.model_sha256[:16]}"
            certified = self.collection.certificates.get(item.certificate_sha256)
            if certified is None:
                case.ledger.not_checked(
                    "parent", subject, f"its certificate {item.certificate_sha256} is missing from claims.jsonl"
                )
            elif self.policy is not None and certified.signer is None:
                case.ledger.not_checked("parent", subject, "its certificate is not signed by an accepted developer")
            elif certified.statement.subject_sha256 != item.model_sha256:
                case.ledger.failed(
                    "parent",
                    subject,
                    "its certificate is about another model",
                    expected=item.model_sha256,
                    found=certified.statement.subject_sha256,
                )
            elif depth + 1 > MAX_DEPTH:
                case.ledger.not_checked("parent", subject, f"the lineage is deeper than {MAX_DEPTH} generations")
            else:
                parent = self.examine(certified, at_hand=False, depth=depth + 1)
                case.parents.append(parent)
                case.ledger.passed(
                    "parent", subject, f"{parent.certificate.model.name}, its certificate is there and about that model"
                )
