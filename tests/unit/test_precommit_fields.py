"""Fields of the pre-commitment for roots only, micro-batches, streams, processes and beacons, and each lie in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from written_run import precommit_document

from pot.canonical import canonical_bytes, sha256_hex
from pot.commitments.state import json_digest
from pot.errors import Malformed
from pot.recording.cursor import cursor_digest, cursor_value
from pot.recording.precommit import Precommit, SeedNonce, files_due
from pot.recording.transcript import read_transcript

STREAM = {"method": "stream/1", "batch": "4", "drop_last": True}
FEISTEL = {"method": "feistel/1", "batch": "4", "drop_last": True}
BEACON = {"chain": "55" * 32, "round": "7"}
SIGNATURE = "ab" * 48


def read(**fields: Any) -> Precommit:
    document = {name: value for name, value in precommit_document(**fields).items() if value is not None}
    return Precommit.from_bytes(canonical_bytes(document), what="precommit")


@pytest.mark.parametrize(
    "fields",
    [
        {"state_every": None},
        {"state_every": "2"},
        {"state_every": "1000"},
        {"order": STREAM},
        {"order": {**FEISTEL, "micro": "1"}},
        {"order": {**FEISTEL, "micro": "4"}},
        {"order": {**FEISTEL, "micro": "2"}, "layout": {"processes": "2", "sharding": "rows"}},
        {"order": STREAM, "layout": {"processes": "4", "sharding": "replicated"}},
        {"program": {"command": [], "files": [], "data_files": [], "launcher": "attach"}},
        {"seed_source": "beacon", "beacon": BEACON},
    ],
)
def test_what_a_run_can_promise_reads_back(fields: dict[str, Any]) -> None:
    precommit = read(**fields)
    again = json.loads(precommit.to_bytes())
    assert all(again.get(name) == value for name, value in fields.items())


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"state_every": "3"}, "multiple of checkpoint_every"),
        ({"state_every": "1"}, "multiple of checkpoint_every"),
        ({"state_every": "0"}, "multiple of checkpoint_every"),
        ({"order": {**FEISTEL, "micro": "3"}}, "multiple of order.micro"),
        ({"order": {**FEISTEL, "micro": "8"}}, "multiple of order.micro"),
        ({"order": {**FEISTEL, "micro": "0"}}, "multiple of order.micro"),
        ({"order": {**STREAM, "micro": "2"}}, "order.micro belongs to"),
        ({"order": {**STREAM, "drop_last": False}}, "drop_last"),
        ({"order": {**STREAM, "batch": "23"}}, "must not exceed"),
        ({"layout": {"processes": "1", "sharding": "rows"}}, "between 2 and 65536"),
        ({"layout": {"processes": "0", "sharding": "rows"}}, "between 2 and 65536"),
        ({"layout": {"processes": "1" + "0" * 18, "sharding": "rows"}}, "between 2 and 65536"),
        ({"layout": {"processes": "3", "sharding": "rows"}}, "times layout.processes"),
        ({"layout": {"processes": "2", "sharding": "columns"}}, "layout.sharding"),
        ({"order": {**FEISTEL, "micro": "4"}, "layout": {"processes": "2", "sharding": "rows"}}, "times layout"),
        ({"program": {"command": [], "files": [], "data_files": [], "launcher": "ssh"}}, "launcher"),
        ({"seed_source": "beacon"}, "exactly if seed_source is beacon"),
        ({"beacon": BEACON}, "exactly if seed_source is beacon"),
        ({"seed_source": "verifier", "beacon": BEACON}, "exactly if seed_source is beacon"),
        ({"seed_source": "beacon", "beacon": {**BEACON, "round": "0"}}, "round must be at least 1"),
        ({"seed_source": "beacon", "beacon": {**BEACON, "signature": SIGNATURE}}, "signature"),
        ({"seed_source": "moon"}, "seed_source"),
    ],
)
def test_what_no_run_can_promise(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(Malformed, match=match):
        read(**fields)


def test_a_field_that_is_absent_is_not_null() -> None:
    for name in ("state_every", "layout", "beacon"):
        with pytest.raises(Malformed, match="not written as null"):
            Precommit.from_bytes(canonical_bytes({**precommit_document(), name: None}), what="precommit")


def test_files_are_due_first_last_and_every_so_often() -> None:
    assert [step for step in range(12) if files_due(read(steps=11), step)] == [0, 4, 8, 11]
    assert [step for step in range(7) if files_due(read(steps=6, state_every=None), step)] == [0, 2, 4, 6]
    assert [step for step in range(7) if files_due(read(steps=6, state_every="1000"), step)] == [0, 6]


def nonce(**fields: Any) -> dict[str, Any]:
    beacon = {**BEACON, "signature": SIGNATURE}
    randomness = sha256_hex(bytes.fromhex(SIGNATURE))
    base = {"version": "pot/seed-nonce/v1", "precommit_sha256": "00" * 32, "nonce": randomness, "beacon": beacon}
    return {**base, **fields}


def test_a_round_gives_its_randomness_as_nonce() -> None:
    found = SeedNonce.from_bytes(canonical_bytes(nonce()), what="nonce")
    assert found.beacon is not None
    assert found.nonce == found.beacon.randomness


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"nonce": "00" * 32}, "not the SHA-256 of the beacon's signature"),
        ({"beacon": {**BEACON, "signature": "ac" + SIGNATURE[2:]}}, "not the SHA-256"),
        ({"beacon": {**BEACON, "signature": SIGNATURE.upper()}}, "signature"),
        ({"beacon": {**BEACON, "signature": SIGNATURE[2:]}}, "signature"),
        ({"beacon": {**BEACON, "signature": SIGNATURE * 2}}, "signature"),
        ({"beacon": BEACON}, "signature"),
        ({"beacon": {**BEACON, "signature": SIGNATURE, "randomness": "00" * 32}}, "randomness"),
    ],
)
def test_a_nonce_that_the_round_does_not_give(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(Malformed, match=match):
        SeedNonce.from_bytes(canonical_bytes(nonce(**fields)), what="nonce")


@pytest.mark.parametrize(
    "reason", ["", "x" * 201, "two\nlines", "\u001b[2Jcleared", "right\u202eleft", "nul\0"], ids=range(6)
)
def test_reasons_that_a_terminal_would_obey_are_refused(reason: str) -> None:
    event = {
        "index": "0",
        "previous": "00" * 32,
        "type": "gap",
        "step": "4",
        "missing": "state",
        "reason": "disk is full",
    }
    assert read_transcript(canonical_bytes(event) + b"\n").events[0].type == "gap"
    assert read_transcript(canonical_bytes({**event, "reason": "é" * 200}) + b"\n").events[0].type == "gap"
    for change in ({"reason": reason}, {"missing": "step"}, {"files": []}):
        with pytest.raises(Malformed, match="line 0"):
            read_transcript(canonical_bytes({**event, **change}) + b"\n")


@pytest.mark.parametrize(("step", "epoch", "position"), [(0, 0, 0), (7, 1, 12), (10**18, 10**9, 10**12)])
def test_the_cursor_s_digest_is_that_of_its_value(step: int, epoch: int, position: int) -> None:
    expected = json_digest("cursor", cursor_value(step, epoch, position))
    assert cursor_digest(step, str(epoch), str(position)) == expected
