"""Other people's readers judge our envelopes and statements; their vector judges our encoding."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from simulated_release import Simulation, key

from attest.bundle import SigstoreBundle
from attest.envelope import pae
from attest.trust.keys import PublicKey, SignatureRefused
from pot.canonical import parse

VECTOR = json.loads((Path(__file__).parents[1] / "vectors/dsse/protocol_vector.json").read_text())


def test_our_pre_authentication_encoding_is_the_protocols() -> None:
    envelope = VECTOR["envelope"]
    assert pae(envelope["payloadType"], base64.b64decode(envelope["payload"])) == VECTOR["pae"].encode()


def test_the_protocols_signature_verifies_with_our_keys() -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    numbers = EllipticCurvePublicNumbers(int(VECTOR["ecdsa_p256"]["X"]), int(VECTOR["ecdsa_p256"]["Y"]), SECP256R1())
    raw = base64.b64decode(VECTOR["envelope"]["signatures"][0]["sig"])
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public = PublicKey(numbers.public_key())
    public.verify(signature, VECTOR["pae"].encode())
    with pytest.raises(SignatureRefused):
        public.verify(signature, VECTOR["pae"].encode() + b"!")
    with pytest.raises(SignatureRefused):
        public.verify(raw, VECTOR["pae"].encode())  # raw r and s are not DER


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    return list(Simulation().release().lines)


def test_securesystemslib_verifies_our_envelopes(lines: list[bytes]) -> None:
    sslib = pytest.importorskip("securesystemslib.dsse", reason="securesystemslib is not installed")
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey

    developer = key("developer").public
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    known = SSlibKey.from_crypto(load_pem_public_key(developer.pem()), keyid=developer.hint())
    accepted = 0
    for line in lines:
        envelope = parse(line, what="line")["dsseEnvelope"]
        for signature in envelope["signatures"]:
            signature["keyid"] = developer.hint()  # securesystemslib wants one; stored signatures have none
        try:
            accepted += len(sslib.Envelope.from_dict(envelope).verify([known], 1))
        except VerificationError:
            continue
    assert accepted == 2  # the parent's and the child's certificate; the audits are the auditor's


def test_in_toto_attestation_reads_our_statements(lines: list[bytes]) -> None:
    statement_v1 = pytest.importorskip(
        "in_toto_attestation.v1.statement_pb2", reason="in-toto-attestation is not installed"
    )
    from google.protobuf import json_format
    from in_toto_attestation.v1.statement import Statement as Theirs

    for line in lines:
        payload = SigstoreBundle.from_line(line, what="line").dsse_envelope.payload_bytes()
        message = json_format.Parse(payload.decode(), statement_v1.Statement())
        Theirs.copy_from_pb(message).validate()
        assert message.subject[0].digest["sha256"] == parse(payload, what="payload")["subject"][0]["digest"]["sha256"]
        # quantities are strings, so that no reader makes doubles of them: reading and writing gives the same value
        assert json.loads(json_format.MessageToJson(message)) == json.loads(payload)


def test_sigstores_model_reads_our_bundles(lines: list[bytes]) -> None:
    models = pytest.importorskip("sigstore_models.bundle.v1", reason="sigstore-models is not installed")
    for line in lines:
        theirs = models.Bundle.from_json(line)
        assert theirs.media_type == "application/vnd.dev.sigstore.bundle.v0.3+json"
        assert theirs.verification_material.public_key.hint
