"""From a recorded run to a verdict: audit, exclusion, certificate; and what `certify` refuses to sign."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun, release_weights

from attest.bundle import SigstoreBundle, read_release
from attest.certify import certify, sign_audit
from attest.cli.main import main
from attest.rehearsal import weights_hint
from attest.trust.keys import generate
from attest.verdict.policy import Policy, read_policy
from attest.verdict.verify import verify
from pot.audit.audit import AuditResult, audit
from pot.audit.challenges.challenge import new_challenge
from pot.canonical import canonical_bytes, parse
from pot.commitments.model import model_files
from pot.data.commit import commit, write_committed
from pot.data.exclude import exclude
from pot.data.exclude_verify import Exclusion
from pot.errors import PotError, Refused, UsageError

DEVELOPER, AUDITOR = generate(), generate("ecdsa-p256")


@dataclass
class Workshop:
    """Everything that a developer has before certifying."""

    run: RecordedRun
    model: Path
    exclusion: Path
    audit: Path

    def certify(self, **changes: Any) -> None:
        options: dict[str, Any] = {"exclusions": [self.exclusion], "audits": [self.audit], **changes}
        certify(self.model, self.run.run_dir, DEVELOPER, **options)

    def policy(self) -> Policy:
        x = json.loads(self.exclusion.with_suffix(".json").read_text())
        value = {
            "version": "pot/policy/v1",
            "roles": {
                "developer": [{"name": "Acme", "public_key": DEVELOPER.public.pem().decode()}],
                "auditor": [{"name": "Argus", "public_key": AUDITOR.public.pem().decode()}],
            },
            "require": [
                {
                    "claim": "dataset-exclusion",
                    "level": "audited",
                    "exclusion": {
                        "view": x["view"],
                        "records": x["records"]["count"],
                        "root_blake3": x["records"]["root_blake3"],
                    },
                }
            ],
            "coverage": {"forged": "0.34", "detect": "0.5"},
        }
        return read_policy(json.dumps(value).encode())


@pytest.fixture(scope="session")
def audited(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Made once; not to be changed."""
    folder = tmp_path_factory.mktemp("workshop")
    release_weights(finished_run, folder / "toy")
    (folder / "x.jsonl").write_bytes(
        b"".join(canonical_bytes({"id": number, "value": 99}) + b"\n" for number in range(5))
    )
    x = commit([folder / "x.jsonl"], "json/1", "exclusion")
    write_committed(x, folder / "x.json")
    from pot.data.commit import load_committed

    proof = exclude(load_committed(finished_run.folder / "train.json"), x)
    assert isinstance(proof, Exclusion)
    (folder / "x.exclusion").write_bytes(proof.to_bytes())
    challenge = new_challenge(
        finished_run.precommit.sha256(),
        finished_run.transcript.sha256(),
        len(finished_run.chain().segments),
        forged="0.34",
        detect="0.5",
        nonce="03" * 32,
    )
    result = audit(finished_run.run_dir, challenge, [finished_run.folder / "train.jsonl"], finished_run.folder)
    AUDITOR.save(folder / "auditor.pem")
    (folder / "audit.jsonl").write_bytes(sign_audit(result, folder / "auditor.pem"))
    return Workshop(finished_run, folder / "toy", folder / "x.exclusion", folder / "audit.jsonl")


@pytest.fixture
def workshop(audited: Workshop, tmp_path: Path) -> Workshop:
    """A copy of the model's folder, to be certified."""
    shutil.copytree(audited.model, tmp_path / "toy")
    return Workshop(audited.run, tmp_path / "toy", audited.exclusion, audited.audit)


def test_a_real_run_is_certified_and_passes(workshop: Workshop) -> None:
    workshop.certify()
    report = verify(read_release(workshop.model), workshop.policy())
    assert (report.verdict, report.reason[:10]) == ("PASS", "everything")
    assert {claim.type: claim.level for claim in report.claims} == {
        "training-provenance": "committed",  # the seed is the trainer's own
        "dataset-exclusion": "audited",
    }


def test_certifying_again_adds_no_second_copy(workshop: Workshop) -> None:
    workshop.certify()
    before = {path: path.read_bytes() for path in workshop.model.rglob("*") if path.is_file()}
    workshop.certify()
    after = {path: path.read_bytes() for path in workshop.model.rglob("*") if path.is_file()}
    assert after == before  # Ed25519 signatures are deterministic


def test_claims_of_others_stay(workshop: Workshop) -> None:
    (workshop.model / "claims.jsonl").write_bytes(b'{"kept":"line"}\n')
    workshop.certify()
    assert (workshop.model / "claims.jsonl").read_bytes().startswith(b'{"kept":"line"}\n')


def nothing_written(workshop: Workshop) -> bool:
    return [path.name for path in workshop.model.iterdir()] == ["model.safetensors"]


def test_changed_weights_are_not_certified(workshop: Workshop) -> None:
    path = workshop.model / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Refused, match="would be denied"):
        workshop.certify()
    assert nothing_written(workshop)


def test_an_audit_with_a_mismatch_is_not_referred_to(workshop: Workshop, tmp_path: Path) -> None:

    payload = SigstoreBundle.from_line(workshop.audit.read_bytes().strip(), what="audit").dsse_envelope.payload_bytes()
    value = parse(payload, what="audit")["predicate"]
    value["replays"][0]["outcome"] = "MISMATCH"
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(sign_audit(AuditResult.from_value(value, what="audit"), AUDITOR))
    with pytest.raises(Refused, match="mismatch"):
        workshop.certify(audits=[bad])
    assert nothing_written(workshop)


def certify_words(workshop: Workshop, tmp_path: Path) -> list[str]:
    """`pot certify` for the workshop's run, with the developer's key."""
    DEVELOPER.save(tmp_path / "developer.pem")
    key = str(tmp_path / "developer.pem")
    return ["certify", str(workshop.model), "--run", str(workshop.run.run_dir), "--key", key]


def test_an_audit_without_a_match_is_named(workshop: Workshop, tmp_path: Path, capsys: Any) -> None:
    payload = SigstoreBundle.from_line(workshop.audit.read_bytes().strip(), what="audit").dsse_envelope.payload_bytes()
    value = parse(payload, what="audit")["predicate"]
    for unit in value["replays"]:
        unit["outcome"] = "REFUSED"
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(sign_audit(AuditResult.from_value(value, what="audit"), AUDITOR))
    words = certify_words(workshop, tmp_path)
    assert main([*words, "--audit", str(workshop.audit)]) == 0
    told = capsys.readouterr()
    assert "holds no match" not in told.err
    assert "claim training-provenance: " in told.out
    assert "      not proved by the release alone: seed, records-tie, initial-weights, replay" in told.out
    assert main([*words, "--audit", str(empty)]) == 0
    found = f"{empty}: this audit holds no match ({len(value['replays'])} REFUSED); it shows nothing for the claims"
    assert found in capsys.readouterr().err


def test_weights_under_another_name_are_told_where_the_right_ones_lie(workshop: Workshop) -> None:
    (workshop.model / "model.safetensors").rename(workshop.model / "model.pt")
    with pytest.raises(UsageError, match=r"holds no model\.safetensors to certify; float_safetensors makes it"):
        workshop.certify()
    run = workshop.run
    run_of_floats = run.precommit.model_copy(update={"semantics": "float"})
    hint = weights_hint(run.run_dir, model_files(workshop.model), run_of_floats, run.chain())
    path = run.run_dir / "checkpoints" / "step-000030" / "model.safetensors"
    assert hint == f"; copy {path} into it, or save the model with safetensors as model.safetensors"
    assert path.is_file()


def test_a_bent_transcript_is_not_certified(recorded: RecordedRun, workshop: Workshop) -> None:
    events = recorded.events()
    events[3], events[4] = events[4], events[3]
    recorded.relink(events)
    with pytest.raises(Refused, match="does not hold"):
        certify(workshop.model, recorded.run_dir, DEVELOPER)
    assert nothing_written(workshop)


def test_what_is_missing_is_named(workshop: Workshop, tmp_path: Path) -> None:
    shutil.copy(workshop.exclusion, tmp_path / "alone.exclusion")
    with pytest.raises(UsageError, match="--commitment"):
        workshop.certify(exclusions=[tmp_path / "alone.exclusion"])
    workshop.certify(exclusions=[tmp_path / "alone.exclusion"], commitments=[workshop.exclusion.with_suffix(".json")])
    assert verify(read_release(workshop.model), workshop.policy()).verdict == "PASS"


def test_a_parent_that_the_run_does_not_name_is_refused(workshop: Workshop) -> None:
    with pytest.raises(UsageError, match="names no parent"):
        workshop.certify(parent=workshop.model)


@pytest.mark.parametrize("content", [None, b"", b"\x00\xff", b"{}", b"x" * (2 << 20)])
@pytest.mark.parametrize("which", ["exclusions", "audits", "step_proofs"])
def test_bad_evidence_files_give_one_sentence(
    workshop: Workshop, tmp_path: Path, which: str, content: bytes | None
) -> None:
    path = tmp_path / "bad"
    if content is not None:
        path.write_bytes(content)
    kit = {"kit": tmp_path} if which == "step_proofs" else {}
    with pytest.raises(PotError) as caught:
        workshop.certify(**{which: [path]}, **kit)
    assert caught.value.exit_code in (1, 2)
    assert "\n" not in str(caught.value)
    assert nothing_written(workshop)


def test_the_commands_do_the_same(workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = certify_words(workshop, tmp_path)
    arguments += ["--exclude", str(workshop.exclusion), "--audit", str(workshop.audit), "--json"]
    assert main(arguments) == 0
    made = json.loads(capsys.readouterr().out)
    value = workshop.policy().document.to_bytes()
    (tmp_path / "policy.yaml").write_bytes(value)
    assert main(["verify", str(workshop.model), "--policy", str(tmp_path / "policy.yaml"), "--json", "--offline"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "PASS"
    assert report["certificate"]["certificate_sha256"] == made["certificate_sha256"]
    assert report["model"]["model_sha256"] == made["model_sha256"]
    assert main(["inspect", str(workshop.model / "claims.jsonl"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert made["certificate_sha256"] in {line["payload_sha256"] for line in lines}
