"""The door's formats and the asker's check: which of my records are in a training set that I may not see?

Spec: `specs/hiding.md`, "Door". For commitments with leaves hidden under `ecvrf/1`. Needs the commitment, the query and
the answer; neither the hiding key nor the listing.

Shows: none of the asked digests that the answer calls absent is in the committed set; the others stand in the ordered
tree at the named indices.
Does not show: near duplicates; that the set holds the records of the ordered tree (an auditor's recomputation ties
them); that training read only committed records. The answerer learns the asked digests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from pot.canonical import Count, Document, Hex32
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.hashing import BLAKE3, DIGEST_BYTES
from pot.commitments.hiding import ECVRF, blinded
from pot.commitments.merkle_verify import ProofRefused, path_length, verify_inclusion
from pot.commitments.setree_verify import key_of, verify_absent
from pot.commitments.vrf import PROOF_BYTES, verify
from pot.errors import LimitExceeded, Malformed

__all__ = [
    "INDEX_BYTES",
    "MAX_ANSWER_BYTES",
    "MAX_QUERY_BYTES",
    "MAX_QUERY_DIGESTS",
    "DoorAnswer",
    "DoorAnswerHeader",
    "DoorMember",
    "DoorQuery",
    "check_answer",
    "check_askable",
    "read_answer",
]

MAX_QUERY_DIGESTS: Final = 100_000  # a minute of answering, and of checking
MAX_QUERY_BYTES: Final = 8 << 20  # 67 bytes for each digest
MAX_ANSWER_BYTES: Final = 1 << 29
MAX_HEADER_BYTES: Final = 1024
INDEX_BYTES: Final = 8
_PROGRESS_EVERY: Final = 256


class DoorQuery(Document):
    """Version "pot/door-query/v1": the question of one asker about one commitment.

    `asker_sha256`: SHA-256 of the asker's public key (DER SubjectPublicKeyInfo). `digests`: plain record digests seen
    through `view`, ascending and distinct. `nonce`: a number used once, so that no two questions are the same.
    """

    version: Literal["pot/door-query/v1"]
    commitment_sha256: Hex32
    view: Annotated[str, StringConstraints(pattern=r"\A[a-z0-9-]{1,32}/[1-9][0-9]{0,3}\z")]
    asker_sha256: Hex32
    nonce: Hex32
    digests: Annotated[list[Hex32], Field(min_length=1, max_length=MAX_QUERY_DIGESTS)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if any(a >= b for a, b in zip(self.digests, self.digests[1:], strict=False)):
            raise ValueError("digests must ascend, each of them once")
        return self


class DoorAnswerHeader(Document):
    """First line of an answer, version "pot/door-answer/v1". `vrf_key`: public key of the VRF proofs."""

    version: Literal["pot/door-answer/v1"]
    query_sha256: Hex32
    commitment_sha256: Hex32
    vrf_key: Hex32
    asked: Count
    members: Count


@dataclass(frozen=True, slots=True)
class DoorMember:
    """One asked digest that is in: its number in the query, its first index in the training data, its path there."""

    asked: int
    index: int
    path: list[bytes]


@dataclass(frozen=True, slots=True)
class DoorAnswer:
    """An answer taken apart. `proofs`: one VRF proof for each asked digest. `absence`: empty if all are members."""

    header: DoorAnswerHeader
    proofs: list[bytes]
    members: list[DoorMember]
    absence: bytes

    def to_bytes(self) -> bytes:
        """The file: header line, VRF proofs, flags, members' indices and paths, non-membership proof."""
        flags = bytearray((len(self.proofs) + 7) // 8)
        for member in self.members:
            flags[member.asked // 8] |= 1 << member.asked % 8
        inside = b"".join(
            member.index.to_bytes(INDEX_BYTES, "little") + b"".join(member.path) for member in self.members
        )
        return b"".join(
            [self.header.to_bytes(), b"\n", *self.proofs, bytes(flags), inside, self.absence],
        )


def check_askable(commitment: DatasetCommitment, query: DoorQuery) -> None:
    """Refuse a question that is not about this commitment, or that its door cannot answer.

    Raises `ProofRefused` with the code "door-commitment".
    """
    if commitment.hiding is None or commitment.hiding.method != ECVRF or commitment.gram:
        raise ProofRefused("door-commitment", f"door: the commitment is not hidden under {ECVRF}, so it has no door")
    if commitment.role != "training":
        raise ProofRefused("door-commitment", f"door: the commitment has the role {commitment.role}, not training")
    if query.commitment_sha256 != commitment.sha256():
        raise ProofRefused(
            "door-commitment",
            f"door: the query is about commitment {query.commitment_sha256}, expected {commitment.sha256()}",
        )
    if query.view != commitment.view:
        raise ProofRefused(
            "door-commitment",
            f"door: the query's digests are of view {query.view}, the commitment's of {commitment.view}",
        )


def read_answer(commitment: DatasetCommitment, query: DoorQuery, data: bytes, *, what: str = "answer") -> DoorAnswer:
    """Take an answer apart; the commitment and the query say how long each part must be.

    Raises `Malformed`, `LimitExceeded`; `ProofRefused` ("door-query", "door-length", "door-member").
    """
    if len(data) > MAX_ANSWER_BYTES:
        raise LimitExceeded(f"{what}: {len(data)} bytes, more than the limit of {MAX_ANSWER_BYTES}")
    end = data.find(b"\n", 0, MAX_HEADER_BYTES + 1)
    if end < 0:
        raise Malformed(f"{what}: has no header line of at most {MAX_HEADER_BYTES} bytes")
    header = DoorAnswerHeader.from_bytes(data[:end], what=f"{what} header", limit=MAX_HEADER_BYTES)
    asked = len(query.digests)
    if int(header.asked) != asked or int(header.members) > asked:
        raise ProofRefused("door-query", f"door: the answer is about {header.asked} digests, expected {asked}")
    flags_at = end + 1 + PROOF_BYTES * asked
    members_at = flags_at + (asked + 7) // 8
    if len(data) < members_at:
        raise ProofRefused("door-length", f"door: the answer has {len(data)} bytes and ends before its members")
    numbers = _flagged(data[flags_at:members_at], asked, int(header.members))
    members, absence_at = _members(data, members_at, numbers, int(commitment.records.count))
    proofs = [data[at : at + PROOF_BYTES] for at in range(end + 1, flags_at, PROOF_BYTES)]
    return DoorAnswer(header, proofs, members, data[absence_at:])


def check_answer(
    commitment: DatasetCommitment, query: DoorQuery, data: bytes, progress: Callable[[int, int], None] | None = None
) -> list[DoorMember]:
    """Refuse unless the answer shows of every asked digest whether it is in the training data; returns those that are.

    0.8 ms for each digest; `progress` is called with (checked, all). Raises `ProofRefused` with the code
    "door-commitment", "door-query", "door-key", "door-length", "door-vrf", "door-member" or "door-absence";
    `Malformed`, `LimitExceeded`, `MissingExtra`.
    """
    # 1 the question is about this commitment, whose leaves are hidden under a VRF key
    check_askable(commitment, query)
    # 2 the answer is to this question, under that key, and has exactly the parts that it says
    answer = read_answer(commitment, query, data)
    _check_header(commitment, query, answer.header)
    # 3 every VRF proof holds: the hidden digests are those of the asked ones, and no others
    digests = _unhidden(bytes.fromhex(answer.header.vrf_key), query, answer.proofs, progress)
    # 4 what is called a member stands in the ordered tree
    root, count = bytes.fromhex(commitment.records.root_blake3), int(commitment.records.count)
    for member in answer.members:
        try:
            verify_inclusion(BLAKE3.leaf(digests[member.asked]), member.index, count, member.path, root, BLAKE3)
        except ProofRefused as error:
            raise ProofRefused("door-member", f"door: digest {member.asked} is called a member: {error}") from None
    # 5 nothing else is in the set
    inside = {member.asked for member in answer.members}
    absent = [key_of(digest) for number, digest in enumerate(digests) if number not in inside]
    if not absent:
        if answer.absence:
            raise ProofRefused("door-length", f"door: {len(answer.absence)} bytes follow the last member")
        return answer.members
    try:
        tree = commitment.set
        verify_absent(bytes.fromhex(tree.root_blake3), int(tree.depth), int(tree.count), absent, answer.absence)
    except ProofRefused as error:
        raise ProofRefused("door-absence", f"door: {error}") from None
    return answer.members


def _check_header(commitment: DatasetCommitment, query: DoorQuery, header: DoorAnswerHeader) -> None:
    for name, expected in (("query_sha256", query.sha256()), ("commitment_sha256", query.commitment_sha256)):
        found = getattr(header, name)
        if found != expected:
            raise ProofRefused("door-query", f"door: the answer's {name} is {found}, expected {expected}")
    if commitment.hiding is None or header.vrf_key != commitment.hiding.id:
        raise ProofRefused("door-key", f"door: the VRF key {header.vrf_key} is not the commitment's")


def _unhidden(
    key: bytes, query: DoorQuery, proofs: list[bytes], progress: Callable[[int, int], None] | None
) -> list[bytes]:
    """The hidden digest of every asked one, shown by its VRF proof."""
    found = []
    for number, (digest, proof) in enumerate(zip(query.digests, proofs, strict=True)):
        try:
            found.append(blinded(verify(key, bytes.fromhex(digest), proof)))
        except ProofRefused as error:
            raise ProofRefused("door-vrf", f"door: digest {number}: {error}") from None
        if progress is not None and (number + 1) % _PROGRESS_EVERY == 0:
            progress(number + 1, len(proofs))
    return found


def _flagged(flags: bytes, asked: int, members: int) -> list[int]:
    numbers = [number for number in range(8 * len(flags)) if flags[number // 8] >> number % 8 & 1]
    if len(numbers) != members or (numbers and numbers[-1] >= asked):
        raise ProofRefused("door-member", f"door: {len(numbers)} digests are called members, expected {members}")
    return numbers


def _members(data: bytes, at: int, numbers: list[int], count: int) -> tuple[list[DoorMember], int]:
    """The members' indices and paths, and where they end."""
    members = []
    for number in numbers:
        index = int.from_bytes(data[at : at + INDEX_BYTES], "little")
        if index >= count:
            raise ProofRefused("door-member", f"door: index {index} is outside {count} training records")
        start = at + INDEX_BYTES
        at = start + DIGEST_BYTES * path_length(index, count)
        if at > len(data):
            raise ProofRefused("door-length", f"door: the answer ends inside the path of digest {number}")
        path = [data[place : place + DIGEST_BYTES] for place in range(start, at, DIGEST_BYTES)]
        members.append(DoorMember(number, index, path))
    return members, at
