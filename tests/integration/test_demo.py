"""The whole story once, for real, and what its folder must then show. About a minute and a half on two cores."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from attest.cli.main import main

FORGERIES = ("weight-bit", "config-byte", "transcript-line", "step-proof", "signer", "x2-as-x1", "segment")

# verdict, the first words of the reason, and a finding (code, status, words) that must be behind it
CAUGHT: dict[str, tuple[str, str, tuple[str, str, str]]] = {
    "weight-bit": ("DENY", "step 7, subject:", ("subject", "failed", "not the certified model")),
    "config-byte": ("INCOMPLETE", "step 8, precommit:", ("precommit", "not_checked", "other bytes")),
    "transcript-line": ("DENY", "step 9, chain:", ("chain", "failed", "index: line 2")),
    "step-proof": ("INCOMPLETE", "step 11, step-proof:", ("step-proof", "not_checked", "missing")),
    # nobody who counts has certified these weights: what is left in the bundle is the parent's certificate
    "signer": ("DENY", "step 7, subject: digits-mlp:", ("subject", "failed", "not the certified model")),
    "x2-as-x1": ("DENY", "step 10, non-membership:", ("non-membership", "failed", "exclusion_sha256")),
    "segment": ("INCOMPLETE", "step 15, requirement:", ("replay", "not_checked", "no accepted auditor")),
}

CLAIMS = [("training-provenance", 2), ("dataset-exclusion", 2), ("steps-proven", 1)]  # the model's and its parent's

# runs the command line where the operating system tells of every socket, and where there is no torch to import
WATCHED = """
import os, sys
def watch(event, arguments):
    if event.startswith("socket."):
        os.write(2, f"opened a socket: {event}\\n".encode())
        os._exit(99)
sys.addaudithook(watch)
for name in ("torch", "sklearn", "fastapi", "uvicorn", "httpx", "sigstore"):
    sys.modules[name] = None
from attest.cli.main import run
run()
"""


@pytest.fixture(scope="module")
def reported(demo_folder: Path) -> dict[str, Any]:
    """The report on the honest release, from a process of its own."""
    ended = pot("verify", "release", "--policy", "policy.yaml", "--json", cwd=demo_folder)
    assert ended.returncode == 0, ended.stderr
    value: dict[str, Any] = json.loads(ended.stdout)
    return value


def pot(
    *words: str, cwd: Path, script: str = "from attest.cli.main import run; run()", before: tuple[str, ...] = ()
) -> Any:
    return subprocess.run(
        [*before, sys.executable, "-c", script, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def judged(capsys: pytest.CaptureFixture[str], folder: Path, policy: Path) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["verify", str(folder), "--policy", str(policy), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_last_line_is_the_path_of_the_report(demo_told: Any) -> None:
    if demo_told.out is None:
        pytest.skip("POT_TEST_DEMO: an existing folder says nothing of how it was made")
    assert demo_told.out.splitlines()[-1] == str(demo_told.folder / "report.html")
    assert (demo_told.folder / "report.html").is_file()
    assert demo_told.out.count("\n") == 1  # everything else is talk
    for words in (
        "PASS  parent",
        "PASS  release",
        "killed with SIGKILL",
        "both releases PASS, seven forgeries refused",
    ):
        assert words in demo_told.err
    assert "Traceback" not in demo_told.err


def test_both_verdicts_are_pass(
    demo_folder: Path, reported: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert reported["verdict"] == "PASS"
    assert [item["model"] for item in reported["lineage"]] == ["digits-mlp-tuned", "digits-mlp"]
    assert [item["status"] for item in reported["lineage"]] == ["passed", "passed"]
    assert [(item["status"], item["found"]) for item in reported["policy"]["requirements"]] == [
        ("passed", "audited")
    ] * 3
    assert not [finding for finding in reported["findings"] if finding["status"] == "failed"]
    assert reported["not_shown"]
    code, parent = judged(capsys, demo_folder / "parent", demo_folder / "policy-parent.yaml")
    assert (code, parent["verdict"]) == (0, "PASS")


def test_the_story_is_the_promised_one(demo_folder: Path) -> None:
    counts = {
        name: json.loads((demo_folder / "commitments" / f"{name}.json").read_bytes())["records"]["count"]
        for name in ("train", "fine-tune", "x1", "x2")
    }
    assert (counts["x1"], counts["x2"]) == ("200", "200")
    records = [(demo_folder / "data" / f"{name}.jsonl").read_text().splitlines() for name in ("train", "x1", "x2")]
    train, x1, x2 = ({json.dumps(json.loads(line)["image"]) for line in lines} for lines in records)
    assert (len(train & x1), len(train & x2)) == (0, 3)
    transcript = (demo_folder / "run-parent" / "transcript.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["type"] for line in transcript]
    assert kinds.count("step") > 300  # hundreds of steps
    assert kinds.count("resume") == 1  # killed once on the way
    assert kinds.count("checkpoint") > 10


def test_there_are_exactly_seven_forgeries(demo_folder: Path) -> None:
    assert {path.parent.name for path in (demo_folder / "forged").glob("*/claims.jsonl")} == set(FORGERIES)


@pytest.mark.parametrize("name", FORGERIES)
def test_each_forgery_is_caught_by_its_own_check(
    demo_folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = judged(capsys, demo_folder / "forged" / name, demo_folder / "policy.yaml")
    verdict, reason, (wanted, status, words) = CAUGHT[name]
    assert report["verdict"] == verdict
    assert code == {"DENY": 1, "INCOMPLETE": 3}[verdict]
    assert report["reason"].startswith(reason)
    behind = [f for f in report["findings"] if (f["code"], f["status"]) == (wanted, status) and words in f["detail"]]
    assert behind, report["findings"]
    failed = {finding["code"] for finding in report["findings"] if finding["status"] == "failed"}
    assert (verdict == "DENY") == bool(failed)


def test_the_reasons_differ(demo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reasons = {
        judged(capsys, demo_folder / "forged" / name, demo_folder / "policy.yaml")[1]["reason"] for name in FORGERIES
    }
    assert len(reasons) == len(FORGERIES)


def test_a_stranger_s_signature_counts_for_nothing(demo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, report = judged(capsys, demo_folder / "forged" / "signer", demo_folder / "policy.yaml")
    assert report["certificate"]["model"] == "digits-mlp"
    assert any(n["code"] == "signature" and "not signed by any key" in n["detail"] for n in report["notes"])


def test_the_forged_segment_was_caught_by_the_auditor(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The audit says MISMATCH; who leaves it out gets no audited level, who refers to it gets no certificate."""
    _, report = judged(capsys, demo_folder / "forged" / "segment", demo_folder / "policy.yaml")
    note = next(note for note in report["notes"] if note["code"] == "unreferenced-audit")
    assert "reports a mismatch at segment 2" in note["detail"]
    assert {item.get("found") for item in report["policy"]["requirements"]} <= {"committed", None}

    shutil.copytree(demo_folder / "forged" / "segment", tmp_path / "segment")
    before = tree(tmp_path / "segment")
    capsys.readouterr()
    code = main(
        [
            *("certify", str(tmp_path / "segment"), "--run", str(demo_folder / "forged" / "run-segment")),
            *("--key", str(demo_folder / "keys" / "tuner.pem"), "--parent", str(demo_folder / "parent")),
            *("--exclude", str(demo_folder / "evidence" / "fine-tune-x1")),
            *("--commitment", str(demo_folder / "commitments")),
            *("--audit", str(demo_folder / "verifier" / "audit-forged.jsonl")),
        ]
    )
    assert code == 1
    assert "the audit found a mismatch" in capsys.readouterr().err
    assert tree(tmp_path / "segment") == before


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("at", [0, 8, -1, "middle"])
def test_any_weight_bit_ends_pass(
    demo_folder: Path, release: Path, at: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = bytearray((release / "model.safetensors").read_bytes())
    weights[len(weights) // 2 if at == "middle" else at] ^= 0x10
    (release / "model.safetensors").write_bytes(weights)
    code, report = judged(capsys, release, demo_folder / "policy.yaml")
    assert (code, report["verdict"]) == (1, "DENY")


def test_x2_is_refused_with_a_count_and_no_content(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evidence"
    words = ["data", "exclude", str(demo_folder / "commitments/train.json"), str(demo_folder / "commitments/x2.json")]
    capsys.readouterr()
    assert main([*words, "--out", str(out)]) == 1
    told = capsys.readouterr()
    assert told.out == "3\n"
    assert not out.exists()
    for line in (demo_folder / "data" / "x2.jsonl").read_text().splitlines():
        pixels = json.loads(line)["image"]
        for text in (line, json.dumps(pixels), json.dumps(pixels)[1:20]):
            assert text not in told.out + told.err


def test_verification_opens_no_socket_and_needs_no_torch(demo_folder: Path, reported: dict[str, Any]) -> None:
    words = ("verify", "release", "--policy", "policy.yaml", "--json", "--offline")
    ended = pot(*words, cwd=demo_folder, script=WATCHED)
    assert ended.returncode == 0, ended.stderr
    assert {**json.loads(ended.stdout), "time": None} == {**reported, "time": None}
    assert pot("serve", "--policy", "policy.yaml", cwd=demo_folder, script=WATCHED).returncode != 0  # the watch works


def test_verification_needs_no_network(demo_folder: Path) -> None:
    unshare = shutil.which("unshare")
    alone = (unshare or "", "-rn")
    if unshare is None or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody make a network namespace")
    ended = pot("verify", "release", "--policy", "policy.yaml", "--json", cwd=demo_folder, before=alone)
    assert ended.returncode == 0, ended.stderr  # the children that check step proofs have no network either


def test_verification_writes_nothing(demo_folder: Path, release: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    before = {path: os.lstat(path).st_mtime_ns for path in release.rglob("*")}
    ended = pot("verify", str(release), "--policy", str(demo_folder / "policy.yaml"), cwd=tmp_path / "empty")
    assert ended.returncode == 0, ended.stderr
    assert {path: os.lstat(path).st_mtime_ns for path in release.rglob("*")} == before
    assert os.listdir(tmp_path / "empty") == []


class Page(HTMLParser):
    """What a page would load or run, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.reaching: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._hidden = 0
        self.feed(source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._hidden += tag == "style"
        for name, value in attributes:
            if name.startswith("on") or name in ("src", "srcset", "href", "action", "background", "data", "poster"):
                self.reaching.append((name, value or ""))

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(params=["report.html", "report-parent.html"])
def page(demo_folder: Path, request: pytest.FixtureRequest) -> str:
    return (demo_folder / request.param).read_text(encoding="utf-8")


def test_the_page_stands_alone(page: str) -> None:
    found = Page(page)
    assert not {"script", "iframe", "img", "link", "object", "embed", "base", "form", "use"} & set(found.tags)
    assert found.reaching == []
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html.unescape(page)


def test_the_demo_s_page_is_that_of_its_release(demo_told: Any, reported: dict[str, Any]) -> None:
    found = Page((demo_told.folder / "report.html").read_text(encoding="utf-8")).text
    for claim in reported["claims"]:
        assert claim["type"] in found
    assert reported["model"]["model_sha256"] in found
    assert reported["certificate"]["certificate_sha256"] in found


def test_text_json_and_page_agree(demo_folder: Path, reported: dict[str, Any], tmp_path: Path) -> None:
    """Every claim, level, digest, step and sentence of the report is on the page and in the text."""
    words = ("verify", "release", "--policy", "policy.yaml", "--report", str(tmp_path / "report.html"))
    text = pot(*words, cwd=demo_folder).stdout
    assert text.splitlines()[0] == "PASS  release"
    on_page = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert " PASS " in on_page
    assert "DENY" not in on_page
    for kind, count in CLAIMS:
        assert sum(claim["type"] == kind for claim in reported["claims"]) == count
        assert (
            text.count(f"ok   {kind} ") - sum(item["claim"] == kind for item in reported["policy"]["requirements"])
            == count
        )
    for claim in reported["claims"]:
        assert f"{claim['type']}" in on_page
        for link in claim["links"]:
            assert squeezed(link["detail"]) in on_page
            assert link["code"] in text
            if link["level"] != "proved":
                assert f"{link['level'].ljust(9)} {link['code'].ljust(18)} {link['detail']}" in text
    for digest in (reported["model"]["model_sha256"], reported["certificate"]["certificate_sha256"]):
        assert digest in text
        assert digest in on_page
    assert reported["policy"]["policy_sha256"] in on_page
    for sentence in (
        [reported["reason"].split(", and ")[1], reported["certificate"]["signer"]]
        + [item["detail"] for item in reported["policy"]["requirements"]]
        + [item["model"] for item in reported["lineage"]]
        + [item["summary"] for item in reported["steps"]]
        + [item["sentence"] for item in reported["not_shown"]]
    ):
        assert sentence in text
        assert squeezed(sentence) in on_page
    for finding in reported["findings"]:
        assert squeezed(finding["detail"]) in on_page


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("name", ["weight-bit", "step-proof"])
def test_the_page_of_a_forgery_says_why(
    demo_folder: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "report.html"
    words = ["verify", str(demo_folder / "forged" / name), "--policy", str(demo_folder / "policy.yaml"), "--json"]
    capsys.readouterr()
    assert main([*words, "--report", str(place)]) in (1, 3)
    report = json.loads(capsys.readouterr().out)
    found = Page(place.read_text(encoding="utf-8"))
    assert squeezed(report["reason"]) in found.text
    assert report["verdict"] in found.text.split()
    assert "PASS" not in found.text.split()
    assert found.reaching == []
