"""On a real release: evidence taken away never helps, junk put in never harms. About 40 seconds.

Every line of claims.jsonl and every object is removed once, from the honest release and from two of its forgeries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from attest.bundle import ReleaseBundle, SigstoreBundle, read_release
from attest.envelope import sign_envelope
from attest.trust.keys import PrivateKey, generate
from attest.verdict.policy import Policy, load_policy
from attest.verdict.report import Report
from attest.verdict.steps import default_step_verifier
from attest.verdict.verify import verify
from pot.canonical import MAX_LINE_BYTES, canonical_bytes, parse, sha256_hex
from pot.errors import PotError

FORGED = ("step-proof", "segment")


class StepProofs:
    """The real check of step proofs, made once for each set of bytes: a removed line leaves them as they were."""

    def __init__(self) -> None:
        self.asked = 0
        self._known: dict[str, PotError | None] = {}

    def __call__(self, proofs: Sequence[Any], kit: Any, circuit_sha256: str, expected: Sequence[Any]) -> None:
        self.asked += 1
        parts = [proof.to_bytes() for proof in proofs]
        parts += [kit.circuit.to_bytes(), kit.program.to_bytes(), kit.srs]
        parts += [data for part in kit.parts for data in (part.settings, part.verifying_key)]
        parts += [circuit_sha256.encode(), repr(expected).encode()]
        key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
        if key not in self._known:
            try:
                default_step_verifier(proofs, kit, circuit_sha256, expected)
                self._known[key] = None
            except PotError as error:
                self._known[key] = error
        error = self._known[key]
        if error is not None:
            raise error


STEP_PROOFS = StepProofs()


class Held(dict[str, bytes]):
    """The objects of a folder in memory, so that one can be taken out without touching a disk."""


def in_memory(folder: Path) -> ReleaseBundle:
    release = read_release(folder)
    return replace(release, objects=Held(release.objects))


def without_line(release: ReleaseBundle, number: int) -> ReleaseBundle:
    return replace(release, lines=release.lines[:number] + release.lines[number + 1 :])


def without_object(release: ReleaseBundle, sha256: str) -> ReleaseBundle:
    return replace(release, objects=Held({key: data for key, data in release.objects.items() if key != sha256}))


def with_lines(release: ReleaseBundle, *lines: bytes, first: bool = False) -> ReleaseBundle:
    return replace(release, lines=(*lines, *release.lines) if first else (*release.lines, *lines))


@pytest.fixture(scope="module")
def policy(demo_folder: Path) -> Policy:
    return load_policy(demo_folder / "policy.yaml")


@pytest.fixture(scope="module")
def honest(demo_folder: Path) -> ReleaseBundle:
    return in_memory(demo_folder / "release")


@pytest.fixture(scope="module")
def without(honest: ReleaseBundle, policy: Policy) -> dict[str, str]:
    """The verdict on the honest release without one line or one object."""
    bent = {f"line {number}": without_line(honest, number) for number in range(len(honest.lines))}
    bent |= {sha256: without_object(honest, sha256) for sha256 in honest.objects}
    return {name: judge(release, policy).verdict for name, release in bent.items()}


def judge(release: ReleaseBundle, policy: Policy) -> Report:
    return verify(release, policy, step_verifier=STEP_PROOFS)


def decided(report: Report) -> dict[str, Any]:
    """The report but for what says how much was read, and notes, which count for nothing."""
    value = report.model_dump(mode="json", exclude={"time", "notes", "steps"})
    value["findings"] = [finding for finding in value["findings"] if finding["code"] != "release-bundle"]
    value["statuses"] = [(step.number, step.status) for step in report.steps]
    return value


def unreferenced(report: Report) -> set[str]:
    """What the report says that nothing refers to."""
    return {note.subject.split(" ")[-1] for note in report.notes if note.code == "unreferenced"}


def test_the_honest_release_passes(honest: ReleaseBundle, policy: Policy) -> None:
    report = judge(honest, policy)
    assert report.verdict == "PASS"
    assert unreferenced(report) == set()
    assert STEP_PROOFS.asked == 1


def test_without_any_one_of_its_lines_or_objects_it_does_not_pass(
    honest: ReleaseBundle, without: dict[str, str]
) -> None:
    """Nothing in the bundle is superfluous, so whatever is taken away, the verdict is INCOMPLETE or DENY."""
    assert len(honest.lines) == 5  # two certificates, three audits
    assert len(honest.objects) > 15
    assert {name for name, verdict in without.items() if verdict == "PASS"} == set()
    # taking away makes nothing false, but for the model's own certificate: then these files are not the parent's
    denied = {name for name, verdict in without.items() if verdict == "DENY"}
    assert denied == {name for name in denied if name.startswith("line ")}
    assert len(denied) <= 1


def test_an_object_with_other_bytes_is_as_good_as_none(
    honest: ReleaseBundle, policy: Policy, without: dict[str, str]
) -> None:
    for sha256, data in honest.objects.items():
        bent = replace(honest, objects=Held({**honest.objects, sha256: data[:-1] + bytes([data[-1] ^ 1])}))
        assert (judge(bent, policy).verdict, sha256) == (without[sha256], sha256)


@pytest.mark.parametrize("name", FORGED)
def test_no_removal_lets_a_forgery_pass(demo_folder: Path, policy: Policy, name: str) -> None:
    forged = in_memory(demo_folder / "forged" / name)
    assert judge(forged, policy).verdict != "PASS"
    for count in (1, 2):
        for gone in combinations(range(len(forged.lines)), count):
            left = tuple(line for number, line in enumerate(forged.lines) if number not in gone)
            assert judge(replace(forged, lines=left), policy).verdict != "PASS", gone
    for sha256 in forged.objects:
        assert judge(without_object(forged, sha256), policy).verdict != "PASS", sha256


def stranger(line: bytes, **changed: Any) -> bytes:
    """The payload of a line, perhaps changed, signed by a key that no policy names."""
    payload = SigstoreBundle.from_line(line, what="line").dsse_envelope.payload_bytes()
    return signed(canonical_bytes({**parse(payload, what="payload"), **changed}), generate())


def signed(payload: bytes, key: PrivateKey) -> bytes:
    bundle = SigstoreBundle.make(sign_envelope(payload, key), key.public.hint())
    return canonical_bytes(bundle.model_dump(mode="json", by_alias=True, exclude_none=True))


def junk(release: ReleaseBundle) -> dict[str, list[bytes]]:
    value = parse(release.lines[0], what="line")
    other = {"name": "another", "digest": {"sha256": "0" * 64}}
    return {
        "bytes": [b"\xff\x00\x1b[2J", b"\x80" * 5000],
        "json": [b"{}", b"[]", b"null", b'{"mediaType":"x"}', b'{"a":1,"a":2}', b"NaN", b"[" * 5000],
        "quotes": [b'\\"' * (MAX_LINE_BYTES // 2)],
        "a huge line": [b'{"' + b"x" * (2 * MAX_LINE_BYTES) + b'":1}'],
        "the same lines again": list(release.lines),
        "the same certificate, spelled otherwise": [canonical_bytes(value).replace(b'":', b'" : ')],
        "every statement signed by a stranger": [stranger(line) for line in release.lines],
        "a certificate of another model by a stranger": [stranger(release.lines[0], subject=[other])],
        "a signature that is none": [release.lines[0].replace(b'"sig":"', b'"sig":"AAAA', 1)],
        "no statement, signed by a stranger": [signed(b"{}", generate()), signed(b"\xff", generate())],
    }


@pytest.mark.parametrize("name", ["honest", *FORGED])
def test_junk_changes_nothing_but_the_notes(demo_folder: Path, policy: Policy, name: str) -> None:
    folder = demo_folder / ("release" if name == "honest" else f"forged/{name}")
    release = in_memory(folder)
    expected = decided(judge(release, policy))
    kinds = junk(release)
    for kind, lines in kinds.items():
        assert decided(judge(with_lines(release, *lines), policy)) == expected, kind
    everything = [line for lines in kinds.values() for line in lines]
    assert decided(judge(with_lines(release, *everything, first=True), policy)) == expected
    more = {sha256_hex(data): data for data in (b"", b"\x00" * 100_000, *release.lines)}
    more |= {"0" * 64: b"not what its name says", "f" * 64: b""}
    assert decided(judge(replace(release, objects=Held({**release.objects, **more})), policy)) == expected


def test_another_certificate_of_an_accepted_developer_changes_nothing(
    demo_folder: Path, honest: ReleaseBundle, policy: Policy
) -> None:
    """The tuner also signs a certificate of another model; what this bundle shows of these files stays."""
    tuner = PrivateKey.load(demo_folder / "keys" / "tuner.pem")
    own = next(line for line in honest.lines if certified(line, honest))
    payload = parse(SigstoreBundle.from_line(own, what="line").dsse_envelope.payload_bytes(), what="payload")
    payload["predicate"]["model"]["files"][0]["sha256"] = "1" * 64
    digest = hashlib.sha256(bytes.fromhex("1" * 64)).hexdigest()
    payload["subject"] = [{"name": "another", "digest": {"sha256": digest}}]
    report = judge(with_lines(honest, signed(canonical_bytes(payload), tuner)), policy)
    assert decided(report) == decided(judge(honest, policy))
    assert report.notes


def certified(line: bytes, release: ReleaseBundle) -> bool:
    """Whether a line is a certificate of the files at hand."""
    statement = parse(SigstoreBundle.from_line(line, what="line").dsse_envelope.payload_bytes(), what="payload")
    files = statement["predicate"].get("model", {}).get("files", [])
    return bool(files) and [file["sha256"] for file in files] == [file.sha256 for file in release.files]


def test_junk_on_disk_changes_nothing(release: Path, policy: Policy) -> None:
    expected = decided(judge(in_memory(release), policy))
    objects = release / ".pot" / "objects"
    (objects / "README").write_text("hello")
    (objects / ("0" * 64)).write_bytes(b"junk")
    (objects / ("1" * 64)).symlink_to("/etc/passwd")
    (objects / ("2" * 64)).mkdir()
    (objects / "\x1b[31m\u202e").write_bytes(b"")
    (release / "claims.jsonl").open("ab").write(b"\n\n\x00junk\n" + b"x" * (3 << 20) + b"\nno newline at the end")
    report = judge(in_memory(release), policy)
    assert decided(report) == expected
    assert report.verdict == "PASS"
    assert {note.code for note in report.notes} >= {"object", "claims-line"}
    assert "\x1b" not in report.to_bytes().decode()
