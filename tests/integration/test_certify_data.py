"""From a recorded run to a verdict about its data: another view, an inclusion, a composition, data audits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_run import RecordedRun, prepare
from safetensors.numpy import save_file

from attest.bundle import read_release
from attest.certify import certify, sign_audit, sign_data_audit
from attest.cli.main import main
from attest.trust.keys import generate
from attest.verdict.operations import apply_operation
from attest.verdict.policy import Policy, read_policy
from attest.verdict.report import Report
from attest.verdict.verify import verify
from pot.audit.audit import audit
from pot.audit.challenges.challenge import new_challenge
from pot.audit.data_audit import audit_data
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.state import entries_from_safetensors
from pot.data.commit import commit, load_committed, write_committed
from pot.errors import Refused, UsageError

DEVELOPER, AUDITOR = generate(), generate("ecdsa-p256")
LICENCES = ("CC0-1.0", "MIT")


def row(number: int) -> dict[str, Any]:
    text = f"{number} bottles on the wall, and this is line {number} of a song that never ends and never began"
    return {"id": number, "value": number * 7 % 17, "content": text, "licence": LICENCES[number % 2]}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item, sort_keys=True, separators=(",", ":")) + "\n" for item in rows))
    return path


def released(run: RecordedRun, model: Path) -> None:
    last = max((run.run_dir / "checkpoints").iterdir())
    trained = entries_from_safetensors((last / "model.safetensors").read_bytes())
    entries = apply_operation("dequantise/1", trained)
    model.mkdir()
    save_file(
        {e.name: np.frombuffer(bytes(e.data), "<f4").reshape(e.shape) for e in entries}, model / "model.safetensors"
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a developer has before certifying, made with the commands where there is one."""
    folder = tmp_path_factory.mktemp("data-workshop")
    run = prepare(folder)
    write(folder / "train.jsonl", [row(number) for number in range(22)])
    write_committed(commit([folder / "train.jsonl"], "json/1"), folder / "train.json")
    done = run.start()
    assert done.returncode == 0, done.stderr
    released(run, folder / "toy")
    challenge = new_challenge(
        run.precommit.sha256(), run.transcript.sha256(), len(run.chain().segments),
        forged="0.34", detect="0.5", nonce="03" * 32,
    )  # fmt: skip
    result = audit(run.run_dir, challenge, [folder / "train.jsonl"], folder)
    (folder / "audit.jsonl").write_bytes(sign_audit(result, AUDITOR))
    DEVELOPER.save(folder / "developer.pem")
    AUDITOR.save(folder / "auditor.pem")
    write(
        folder / "x.jsonl",
        [{"text": f"another song about {number} lions, which nobody has ever sung, nor will"} for number in range(4)],
    )
    write(folder / "y.jsonl", [row(3), row(8)])
    where = f"{folder}/"
    signed = f"--composition {where}sums.json --key {where}auditor.pem"
    for words in (
        f"data commit {where}train.jsonl --view winnow50/1 --field text=content --out {where}seen.json",
        f"data commit {where}x.jsonl --view winnow50/1 --as-exclusion --out {where}x.json",
        f"data exclude {where}seen.json {where}x.json --out {where}x.exclusion",
        f"data commit {where}y.jsonl --view json/1 --as-inclusion --out {where}y.json",
        f"data include {where}train.json {where}y.json --out {where}y.inclusion",
        f"data compose {where}train.json {where}train.jsonl --by licence --out {where}sums.json",
        f"audit data {where}seen.json --data {where}train.jsonl --key {where}auditor.pem --out {where}seen.jsonl",
        f"audit data {where}train.json --data {where}train.jsonl --out {where}sums.jsonl {signed}",
    ):
        assert main(words.split()) == 0, words
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the workshop."""
    shutil.copytree(made, tmp_path / "workshop")
    return tmp_path / "workshop"


def sign(folder: Path, **changes: Any) -> Report:
    options: dict[str, Any] = {
        "exclusions": [folder / "x.exclusion"],
        "inclusions": [folder / "y.inclusion"],
        "compositions": [folder / "sums.json"],
        "audits": [folder / name for name in ("audit.jsonl", "seen.jsonl", "sums.jsonl")],
        **changes,
    }
    certify(folder / "toy", folder / "run", DEVELOPER, **options)
    return verify(read_release(folder / "toy"), policy(folder))


def pin(path: Path, **more: str) -> dict[str, Any]:
    value = json.loads(path.read_text())
    return {
        "view": value["view"],
        "records": value["records"]["count"],
        "root_blake3": value["records"]["root_blake3"],
        **more,
    }


def policy(folder: Path) -> Policy:
    exclusion = pin(folder / "x.json", field="content")
    value = {
        "version": "pot/policy/v1",
        "roles": {
            "developer": [{"name": "Acme", "public_key": DEVELOPER.public.pem().decode()}],
            "auditor": [{"name": "Argus", "public_key": AUDITOR.public.pem().decode()}],
        },
        "require": [
            {"claim": "dataset-exclusion", "level": "audited", "exclusion": exclusion},
            {"claim": "dataset-inclusion", "level": "audited", "inclusion": pin(folder / "y.json")},
            {"claim": "data-composition", "level": "audited", "only": {"licence": list(LICENCES)}},
        ],
        "coverage": {"forged": "0.34", "detect": "0.5"},
    }
    return read_policy(json.dumps(value).encode())


def nothing_written(folder: Path) -> bool:
    return [path.name for path in (folder / "toy").iterdir()] == ["model.safetensors"]


def test_all_claims_about_data_reach_the_verdict(folder: Path) -> None:
    report = sign(folder)
    assert report.verdict == "PASS", report.reason
    claims = {claim.type: claim for claim in report.claims}
    assert {claim.level for name, claim in claims.items() if name != "training-provenance"} == {"audited"}
    assert "50 or more bytes" in claims["dataset-exclusion"].sentence
    assert "field content" in claims["dataset-exclusion"].sentence
    assert claims["data-composition"].composition is not None


def test_the_command_takes_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        f"certify {folder}/toy --run {folder}/run --key {folder}/developer.pem --exclude {folder}/x.exclusion"
        f" --include {folder}/y.inclusion --composition {folder}/sums.json --audit {folder}/audit.jsonl"
        f" --audit {folder}/seen.jsonl --audit {folder}/sums.jsonl"
    )
    assert main(words.split()) == 0, capsys.readouterr().err
    assert verify(read_release(folder / "toy"), policy(folder)).verdict == "PASS"


def test_a_commitment_that_lies_elsewhere_is_named_with_an_option(folder: Path, tmp_path: Path) -> None:
    (folder / "seen.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(UsageError, match="--commitment"):
        sign(folder)
    assert nothing_written(folder)
    assert sign(folder, commitments=[tmp_path / "elsewhere.json"]).verdict == "PASS"


def test_another_view_of_other_files_is_not_certified(folder: Path) -> None:
    other = write(folder / "other.jsonl", [row(number) for number in range(21)])
    write_committed(commit([other], "winnow50/1", fields={"text": "content"}), folder / "other.json")
    words = f"data exclude {folder}/other.json {folder}/x.json --out {folder}/other.exclusion"
    assert main(words.split()) == 0
    with pytest.raises(Refused, match="not about the files that this run committed to"):
        sign(folder, exclusions=[folder / "other.exclusion"])
    assert nothing_written(folder)


def test_records_that_no_step_used_are_not_certified(folder: Path) -> None:
    """22 records in batches of 4: two are dropped each time; a run of one step uses four."""
    short = prepare(folder / "short", steps=1, every=1)
    for name in ("train.jsonl", "train.json", "train.digests"):
        shutil.copy(folder / name, short.folder)
    assert short.start().returncode == 0
    released(short, folder / "short" / "toy")
    y = write(folder / "all.jsonl", [row(number) for number in range(22)])
    write_committed(commit([y], "json/1", "inclusion"), folder / "all.json")
    assert main(f"data include {folder}/train.json {folder}/all.json --out {folder}/all.inclusion".split()) == 0
    with pytest.raises(Refused, match="18 of its records stand where no batch of the run reaches"):
        certify(folder / "short" / "toy", short.run_dir, DEVELOPER, inclusions=[folder / "all.inclusion"])


def test_a_data_audit_with_a_mismatch_is_not_referred_to(folder: Path) -> None:
    commitment = load_committed(folder / "train.json").commitment
    bent = write(folder / "bent.jsonl", [row(number + 1) for number in range(22)])
    (folder / "bad.jsonl").write_bytes(sign_data_audit(audit_data(commitment, [bent]), AUDITOR))
    with pytest.raises(Refused, match="found a mismatch"):
        sign(folder, audits=[folder / "bad.jsonl"])
    assert nothing_written(folder)


def test_a_data_audit_of_other_data_is_not_certified(folder: Path) -> None:
    other = write(folder / "other.jsonl", [row(1)])
    commitment = commit([other], "json/1").commitment
    (folder / "other-audit.jsonl").write_bytes(sign_data_audit(audit_data(commitment, [other]), AUDITOR))
    with pytest.raises(Refused, match="does not refer to"):
        sign(folder, audits=[folder / "other-audit.jsonl"])
    assert nothing_written(folder)


def test_a_composition_of_other_data_is_not_certified(folder: Path) -> None:
    other = write(folder / "other.jsonl", [row(1)])
    write_committed(commit([other], "json/1"), folder / "other.json")
    words = f"data compose {folder}/other.json {other} --by licence --out {folder}/other-sums.json"
    assert main(words.split()) == 0
    with pytest.raises(Refused, match="did not commit to"):
        sign(folder, compositions=[folder / "other-sums.json"])


def test_the_listing_of_a_set_must_lie_beside_it(folder: Path) -> None:
    assert DatasetCommitment.from_bytes((folder / "x.json").read_bytes(), what="X").listing_suffix == ".keys"
    (folder / "x.keys").unlink()
    with pytest.raises(UsageError, match=r"x\.keys"):
        sign(folder)
    assert nothing_written(folder)


@pytest.mark.parametrize("content", [None, b"", b"\x00\xff", b"{}", b'{"version":"pot/inclusion/v1"}\n'])
@pytest.mark.parametrize("which", ["inclusions", "compositions"])
def test_bad_files_give_one_sentence(folder: Path, tmp_path: Path, which: str, content: bytes | None) -> None:
    from pot.errors import PotError

    path = tmp_path / "bad"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PotError) as caught:
        sign(folder, **{which: [path]})
    assert caught.value.exit_code in (1, 2)
    assert "\n" not in str(caught.value)
    assert nothing_written(folder)
