"""The door: what an honest answer shows, every way to answer falsely, and who is let in for how much."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hidden_data import KEY, Listed, listed
from typer.testing import CliRunner

from attest.cli.main import build
from attest.door import Asker, load_askers, open_query, read_query, sign_query
from attest.trust.keys import generate
from pot.canonical import canonical_bytes
from pot.commitments.hiding import HidingKey, blinded, new_key
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.commitments.setree_verify import key_of
from pot.commitments.vrf import output, prove, public_key
from pot.data.door import Ledger, answer, ask, charge
from pot.data.door_verify import DoorAnswer, DoorQuery, check_answer, read_answer
from pot.errors import LimitExceeded, Malformed, Refused, UsageError

OURS = [f"ours {number}" for number in range(37)]
THEIRS = [f"theirs {number}" for number in range(11)]
TRAINING = listed(OURS, key=KEY)
ASKER = generate("ed25519")
OUT = ask(TRAINING.commitment, listed(THEIRS, "exclusion"), ASKER.public.hint())  # type: ignore[arg-type]
SOME = ask(TRAINING.commitment, listed([*THEIRS, OURS[7], OURS[30]], "exclusion"), ASKER.public.hint())  # type: ignore[arg-type]
ALL = ask(TRAINING.commitment, listed(OURS[:3], "exclusion"), ASKER.public.hint())  # type: ignore[arg-type]


def answered(query: DoorQuery, training: Listed = TRAINING, key: HidingKey = KEY) -> DoorAnswer:
    return answer(training, key, query)  # type: ignore[arg-type]


def code(query: DoorQuery, data: bytes, training: Listed = TRAINING) -> str:
    with pytest.raises(ProofRefused) as caught:
        check_answer(training.commitment, query, data)
    return caught.value.code


def test_none_of_x_is_in() -> None:
    data = answered(OUT).to_bytes()
    assert check_answer(TRAINING.commitment, OUT, data) == []
    assert answered(OUT).to_bytes() == data


@pytest.mark.parametrize(("query", "inside"), [(SOME, {7, 30}), (ALL, {0, 1, 2})])
def test_those_that_are_in_are_shown_with_their_place(query: DoorQuery, inside: set[int]) -> None:
    made = answered(query)
    members = check_answer(TRAINING.commitment, query, made.to_bytes())
    assert members == made.members
    assert {member.index for member in members} == inside
    hidden = [blinded(output(KEY.secret, bytes.fromhex(query.digests[member.asked]))) for member in members]
    assert hidden == [TRAINING.digests[member.index].tobytes() for member in members]


def test_a_record_that_stands_twice_is_named_once() -> None:
    training = listed([*OURS, OURS[0]], key=KEY)
    query = ask(training.commitment, listed([OURS[0], OURS[0]], "exclusion"), "0" * 64)  # type: ignore[arg-type]
    assert len(query.digests) == 1
    assert [m.index for m in check_answer(training.commitment, query, answered(query, training).to_bytes())] == [0]


def test_an_answer_to_another_question_or_about_other_data_is_refused() -> None:
    data = answered(OUT).to_bytes()
    again = OUT.model_copy(update={"nonce": "1" * 64})
    assert code(again, data) == "door-query"
    assert code(SOME, data) == "door-query"
    other = listed(OURS[:-1], key=KEY)
    assert code(OUT, data, other) == "door-commitment"
    moved = OUT.model_copy(update={"commitment_sha256": other.commitment.sha256()})
    assert code(moved, data, other) == "door-query"


def test_another_vrf_key_than_the_commitments_is_refused() -> None:
    """The answerer makes a key under which X's hidden digests are absent: true of any key that is not the data's."""
    fresh = new_key("ecvrf/1")
    made = answered(SOME)
    public = public_key(fresh.secret)
    proofs = [prove(fresh.secret, bytes.fromhex(digest), public) for digest in SOME.digests]
    hidden = [blinded(output(fresh.secret, bytes.fromhex(digest), public)) for digest in SOME.digests]
    absence = SetTree.of_keys(TRAINING.keys).prove_absent([key_of(digest) for digest in hidden])
    header = made.header.model_copy(update={"vrf_key": public.hex(), "members": "0"})
    forged = DoorAnswer(header, proofs, [], absence).to_bytes()
    assert code(SOME, forged) == "door-key"
    # without that check, or with a commitment that does not fix the key, nothing is wrong with it
    bent = TRAINING.commitment.model_copy(update={"hiding": fresh.hiding})
    query = SOME.model_copy(update={"commitment_sha256": bent.sha256()})
    header = header.model_copy(update={"commitment_sha256": bent.sha256(), "query_sha256": query.sha256()})
    assert check_answer(bent, query, DoorAnswer(header, proofs, [], absence).to_bytes()) == []


def test_members_kept_quiet_are_refused() -> None:
    made = answered(SOME)
    hidden = [blinded(output(KEY.secret, bytes.fromhex(digest))) for digest in SOME.digests]
    with pytest.raises(Refused, match="2 of the 13 asked keys are in the set"):
        SetTree.of_keys(TRAINING.keys).prove_absent([key_of(digest) for digest in hidden])
    header = made.header.model_copy(update={"members": "0"})
    assert code(SOME, DoorAnswer(header, made.proofs, [], made.absence).to_bytes()) == "door-absence"
    fewer = made.header.model_copy(update={"members": "1"})
    assert code(SOME, DoorAnswer(fewer, made.proofs, made.members[1:], made.absence).to_bytes()) == "door-absence"


def test_members_made_up_are_refused() -> None:
    made, honest = answered(OUT), answered(SOME)
    wrong = replace(honest.members[0], asked=0)
    header = made.header.model_copy(update={"members": "1"})
    assert code(OUT, DoorAnswer(header, made.proofs, [wrong], made.absence).to_bytes()) == "door-member"
    far = replace(wrong, index=37)
    assert code(OUT, DoorAnswer(header, made.proofs, [far], made.absence).to_bytes()) == "door-member"


def test_vrf_proofs_of_other_digests_are_refused() -> None:
    """Swapped proofs would show the absence of something that nobody asked."""
    made = answered(SOME)
    swapped = [made.proofs[1], made.proofs[0], *made.proofs[2:]]
    assert code(SOME, replace(made, proofs=swapped).to_bytes()) == "door-vrf"
    bent = bytearray(made.to_bytes())
    bent[len(made.header.to_bytes()) + 40] ^= 1
    assert code(SOME, bytes(bent)) == "door-vrf"


@pytest.mark.parametrize("query", [OUT, SOME, ALL], ids=["out", "some", "all"])
def test_answers_that_are_cut_or_longer_are_refused(query: DoorQuery) -> None:
    data = answered(query).to_bytes()
    assert code(query, data + b"\x00") in ("door-length", "door-absence")
    for size in {*range(data.index(b"\n") + 1, len(data), 97), len(data) - 1}:
        assert code(query, data[:size]) in ("door-length", "door-absence", "door-member")


def test_flags_are_as_many_as_the_header_says() -> None:
    made = answered(OUT)
    flags = len(made.header.to_bytes()) + 1 + 80 * len(OUT.digests)
    for place, bit in ((0, 0), (1, 7)):  # one more member; a digest that was not asked
        bent = bytearray(made.to_bytes())
        bent[flags + place] |= 1 << bit
        assert code(OUT, bytes(bent)) == "door-member"


def test_no_header_and_a_longer_one_are_refused() -> None:
    for data in (b"", b"{}", b"{}\n", b"x" * 2000 + b"\n"):
        with pytest.raises(Malformed):
            read_answer(TRAINING.commitment, OUT, data)


def test_queries_have_one_order_and_a_cap() -> None:
    value: dict[str, Any] = json.loads(OUT.to_bytes())
    for digests in ([], value["digests"][::-1], value["digests"][:1] * 2, ["ab"], ["0" * 64] * 100_001):
        with pytest.raises(Malformed):
            DoorQuery.from_bytes(canonical_bytes({**value, "digests": digests}), what="query")


def test_only_hidden_training_data_has_a_door() -> None:
    x = listed(THEIRS, "exclusion")
    keyed = new_key("blake3-keyed/1")
    for other in (listed(OURS), listed(OURS, key=keyed), listed(OURS, "exclusion", KEY)):
        with pytest.raises(UsageError, match="door"):
            ask(other.commitment, x, "0" * 64)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="commit X with --view text/1"):
        ask(TRAINING.commitment, listed(THEIRS, "exclusion", view="json/1"), "0" * 64)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="without --key-file"):
        ask(TRAINING.commitment, listed(THEIRS, "exclusion", KEY), "0" * 64)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not the one that the commitment names"):
        answered(OUT, key=new_key("ecvrf/1"))


def test_views_may_not_differ() -> None:
    with pytest.raises(ProofRefused) as caught:
        answered(OUT.model_copy(update={"view": "json/1"}))
    assert caught.value.code == "door-commitment"


def test_a_query_is_charged_once_and_never_over_the_allowance(tmp_path: Path) -> None:
    ledger = tmp_path / "l" / "ledger.json"
    assert charge(ledger, "owner of X", 25, OUT) == 14
    assert charge(ledger, "owner of X", 25, OUT) == 14
    with pytest.raises(Refused, match="asks for 13 digests, owner of X may ask for 9 more of 20"):
        charge(ledger, "owner of X", 20, SOME)
    assert charge(ledger, "owner of X", 25, SOME) == 1
    again = OUT.model_copy(update={"nonce": "2" * 64})
    with pytest.raises(Refused, match="may ask for 1 more of 25"):
        charge(ledger, "owner of X", 25, again)
    assert charge(ledger, "another", 25, again) == 14
    held = Ledger.from_bytes(ledger.read_bytes(), what="ledger")
    assert {name: spent.digests for name, spent in held.spent.items()} == {"owner of X": "24", "another": "11"}


def _charge(arguments: tuple[Path, int]) -> bool:
    ledger, number = arguments
    try:
        charge(ledger, "owner", 5 * len(OUT.digests), OUT.model_copy(update={"nonce": f"{number:064x}"}))
    except Refused:
        return False
    return True


def test_answers_at_the_same_time_spend_each_digest_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:  # the lock is between open files, so threads are as good as processes
        outcomes = list(pool.map(_charge, [(tmp_path / "ledger.json", number) for number in range(24)]))
    assert sum(outcomes) == 5
    assert Ledger.from_bytes((tmp_path / "ledger.json").read_bytes(), what="ledger").spent["owner"].digests == "55"


def test_a_ledger_that_does_not_read_is_no_new_one(tmp_path: Path) -> None:
    for data in (b"", b"{}", b'{"spent":{},"version":"pot/door-ledger/v2"}'):
        (tmp_path / "ledger.json").write_bytes(data)
        with pytest.raises(Malformed):
            charge(tmp_path / "ledger.json", "owner", 100, OUT)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="symbolic link"):
        charge(tmp_path / "link", "owner", 100, OUT)


def askers_file(path: Path, *keys: Any, digests: int = 20) -> Path:
    lines = ["version: pot/door-askers/v1", "askers:"]
    for number, key in enumerate(keys):
        pem = key.public.pem().decode().replace("\n", "\n      ").rstrip()
        lines += [f"  - name: asker {number}", f"    digests: {digests}", f"    public_key: |\n      {pem}"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_only_who_is_on_the_list_is_heard(tmp_path: Path) -> None:
    stranger = generate("ed25519")
    askers = load_askers(askers_file(tmp_path / "askers.yaml", stranger, ASKER))
    assert [(asker.name, asker.allowance) for asker in askers] == [("asker 0", 20), ("asker 1", 20)]
    envelope = sign_query(OUT, ASKER).to_bytes()
    query, asker = open_query(envelope, askers)
    assert (query, asker.name) == (OUT, "asker 1")
    assert read_query(envelope) == OUT
    with pytest.raises(Refused, match="nobody on the list"):
        open_query(envelope, askers[:1])
    with pytest.raises(Refused, match="nobody on the list"):
        open_query(envelope, [])
    with pytest.raises(Refused, match="was made for another key"):  # signed again by another asker of the list
        open_query(sign_query(OUT, stranger).to_bytes(), askers)


def test_bent_envelopes_are_refused() -> None:
    askers = [Asker("owner", ASKER.public, 20)]
    value = json.loads(sign_query(OUT, ASKER).to_bytes())
    other = json.loads(sign_query(SOME, ASKER).to_bytes())
    with pytest.raises(Refused, match="nobody"):
        open_query(canonical_bytes({**value, "payload": other["payload"]}), askers)
    for change in (
        {"payloadType": "application/vnd.in-toto+json"},
        {"signatures": []},
        {"signatures": value["signatures"] * 2},
        {"payload": "QQ="},
        {"more": 1},
    ):
        with pytest.raises(Malformed):
            open_query(canonical_bytes({**value, **change}), askers)
    with pytest.raises(LimitExceeded):
        open_query(b" " * (12 << 20), askers)


def test_lists_with_one_name_or_key_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="same key"):
        load_askers(askers_file(tmp_path / "askers.yaml", ASKER, ASKER))
    path = askers_file(tmp_path / "askers.yaml", ASKER, generate("ed25519"))
    path.write_text(path.read_text().replace("asker 1", "asker 0"))
    with pytest.raises(Malformed, match="same name"):
        load_askers(path)
    path.write_text(path.read_text().replace("digests: 20", "digests: -1"))
    with pytest.raises(Malformed, match="digests"):
        load_askers(path)


def put(folder: Path, name: str, data: Listed) -> str:
    (folder / f"{name}.json").write_bytes(data.commitment.to_bytes())
    (folder / f"{name}.digests").write_bytes(data.listing)
    return str(folder / f"{name}.json")


@pytest.mark.parametrize(("x", "status"), [(THEIRS, 0), ([*THEIRS, OURS[4]], 1)], ids=["none in", "one in"])
def test_the_three_commands(tmp_path: Path, x: list[str], status: int) -> None:
    d, q, a = put(tmp_path, "d", TRAINING), str(tmp_path / "q"), str(tmp_path / "a")
    (tmp_path / "d.digests").unlink()  # the asker never has it
    KEY.save(tmp_path / "vrf.key")
    ASKER.save(tmp_path / "asker.pem")
    askers, ledger = askers_file(tmp_path / "askers.yaml", ASKER), str(tmp_path / "ledger.json")
    run = CliRunner().invoke
    app = build()
    xs, pem = put(tmp_path, "x", listed(x, "exclusion")), str(tmp_path / "asker.pem")
    asked = run(app, ["data", "ask", d, xs, "--key", pem, "--out", q, "--json"])
    assert asked.exit_code == 0, asked.output
    assert json.loads(asked.stdout)["digests"] == str(len(x))
    options = [
        "--key-file",
        str(tmp_path / "vrf.key"),
        "--askers",
        str(askers),
        "--ledger",
        ledger,
        "--out",
        a,
        "--json",
    ]
    put(tmp_path, "d", TRAINING)
    for _ in range(2):  # the same query again costs nothing
        made = run(app, ["data", "answer", d, q, *options])
        assert made.exit_code == 0, made.output
        assert json.loads(made.stdout)["left"] == str(20 - len(x))
        assert json.loads(made.stdout)["members"] == str(status)
    (tmp_path / "d.digests").unlink()
    checked = run(app, ["data", "check-answer", d, q, a, "--json"])
    assert checked.exit_code == status, checked.output
    assert len(json.loads(checked.stdout)["members"]) == status
