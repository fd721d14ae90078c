"""The example of `specs/transcript.md`, computed again, and what the page says against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pot.audit.challenges.challenge import Challenge, check_challenge
from pot.canonical import sha256_hex
from pot.commitments.seed import run_seed
from pot.recording.checking.chain import PROBLEMS
from pot.recording.precommit import Precommit, SeedNonce
from pot.recording.transcript import StartEvent, check_chain, read_transcript

PAGE = (Path(__file__).resolve().parent.parent.parent / "specs" / "transcript.md").read_text(encoding="utf-8")


def _block(name: str) -> bytes:
    found = re.search(rf"<!-- {re.escape(name)} -->\n```(?:json)?\n(.*?)\n```", PAGE, re.DOTALL)
    assert found is not None, name
    return found[1].encode()


def test_the_example_holds() -> None:
    precommit = Precommit.from_bytes(_block("precommit.json"), what="precommit.json")
    nonce = SeedNonce.from_bytes(_block("nonce.json"), what="nonce.json")
    data = _block("transcript.jsonl") + b"\n"
    transcript = read_transcript(data)
    start = transcript.events[0]
    assert isinstance(start, StartEvent)
    assert (nonce.nonce, nonce.precommit_sha256) == (start.nonce, precommit.sha256())
    chain = check_chain(transcript, precommit)
    assert (chain.problems, chain.forks, chain.dropped, len(chain.segments)) == ((), (), 1, 2)
    assert [line.split() for line in _block("ids").decode().splitlines()] == [
        ["precommit", sha256_hex(_block("precommit.json"))],
        ["seed", run_seed(precommit.sha256(), bytes.fromhex(nonce.nonce)).hex()],
        ["transcript", sha256_hex(data)],
        ["root", transcript.root()],
    ]
    challenge = Challenge.from_bytes(_block("challenge.json"), what="challenge.json")
    check_challenge(challenge, precommit.sha256(), transcript.sha256(), 2, 4)


def test_every_line_of_the_example_matters() -> None:
    """Leaving out any line, even with the rest as it was, breaks the chain."""
    precommit = Precommit.from_bytes(_block("precommit.json"), what="precommit.json")
    lines = _block("transcript.jsonl").split(b"\n")
    for left_out in range(len(lines)):
        rest = b"".join(line + b"\n" for number, line in enumerate(lines) if number != left_out)
        assert check_chain(read_transcript(rest), precommit).problems


@pytest.mark.parametrize("code", sorted(PROBLEMS))
def test_every_code_stands_in_the_numbered_verification(code: str) -> None:
    section = PAGE.partition("## Verification")[2].partition("\n## ")[0]
    assert f"`{code}`" in section
