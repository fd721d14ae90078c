"""A63: very many membership queries recover the data. The door answers signed queries of listed askers, each up to its
allowance, which is charged before the answer exists. Without list and ledger every guess is answered.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hidden_data import KEY, Listed, listed

from attest.door import Asker, open_query, sign_query
from attest.trust.keys import PrivateKey, generate
from pot.data.door import Ledger, answer, ask, charge
from pot.data.door_verify import DoorMember, DoorQuery, check_answer
from pot.errors import Refused

GUESSES = 1_000_000
SECRETS = ["guess 000017", "guess 000393", "guess 000731"]
DATA = listed([*SECRETS, *(f"something else {number}" for number in range(30))], key=KEY)
ALLOWANCE = 400


class Answerer:
    """The key's holder, as `pot data answer` goes about it."""

    def __init__(self, askers: list[Asker], ledger: Path | None) -> None:
        self.askers, self.ledger, self.answered = askers, ledger, 0

    def answer(self, envelope: bytes) -> bytes:
        query, asker = open_query(envelope, self.askers)
        if self.ledger is not None:
            charge(self.ledger, asker.name, asker.allowance, query)
        self.answered += len(query.digests)
        return answer(DATA, KEY, query).to_bytes()  # type: ignore[arg-type]


def guesses(first: int, number: int, key: PrivateKey) -> DoorQuery:
    words: Listed = listed([f"guess {n:06d}" for n in range(first, min(first + number, GUESSES))], "exclusion")
    return ask(DATA.commitment, words, key.public.hint())  # type: ignore[arg-type]


def attack(answerer: Answerer, key: PrivateKey, step: int, stop: int) -> list[DoorMember]:
    """Ask guess by guess until refused, or until `stop` guesses; a million would follow."""
    found: list[DoorMember] = []
    for first in range(0, stop, step):
        query = guesses(first, step, key)
        found += check_answer(DATA.commitment, query, answerer.answer(sign_query(query, key).to_bytes()))
    return found


def test_a_listed_asker_is_stopped_after_the_allowance(tmp_path: Path) -> None:
    owner = generate("ed25519")
    answerer = Answerer([Asker("owner", owner.public, ALLOWANCE)], tmp_path / "ledger.json")
    with pytest.raises(Refused, match="owner may ask for 0 more of 400 in all"):
        attack(answerer, owner, 100, GUESSES)
    assert answerer.answered == ALLOWANCE
    with pytest.raises(Refused, match="may ask for 0 more"):  # a new start of the program changes nothing
        attack(Answerer(answerer.askers, answerer.ledger), owner, 1, GUESSES)
    with pytest.raises(Refused, match="asks for 100000 digests"):  # nor does one large question
        answerer.answer(sign_query(guesses(0, 100_000, owner), owner).to_bytes())
    assert answerer.answered == ALLOWANCE
    spent = Ledger.from_bytes((tmp_path / "ledger.json").read_bytes(), what="ledger").spent
    assert spent["owner"].digests == str(ALLOWANCE)


def test_who_is_not_listed_gets_no_answer_at_all(tmp_path: Path) -> None:
    owner, stranger = generate("ed25519"), generate("ed25519")
    answerer = Answerer([Asker("owner", owner.public, ALLOWANCE)], tmp_path / "ledger.json")
    with pytest.raises(Refused, match="nobody on the list of askers signed it"):
        attack(answerer, stranger, 1, GUESSES)
    assert answerer.answered == 0
    assert not (tmp_path / "ledger.json").exists()


def test_without_the_ledger_every_guess_is_answered() -> None:
    """The attack itself: allowance or not, the guesses go on and find what is in."""
    owner = generate("ed25519")
    answerer = Answerer([Asker("owner", owner.public, ALLOWANCE)], None)
    found = attack(answerer, owner, 100, 800)
    assert {member.index for member in found} == {0, 1, 2}
    assert answerer.answered == 800 > ALLOWANCE


def test_the_charge_comes_before_the_answer(tmp_path: Path) -> None:
    """Whoever ends the program at the right moment does not get its allowance back."""
    owner = generate("ed25519")
    answerer = Answerer([Asker("owner", owner.public, 5)], tmp_path / "ledger.json")
    query = guesses(0, 5, owner)
    charge(tmp_path / "ledger.json", "owner", 5, query)  # and here it ended
    with pytest.raises(Refused, match="0 more of 5"):
        attack(answerer, owner, 5, GUESSES)
    answerer.answer(sign_query(query, owner).to_bytes())  # what was paid is still answered
