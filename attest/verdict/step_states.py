"""Step 11: the ends of a proven chain. The first and last state's points are opened and made again.

Spec: `specs/verification.md`, step 11; `specs/openings.md`. An opening names the files of a checkpoint,
whose digests the transcript holds, and the blinds of its point. With every step proven between two opened ends, the
released weights are what the circuit's steps make of the first ones: no auditor and no data are needed for that.

Shows: which weights the first and last point of the run commit to; what no step trains stayed as it was, from the
parent's release to the released file. Does not show: where the first weights come from (`initial-weights`); which
records the batches hold; that a circuit's constants, or the records' fields, were computed from what stayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from attest.predicate import StepsProven
from attest.verdict.case import Case
from pot.commitments.state import TensorEntry, entries_from_safetensors, tensors_digest
from pot.errors import PotError, Refused
from pot.recording.precommit import row_processes
from pot.recording.transcript import CheckpointEvent, StepEvent
from pot.zk.frozen import first_change
from pot.zk.semantics.program import is_remembered

if TYPE_CHECKING:
    from pot.zk.circuits.field import Vector
    from pot.zk.kit import VerifyingKit
    from pot.zk.opening_verify import StateOpening

__all__ = ["PointMaker", "check_blinding", "check_ends", "default_point_maker", "same_points"]

Which = Literal["first", "last"]


@dataclass(frozen=True)
class _Files:
    """The tensors of an opened state: the model's, and those that are none of the model's."""

    model: list[TensorEntry]
    rest: list[TensorEntry]


class PointMaker(Protocol):
    """Makes the points of vectors again; raises `PotError` where it cannot."""

    def __call__(self, kit: VerifyingKit, vectors: Sequence[Vector]) -> list[str]:
        """128 hex digits for each vector, in order."""


def default_point_maker(kit: VerifyingKit, vectors: Sequence[Vector]) -> list[str]:
    """Make points with ezkl in a limited subprocess (extra [zk])."""
    from pot.zk.engine import EngineFailure, EzklEngine
    from pot.zk.kit import commit_vectors

    engine, wanted = EzklEngine(), kit.circuit.ezkl_version
    if engine.version() != wanted:  # another point would then be no proof of a lie
        raise EngineFailure("commit", f"version {engine.version()} is installed, the circuit was made with {wanted}")
    return commit_vectors(kit, vectors, engine)


def same_points(
    case: Case, code: str, kit: VerifyingKit, points: PointMaker, wanted: Sequence[tuple[str, str, list[Vector]]]
) -> set[str]:
    """Make the points of opened vectors again and compare. `wanted`: subject, the transcript's point, its vectors.

    Returns the subjects whose points are the same. Writes `code` for the others.
    """
    try:
        made = points(kit, [vector for _, _, vectors in wanted for vector in vectors])
    except PotError as error:  # no extra, or an engine that crashed: that shows nothing, either way
        for subject, _, _ in wanted:
            case.ledger.not_checked(code, subject, str(error))
        return set()
    good: set[str] = set()
    for subject, expected, vectors in wanted:
        found, made = "".join(made[: len(vectors)]), made[len(vectors) :]
        if found == expected:
            good.add(subject)
        else:
            case.ledger.failed(code, subject, "what was opened has another point", expected=expected, found=found)
    return good


def check_ends(
    case: Case,
    claim: StepsProven,
    kit: VerifyingKit | None,
    points: PointMaker,
    events: dict[str, StepEvent],
    *,
    all_proven: bool,
) -> None:
    """Open the ends that the claim names. Writes `state-opening`; `case.tied` where every step lies between them."""
    ends: tuple[tuple[Which, str | None], ...] = (
        ("first", claim.first_opening_sha256), ("last", claim.last_opening_sha256),
    )  # fmt: skip
    wanted: list[tuple[str, str, list[Vector]]] = []
    opened: dict[Which, _Files] = {}
    for which, sha256 in ends:
        if sha256 is None:
            continue
        data = case.object("state-opening", sha256, f"the opening of the {which} state")
        if data is None:
            continue
        subject = f"{which} state"
        if kit is None:
            case.ledger.not_checked("state-opening", subject, "the circuit is not pinned or a part of it is missing")
            continue
        found = _opened(case, claim, kit, which, data, events)
        if found is not None:
            opened[which], point, vectors = found
            wanted.append((subject, point, vectors))
    if kit is None or not wanted:
        return
    good = same_points(case, "state-opening", kit, points, wanted)
    for subject in sorted(good):
        case.ledger.passed("state-opening", subject, f"its point commits to the weights of the run's {subject}")
    if len(good) < 2 or not _frozen_stay(case, kit, opened["first"], opened["last"]):
        return
    if all_proven:
        case.tied = f"all {len(events)} steps are proven, from the run's first weights to its last"
        case.trained = len(_weights(kit)), len(opened["last"].model)


def _opened(
    case: Case, claim: StepsProven, kit: VerifyingKit, which: Which, data: bytes, events: dict[str, StepEvent]
) -> tuple[_Files, str, list[Vector]] | None:
    """The files of the state at one end, its point in the transcript, and the vectors that must give it."""
    from pot.zk.opened_state import check_fresh, state_of
    from pot.zk.opening_verify import given_blinds, read_state_opening

    subject = f"{which} state"
    if case.chain is None or case.chain.initial is None or not case.chain.segments or case.precommit is None:
        case.ledger.not_checked("state-opening", subject, "there is no transcript with a first and a last state")
        return None
    number = 0 if which == "first" else case.chain.segments[-1].last
    state = case.chain.initial if which == "first" else case.chain.segments[-1].end_state
    event = events.get("1" if which == "first" else str(number))
    if event is None or event.points is None:
        case.ledger.failed("state-opening", subject, "the transcript holds no point for this state")
        return None
    if row_processes(case.precommit) != 1:
        case.ledger.not_checked("state-opening", subject, "the state is divided by rows, which no opening names")
        return None
    try:
        opening = read_state_opening(data)
        _check_names(case, claim, opening, number)
        files = _files(case, opening, state, subject)
        if files is None:
            return None
        begun, semantics = which == "first", case.precommit.semantics
        tensors = state_of(kit.step, files.model, files.rest, semantics=semantics, start=begun)
        if begun:
            check_fresh(kit.step, tensors)
        vectors = kit.family.state_vectors(kit.layout, tensors, given_blinds(opening), begun)
    except PotError as error:
        case.ledger.failed("state-opening", subject, str(error))
        return None
    return files, event.points.before if which == "first" else event.points.after, vectors


def _check_names(case: Case, claim: StepsProven, opening: StateOpening, number: int) -> None:
    wanted = (case.certificate.run.precommit_sha256, claim.circuit_sha256, str(number))
    if (opening.precommit_sha256, opening.circuit_sha256, opening.step) != wanted:
        raise Refused(f"the opening is of step {opening.step} of another run, of another circuit, or not of {number}")


def _files(case: Case, opening: StateOpening, state: CheckpointEvent, subject: str) -> _Files | None:
    """The tensors of the files that an opening names; the model's are those that the transcript committed to."""
    found: list[list[TensorEntry]] = []
    for sha256, what in ((opening.model_sha256, "weights"), (opening.rest_sha256, "optimizer's part")):
        data = b"" if sha256 is None else case.object("state-opening", sha256, f"the {what} of the {subject}")
        if data is None:
            return None
        found.append(entries_from_safetensors(data) if sha256 is not None else [])
    if tensors_digest("model", found[0]) != state.components.get("model"):
        raise Refused("its file of weights is not the one that the transcript committed to")
    return _Files(*found)


def _weights(kit: VerifyingKit) -> frozenset[str]:
    """The tensors of a model that the program trains."""
    names = kit.family.state_tensors
    return frozenset(name for name in names if not is_remembered(name, names))


def _frozen_stay(case: Case, kit: VerifyingKit, first: _Files, last: _Files) -> bool:
    """Tensors of the model that the program does not train are the same at both ends, and in what was released.

    The operations of an exact run leave them as they are: they convert what the program trains, all of it.
    """
    trained = _weights(kit)
    changed = first_change(*([entry for entry in files.model if entry.name not in trained] for files in (first, last)))
    if changed is not None:
        detail = f"tensor {changed[:64]} of the model changes, and no proven step trains it"
        case.ledger.failed("state-opening", "last state", detail)
        return False
    converted = case.converted.get(case.weights_sha256() or "")
    if case.certificate.run.semantics == "exact" and converted is not None and converted != trained:
        detail = f"tensor {min(converted ^ trained)[:64]} is converted or trained, but not both"
        case.ledger.failed("state-opening", "last state", f"{detail}: the release holds other weights than were proven")
        return False
    return True


def check_blinding(case: Case) -> None:
    """Whether an ancestor's run has the same secret. Writes `blinding` where this run names its own."""
    if case.precommit is None or case.precommit.secret_sha256 is None:
        return
    above, seen = list(case.parents), set[str]()
    while above:
        ancestor = above.pop()
        if ancestor.sha256 in seen:
            continue
        seen.add(ancestor.sha256)
        above += ancestor.parents
        if ancestor.precommit is not None and ancestor.precommit.secret_sha256 == case.precommit.secret_sha256:
            detail = f"the run of {ancestor.certificate.model.name} has the same secret: their points can be compared"
            case.ledger.not_checked("blinding", "secret", detail)
            case.not_shown.add("secret-reused")
            return
    case.ledger.passed("blinding", "secret", "no ancestor's run names the same one", "committed")
