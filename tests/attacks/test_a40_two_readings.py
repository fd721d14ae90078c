"""A40: bytes that two readers read differently: duplicate keys, NaN, 1e0 for 1, big integers, lone surrogates."""

from __future__ import annotations

import base64

import pytest
from simulated_release import Simulation, failed, key

from attest.bundle import SigstoreBundle
from attest.envelope import sign_envelope
from attest.statement import Statement
from pot.errors import Malformed

REPLACEMENTS = [
    (b'"predicateType":', b'"predicateType":"https://x.example/","predicateType":'),
    (b'{"_type"', b'{"x":NaN,"_type"'),
    (b'"complete":true', b'"complete":1e0'),
    (b'"complete":true', b'"complete":9007199254740993'),
    (b'"name":"child"', b'"name":"\\ud800"'),
    (b'"_type"', b' "_type"'),
    (b'"name":"child"', b'"name":"\\u0063hild"'),
    (b'{"_type"', b'\xef\xbb\xbf{"_type"'),
]


@pytest.mark.parametrize(("old", "new"), REPLACEMENTS)
def test_the_signed_bytes_are_refused(old: bytes, new: bytes) -> None:
    def resign(lines: list[bytes]) -> list[bytes]:
        payload = SigstoreBundle.from_line(lines[-1], what="line").dsse_envelope.payload_bytes()
        assert old in payload
        envelope = sign_envelope(payload.replace(old, new, 1), key("developer"))
        return [*lines[2:-1], SigstoreBundle.make(envelope, "hint").to_bytes()]

    report = Simulation().bend("lines", resign).verify()
    assert report.verdict == "DENY"
    assert failed(report) == {"statement"}


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"{" * 5000, b'"' * 3, b"\xff", b"{}", b'{"_type":{"a":1}}'])
def test_no_other_error_leaves(payload: bytes) -> None:
    with pytest.raises(Malformed):
        Statement.from_payload(payload, what="payload")


@pytest.mark.parametrize("payload", ["e30", "e31=", "e3 0=", "====", "e30=\n"])
def test_base64_has_one_spelling(payload: str) -> None:
    assert base64.b64decode("e30=") == b"{}"
    line = SigstoreBundle.make(sign_envelope(b"{}", key("developer")), "hint").to_bytes()
    with pytest.raises(Malformed):
        SigstoreBundle.from_line(
            line.replace(b'"e30="', b'"' + payload.encode().replace(b"\n", b"\\n") + b'"'), what="line"
        ).dsse_envelope.payload_bytes()
