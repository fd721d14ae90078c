"""`pot data ask`, `answer` and `check-answer`: what of X is in hidden training data, without its key and unseen.

Format: `specs/hiding.md`, "Door". Registered by `attest.cli.data`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from attest.cli.outputs import check_outputs, commitment_files
from attest.cli.terminal import progress_bar, say, show

if TYPE_CHECKING:
    from pot.commitments.dataset import DatasetCommitment

__all__ = ["COMMANDS"]

_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
_Training = Annotated[Path, typer.Argument(metavar="C.json", help="Commitment hidden under an ecvrf key.")]
_Query = Annotated[Path, typer.Argument(metavar="QUERY", help="What pot data ask wrote.")]


def ask(
    training: _Training,
    exclusion: Annotated[Path, typer.Argument(metavar="X.json", help="Commitment to X, not hidden, and its listing.")],
    key: Annotated[Path, typer.Option("--key", help="Your signing key (pot keygen).")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the signed query.")],
    as_json: _AsJson = False,
) -> None:
    """Ask the owner of hidden training data whether X's records are in it.

    The query holds X's record digests and your signature. Its receiver learns them, and nothing else of X. They
    answer with pot data answer if your public key is on their list.

    Example: pot data ask train.json x.json --key asker.pem --out x.query
    """
    from attest.door import sign_query
    from attest.trust.keys import PrivateKey
    from pot.canonical import write_file
    from pot.data.commit import load_committed
    from pot.data.door import ask as ask_about

    check_outputs([out], reads=[*commitment_files(training), *commitment_files(exclusion), key])
    signer = PrivateKey.load(key)
    query = ask_about(_commitment(training), load_committed(exclusion), signer.public.hint())
    write_file(out, sign_query(query, signer).to_bytes())
    number = len(query.digests)
    value = {"query": str(out), "sha256": query.sha256(), "digests": str(number), "asker_sha256": query.asker_sha256}
    show(as_json, value, [f"{out}: asks for {number} digests, signed by key {query.asker_sha256[:16]}"])


def answer(
    training: _Training,
    query: _Query,
    key_file: Annotated[Path, typer.Option("--key-file", help="The ecvrf key that the commitment was made with.")],
    askers: Annotated[Path, typer.Option("--askers", help="Who may ask, and how much: YAML or JSON.")],
    ledger: Annotated[Path, typer.Option("--ledger", help="What askers have spent; made if there is none.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the answer.")],
    as_json: _AsJson = False,
) -> None:
    """Answer a query about hidden training data, if its asker is on the list and has allowance left.

    Each asked digest costs one. It is charged before the answer is written; the same query again costs nothing. Exit 1:
    refused, and nothing is written.

    Example: pot data answer d.json x.query --key-file vrf.key --askers askers.yaml --ledger ledger.json --out x.answer
    """
    from attest.door import MAX_ENVELOPE_BYTES, load_askers, open_query
    from pot.canonical import read_file, write_file
    from pot.commitments.hiding import check_key, load_key
    from pot.data.commit import load_committed
    from pot.data.door import answer as answer_for
    from pot.data.door import charge
    from pot.data.door_verify import check_askable

    reads = [*commitment_files(training), query, key_file, askers]
    check_outputs([out, ledger], reads=reads)
    check_outputs([out], reads=[ledger])
    question, asker = open_query(read_file(query, limit=MAX_ENVELOPE_BYTES), load_askers(askers), what=str(query))
    check_askable(_commitment(training), question)  # what cannot be answered is not charged
    key = load_key(key_file)
    if not ledger.exists():
        say(f"{ledger}: is new; nobody has spent anything yet")
    with progress_bar("reading commitment"):
        committed = load_committed(training)
    check_key(committed.commitment.hiding, key, str(training))  # what cannot be answered is not charged
    left = charge(ledger, asker.name, asker.allowance, question)
    with progress_bar("answering") as progress:
        made = answer_for(committed, key, question, progress)
    data = made.to_bytes()
    write_file(out, data)
    number, members = len(question.digests), len(made.members)
    value = {
        "answer": str(out),
        "bytes": str(len(data)),
        "asker": asker.name,
        "asked": str(number),
        "members": str(members),
        "left": str(left),
    }
    told = f"{members} of {number} digests are in; {asker.name} may ask for {left} more"
    show(as_json, value, [f"{out}: {told} ({len(data)} bytes)"])


def check_answer(
    training: _Training,
    query: _Query,
    answer: Annotated[Path, typer.Argument(metavar="ANSWER", help="What pot data answer wrote.")],
    as_json: _AsJson = False,
) -> None:
    """Check an answer: which of the asked digests are in the hidden training data.

    Needs no key and no training data. Exit 0: none of X is in. Exit 1: some are, their number is printed; or the answer
    does not show what it says.

    Example: pot data check-answer train.json x.query x.answer
    """
    from attest.door import MAX_ENVELOPE_BYTES, read_query
    from pot.canonical import read_file
    from pot.commitments.merkle_verify import ProofRefused
    from pot.data.door_verify import MAX_ANSWER_BYTES
    from pot.data.door_verify import check_answer as check

    commitment = _commitment(training)
    question = read_query(read_file(query, limit=MAX_ENVELOPE_BYTES), what=str(query))
    data = read_file(answer, limit=MAX_ANSWER_BYTES)
    try:
        with progress_bar("checking") as progress:
            members = check(commitment, question, data, progress)
    except ProofRefused as error:
        show(as_json, {"holds": False, "code": error.code, "detail": str(error)}, [f"{answer}: shows nothing: {error}"])
        raise typer.Exit(1) from None
    number = len(question.digests)
    value = {
        "asked": str(number),
        "members": [
            {"record_blake3": question.digests[member.asked], "index": str(member.index)} for member in members
        ],
    }
    records = commitment.records.count
    if not members:
        show(as_json, value, [f"none of the {number} asked records is among the {records} training records"])
        return
    lines = [str(len(members)), *(f"{question.digests[member.asked]} at index {member.index}" for member in members)]
    show(as_json, value, lines)
    say(f"pot: {len(members)} of the {number} asked records are among the {records} training records")
    raise typer.Exit(1)


def _commitment(path: Path) -> DatasetCommitment:
    from pot.canonical import MAX_DOCUMENT_BYTES, read_file
    from pot.commitments.dataset import DatasetCommitment

    return DatasetCommitment.from_bytes(read_file(path, limit=MAX_DOCUMENT_BYTES), what=str(path))


COMMANDS: Final = (ask, answer, check_answer)
