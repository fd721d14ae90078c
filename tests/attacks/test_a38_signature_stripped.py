"""A38: the signature is stripped, the identity swapped, or the bundle names its own signer."""

from __future__ import annotations

from typing import Any

import pytest
from simulated_release import Simulation, failed, key

from pot.canonical import canonical_bytes, parse


def bent(change: Any) -> Simulation:
    def apply(lines: list[bytes]) -> list[bytes]:
        result = []
        for line in lines:
            value = parse(line, what="line")
            change(value)
            result.append(canonical_bytes(value))
        return result

    return Simulation().bend("lines", apply)


def no_signature(value: dict[str, Any]) -> None:
    value["dsseEnvelope"]["signatures"] = []


def empty_signature(value: dict[str, Any]) -> None:
    value["dsseEnvelope"]["signatures"] = [{"sig": ""}]


def own_key(value: dict[str, Any]) -> None:
    value["verificationMaterial"]["publicKey"]["rawBytes"] = key("mallory").public.pem().decode()


def other_bytes(value: dict[str, Any]) -> None:
    value["dsseEnvelope"]["payload"] = "e30="


def two_signatures(value: dict[str, Any]) -> None:
    value["dsseEnvelope"]["signatures"] *= 2


def key_id(value: dict[str, Any]) -> None:
    value["dsseEnvelope"]["signatures"][0]["keyid"] = "acme"


def other_type(value: dict[str, Any]) -> None:
    value["dsseEnvelope"]["payloadType"] = "application/json"


@pytest.mark.parametrize(
    "change", [no_signature, empty_signature, own_key, other_bytes, two_signatures, key_id, other_type]
)
def test_nobody_signed_so_nothing_is_shown(change: Any) -> None:
    report = bent(change).verify()
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert report.certificate is None
    assert {"claims-line", "signature", "statement"} & {note.code for note in report.notes}


def test_the_hint_chooses_no_key() -> None:
    """A hint at another key is ignored: the policy's keys are tried, and only they."""

    def hint(value: dict[str, Any]) -> None:
        value["verificationMaterial"]["publicKey"]["hint"] = key("mallory").public.hint()

    assert bent(hint).verify().verdict == "PASS"
