"""The documents keep their word: links lead somewhere, commands exist, terms are used as defined, statuses are true."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import typer

from attest.cli.main import build

ROOT = Path(__file__).resolve().parents[2]
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
DOCUMENTS = sorted(
    ROOT / name
    for name in TRACKED
    if name.endswith(".md") and not name.startswith("tests/vectors/") and (ROOT / name).exists()
)
SOURCES = sorted(ROOT / name for name in TRACKED if name.endswith(".py") and (ROOT / name).exists())
STATUSES = ("tested", "partly", "later", "limit")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(text: str) -> str:
    """A document without what is quoted from elsewhere: code blocks, code spans, link targets."""
    text = re.sub(r"(?ms)^```.*?^```", "", text)
    text = re.sub(r"`[^`\n]*`", "`code`", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def test_there_are_documents() -> None:
    names = {named(path) for path in DOCUMENTS}
    assert {
        "README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "specs/terminology.md", "specs/threat-model.md",
        "specs/transcript.md", "specs/commitments.md", "specs/certificate.md", "specs/verification.md",
        "specs/service.md", "specs/containers.md", "specs/hiding.md", "specs/composition.md",
        "specs/recording.md", "specs/hints.md",
    } <= names  # fmt: skip


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if not re.match(r"[a-z]+:|#", target):
            assert (path.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_commands_in_documents_exist(path: Path) -> None:
    app = typer.main.get_command(build())
    for line in re.findall(r"(?m)(?:^|`)(?:\$ )?(?:\.venv/bin/)?pot ([a-z]+)", path.read_text("utf-8")):
        assert line in app.commands, f"pot {line}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_a_bundle_is_never_bare(path: Path) -> None:
    if path.name == "terminology.md":  # it says so itself
        return
    text = " ".join(prose(path.read_text("utf-8")).split())
    for found in re.finditer(r"(?i)\bbundles?\b", text):
        before = text[max(0, found.start() - 20) : found.start()].lower()
        assert re.search(r"(release|sigstore)[ -]$", before), text[max(0, found.start() - 60) : found.end() + 20]


OVERVIEWS = [path for path in DOCUMENTS if path.parent == ROOT or path.name in ("threat-model.md", "service.md")]


@pytest.mark.parametrize("path", OVERVIEWS, ids=named)
def test_a_proof_says_of_what(path: Path) -> None:
    """In the documents that speak of more than one kind; a specification of one kind may be brief."""
    text = " ".join(prose(path.read_text("utf-8")).split())
    kinds = (
        r"(step|set|subtree|membership|non-membership|inclusion|consistency|merkle|zero-knowledge|zk|absence|exclusion)"
    )
    for found in re.finditer(r"(?i)\bproofs?\b", text):
        before = text[max(0, found.start() - 24) : found.start()].lower()
        around = text[max(0, found.start() - 60) : found.end() + 20]
        assert re.search(kinds + r"[ -]$", before) or text[found.end() :].lower().startswith(
            (" of training", "-of-")
        ), around


def test_threat_model_statuses_are_true() -> None:
    """What is called tested names a test that exists; every row has a status."""
    rows = re.findall(
        r"(?m)^\| (A\d\d[^|]*) \|[^|]*\|[^|]*\| ([^|]*) \|$", (ROOT / "specs/threat-model.md").read_text("utf-8")
    )
    numbers = {int(number) for ids, _ in rows for number in re.findall(r"A(\d\d)", ids)}
    assert numbers == set(range(1, 65))
    for ids, status in rows:
        word = status.split(":")[0].strip()
        assert word in STATUSES, (ids, status)
        files = re.findall(r"`([^`]+)`", status)
        assert bool(files) == (word in ("tested", "partly")), (ids, status)
        for file in files:
            assert (ROOT / "tests" / file).is_file(), (ids, file)


def test_every_forgery_is_in_the_threat_model() -> None:
    text = (ROOT / "specs/threat-model.md").read_text("utf-8")
    for path in sorted((ROOT / "tests/attacks").glob("test_*.py")):
        assert f"`attacks/{path.name}`" in text, path.name


@pytest.mark.parametrize("path", [*DOCUMENTS, *SOURCES], ids=named)
def test_text_speaks_of_the_project_alone(path: Path) -> None:
    """No path of somebody's machine, no unfinished mark."""
    text = path.read_text("utf-8")
    assert not re.search(r"(?<![\w.])/(home|root|Users|work|opt)/\w", text)
    if path != Path(__file__):
        assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)
