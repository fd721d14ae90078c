"""DSSE envelopes and Sigstore bundles: form, one spelling, caps."""

from __future__ import annotations

import base64

import pytest

from attest.bundle import BUNDLE_MEDIA_TYPE, SigstoreBundle, join_lines, split_lines
from attest.envelope import Envelope, pae, sign_envelope
from attest.statement import MAX_STATEMENT_BYTES
from attest.trust.keys import generate
from pot.canonical import canonical_bytes, parse
from pot.errors import LimitExceeded, Malformed

KEY = generate()


def test_lengths_keep_type_and_payload_apart() -> None:
    assert pae("a", b"b") == b"DSSEv1 1 a 1 b"
    assert pae("ä", b"") == b"DSSEv1 2 \xc3\xa4 0 "
    assert pae("a 1 b", b"") != pae("a", b"b")


def test_the_signature_is_over_the_bytes() -> None:
    envelope = sign_envelope(b'{"a":1}', KEY)
    assert envelope.payload_bytes() == b'{"a":1}'
    assert envelope.signed_bytes() == pae("application/vnd.in-toto+json", b'{"a":1}')
    KEY.public.verify(envelope.signature_bytes(), envelope.signed_bytes())


def test_a_bundle_is_version_3_with_a_hint_and_no_key_id() -> None:
    line = SigstoreBundle.make(sign_envelope(b"{}", KEY), KEY.public.hint()).to_bytes()
    value = parse(line, what="line")
    assert value["mediaType"] == BUNDLE_MEDIA_TYPE == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert value["verificationMaterial"] == {"publicKey": {"hint": KEY.public.hint()}, "tlogEntries": []}
    assert b"keyid" not in line
    assert SigstoreBundle.from_line(line, what="line").to_bytes() == line


def test_an_oversized_payload_is_refused_before_it_is_decoded() -> None:
    envelope = Envelope(
        payload=base64.b64encode(b"x" * (MAX_STATEMENT_BYTES + 100)).decode(),
        payload_type="application/vnd.in-toto+json",
        signatures=sign_envelope(b"{}", KEY).signatures,
    )
    with pytest.raises(LimitExceeded):
        envelope.payload_bytes()


@pytest.mark.parametrize("line", [b"", b"null", b"[]", b"{}", b'{"mediaType":"x"}', b"\xff", b"{" * 100])
def test_a_line_that_is_no_bundle_is_malformed(line: bytes) -> None:
    with pytest.raises(Malformed):
        SigstoreBundle.from_line(line, what="line 1")


def test_duplicate_keys_in_a_bundle_are_refused() -> None:
    line = SigstoreBundle.make(sign_envelope(b"{}", KEY), "hint").to_bytes()
    with pytest.raises(Malformed, match="duplicate"):
        SigstoreBundle.from_line(line[:-1] + b',"mediaType":"x"}', what="line 1")


def test_another_spelling_of_the_bundle_holds_the_same_payload() -> None:
    """Bundles are malleable; what counts is the payload."""
    line = SigstoreBundle.make(sign_envelope(b"{}", KEY), "hint").to_bytes()
    spaced = line.replace(b'":', b'" : ')
    assert SigstoreBundle.from_line(spaced, what="line").to_bytes() == line
    assert canonical_bytes(parse(spaced, what="line")) == line


def test_lines_are_written_once_and_read_without_empty_ones() -> None:
    assert join_lines([b"a", b"b", b"a"]) == b"a\nb\n"
    assert split_lines(b"\na\n\nb") == [b"a", b"b"]
