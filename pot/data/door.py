"""The door: the owner of X asks about hidden training data, and the key's holder answers, within an allowance.

Spec: `specs/hiding.md`, "Door". An answer costs its asker as many digests as the query has; what was spent stands in a
ledger and is written there before the answer exists. Who may ask, and the signature under a query, are the caller's
matter (`attest.door`).

Shows / does not show: see `pot.data.door_verify`, which holds the checks.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, StringConstraints

from pot.canonical import Count, Document, Hex32, read_file, write_file
from pot.commitments.batch import keys_of
from pot.commitments.hashing import DIGEST_BYTES
from pot.commitments.hiding import ECVRF, HidingKey, blinded
from pot.commitments.merkle import LeafTree
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.commitments.vrf import proof_to_hash, prove
from pot.data.door_verify import (
    MAX_QUERY_DIGESTS,
    DoorAnswer,
    DoorAnswerHeader,
    DoorMember,
    DoorQuery,
    check_askable,
)
from pot.errors import EnvironmentFailure, LimitExceeded, Refused, UsageError

if TYPE_CHECKING:
    from pot.commitments.dataset import DatasetCommitment
    from pot.data.commit import Committed

__all__ = ["MAX_LEDGER_BYTES", "Ledger", "Spent", "answer", "ask", "charge"]

MAX_LEDGER_BYTES: Final = 16 << 20  # some 200,000 answered queries
_PROGRESS_EVERY: Final = 256


class Spent(BaseModel):
    """What one asker has spent: digests, and the queries (SHA-256, ascending) that were charged."""

    model_config = Document.model_config

    digests: Count
    queries: list[Hex32]


class Ledger(Document):
    """Version "pot/door-ledger/v1": asker's name -> what was spent."""

    version: Literal["pot/door-ledger/v1"]
    spent: dict[Annotated[str, StringConstraints(min_length=1, max_length=256)], Spent] = Field(max_length=10_000)


def ask(commitment: DatasetCommitment, exclusion: Committed, asker_sha256: str) -> DoorQuery:
    """The question whether X's records are in the training data of a hidden commitment.

    `exclusion`: X, committed without a key, and its listing. `asker_sha256`: SHA-256 of the asker's public key.
    Raises `UsageError`, `LimitExceeded` (more than `MAX_QUERY_DIGESTS` distinct records).
    """
    if exclusion.commitment.hiding is not None:
        raise UsageError("X is hidden under a key; the door takes plain digests, so commit X without --key-file")
    if exclusion.commitment.view != commitment.view:
        raise UsageError(
            f"X is committed as {exclusion.commitment.view}, the training data as {commitment.view}; "
            f"commit X with --view {commitment.view}"
        )
    digests = sorted({row.tobytes().hex() for row in exclusion.digests})
    if len(digests) > MAX_QUERY_DIGESTS:
        raise LimitExceeded(
            f"X has {len(digests)} distinct records, one query takes {MAX_QUERY_DIGESTS}; commit X in parts"
        )
    query = DoorQuery(
        version="pot/door-query/v1",
        commitment_sha256=commitment.sha256(),
        view=commitment.view,
        asker_sha256=asker_sha256,
        nonce=secrets.token_hex(32),
        digests=digests,
    )
    try:
        check_askable(commitment, query)
    except ProofRefused as error:
        raise UsageError(str(error)) from None
    return query


def charge(ledger: Path, name: str, allowance: int, query: DoorQuery) -> int:
    """Write the query's cost to the ledger, before it is answered; returns what the asker has left.

    A query that was charged before (the same bytes) costs nothing again. The ledger is made where there is none, and
    locked meanwhile, so that answers at the same time cannot spend the same allowance twice. Raises `Refused` where
    the query costs more than is left, `UsageError`, `Malformed`, `EnvironmentFailure`.
    """
    with _locked(ledger):
        held = _read(ledger)
        spent = held.spent.get(name, Spent(digests="0", queries=[]))
        left, cost, sha256 = allowance - int(spent.digests), len(query.digests), query.sha256()
        if sha256 in spent.queries:
            return max(left, 0)
        if cost > left:
            raise Refused(
                f"the query asks for {cost} digests, {name} may ask for {max(left, 0)} more of {allowance} in all"
            )
        now = Spent(digests=str(int(spent.digests) + cost), queries=sorted([*spent.queries, sha256]))
        data = Ledger(version="pot/door-ledger/v1", spent={**held.spent, name: now}).to_bytes()
        if len(data) > MAX_LEDGER_BYTES:
            raise LimitExceeded(f"{ledger}: is full ({MAX_LEDGER_BYTES} bytes); begin another with new askers' names")
        write_file(ledger, data, mode=0o600)
        return left - cost


def answer(
    training: Committed, key: HidingKey, query: DoorQuery, progress: Callable[[int, int], None] | None = None
) -> DoorAnswer:
    """The answer: a VRF proof for every digest, a path for those that are in, a non-membership proof for all others.

    The same query gives the same bytes. About 0.5 ms for each digest; `progress` is called with (done, all). Raises
    `UsageError` (a key that is not the commitment's), `Refused` (a query that is not about this commitment, or whose
    digest shares its 8-byte key with another record's), `MissingExtra`.
    """
    commitment = training.commitment
    check_askable(commitment, query)
    if key.method != ECVRF or key.hiding != commitment.hiding:
        raise UsageError("the hiding key is not the one that the commitment names; give the one it was made with")
    public = bytes.fromhex(key.hiding.id)
    proofs, hidden = [], np.empty((len(query.digests), DIGEST_BYTES), np.uint8)
    for number, digest in enumerate(query.digests):
        proofs.append(prove(key.secret, bytes.fromhex(digest), public))
        hidden[number] = np.frombuffer(blinded(proof_to_hash(proofs[-1])), np.uint8)
        if progress is not None and (number + 1) % _PROGRESS_EVERY == 0:
            progress(number + 1, len(query.digests))
    keys, tree = keys_of(hidden), SetTree.of_keys(training.keys)
    near = tree.contains(keys)
    members = _members(training, hidden, np.flatnonzero(near)) if bool(near.any()) else []
    if len(members) != int(near.sum()):
        raise Refused(
            "an asked digest shares its 8-byte key with a different training record, so its absence cannot be shown; "
            "ask without it"
        )
    header = DoorAnswerHeader(
        version="pot/door-answer/v1",
        query_sha256=query.sha256(),
        commitment_sha256=query.commitment_sha256,
        vrf_key=public.hex(),
        asked=str(len(proofs)),
        members=str(len(members)),
    )
    absence = tree.prove_absent_keys(keys[~near]) if len(members) < len(proofs) else b""
    return DoorAnswer(header, proofs, members, absence)


def _members(training: Committed, hidden: NDArray[np.uint8], asked: NDArray[np.int64]) -> list[DoorMember]:
    """Of the asked digests whose keys are in the set, those that are training records' digests."""
    ours = training.digests
    places = np.flatnonzero(np.isin(keys_of(ours), keys_of(hidden[asked])))
    first: dict[bytes, int] = {}
    for place in places.tolist():
        first.setdefault(ours[place].tobytes(), place)
    tree = LeafTree(np.ascontiguousarray(ours))
    found = [(number, first.get(hidden[number].tobytes())) for number in asked.tolist()]
    return [DoorMember(number, index, tree.inclusion_path(index)) for number, index in found if index is not None]


def _read(ledger: Path) -> Ledger:
    if not ledger.exists() and not ledger.is_symlink():
        return Ledger(version="pot/door-ledger/v1", spent={})
    return Ledger.from_bytes(read_file(ledger, limit=MAX_LEDGER_BYTES), what=str(ledger))


@contextmanager
def _locked(ledger: Path) -> Iterator[None]:
    """Alone with the ledger. The lock is a file beside it: the ledger itself is replaced whenever it is written."""
    if not ledger.name:
        raise UsageError(f"{ledger}: is a folder; name the ledger's file")
    lock = ledger.with_name(f"{ledger.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentFailure(f"{lock}: cannot be opened: {error.strerror or error}") from None
    try:
        _lock(handle, lock)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, lock: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise EnvironmentFailure(f"{lock}: cannot be locked: {error.strerror or error}") from None
