"""A run whose seed comes from a beacon: promised before, waited for, and certified with the round."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from recorded_run import ROOT, prepare, release_weights

from attest.bundle import read_release
from attest.certify import certify
from attest.cli.main import main
from attest.trust.keys import generate
from attest.verdict.policy import read_policy
from attest.verdict.verify import verify
from pot.audit.challenges.beacon import QUICKNET
from pot.errors import UsageError
from pot.recording.describe import QUICKNET_CHAIN, seed_source

ROUND = ROOT / "tests" / "vectors" / "drand"
DEVELOPER = generate()


def _round() -> tuple[Path, int]:
    """A genuine round of quicknet, and its number."""
    for path in sorted(ROUND.glob("*.json")):
        value = json.loads(path.read_text())
        if len(value.get("signature", "")) == 96 and "round" in value:
            return path, int(value["round"])
    raise AssertionError("no recorded round")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path, number = _round()
    run = prepare(tmp_path_factory.mktemp("beacon"))
    script = run.folder / "toy_training.py"
    script.write_text(
        script.read_text().replace('semantics="exact",', f'semantics="exact", nonce="beacon:quicknet:{number}",')
    )
    process = subprocess.Popen(
        [sys.executable, script.name, *run.arguments], cwd=run.folder, env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (run.run_dir / "precommit.json").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    code = main(["challenge", "seed", str(run.run_dir / "precommit.json"), "--beacon", str(path),
                 "--out", str(run.run_dir / "nonce.json")])  # fmt: skip
    assert code == 0
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "--beacon ROUND.json" in said
    return run


def test_the_round_is_promised_before_and_certified(run: Any, tmp_path: Path) -> None:
    assert run.precommit.seed_source == "beacon"
    assert run.codes() == []
    release_weights(run, tmp_path / "toy")
    certify(tmp_path / "toy", run.run_dir, DEVELOPER)
    policy = {
        "version": "pot/policy/v1",
        "roles": {"developer": [{"name": "Acme", "public_key": DEVELOPER.public.pem().decode()}]},
        "require": [{"claim": "training-provenance", "level": "committed"}],
    }
    report = verify(read_release(tmp_path / "toy"), read_policy(json.dumps(policy).encode()))
    assert report.verdict == "PASS", report.reason
    found = {finding.code: finding for finding in report.findings}
    assert found["seed-beacon"].status == "passed"
    assert found["seed"].status == "not_checked"  # no log says that the pre-commitment is older than the round
    assert "seed-beacon-time" in {item.code for item in report.not_shown}
    signature = run.events()[0]["nonce"]
    (tmp_path / "toy" / ".pot" / "objects" / signature).unlink()
    assert verify(read_release(tmp_path / "toy"), read_policy(json.dumps(policy).encode())).verdict == "INCOMPLETE"


@pytest.mark.parametrize("text", ["beacon", "beacon:quicknet", "beacon:quicknet:0", "beacon:quicknet:-3", "beacon:x:3",
                                  "beacon:quicknet:３", "beacon:quicknet:1:2"])  # fmt: skip
def test_a_beacon_without_a_coming_round_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="must name a beacon's coming round"):
        seed_source(text)


def test_quicknet_is_the_chain_that_the_verifier_knows() -> None:
    assert QUICKNET.chain_hash() == QUICKNET_CHAIN
