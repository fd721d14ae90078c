"""The built wheel, installed alone with what it declares, verifies a release bundle. About 20 seconds.

The environment is fresh and gets its dependencies from the metadata of the wheel: the distributions that it requires,
with theirs, are linked from the environment of the tests, so that no registry is asked and nothing else is there.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("torch", "ezkl", "onnx", "sigstore", "in_toto", "fastapi", "uvicorn", "sklearn", "scipy", "pytest")


@dataclass(frozen=True)
class Installed:
    """An environment with nothing but the wheel and what it requires."""

    folder: Path
    wheel: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        # isolated from the checkout: another folder, no PYTHONPATH
        return subprocess.run(
            words, cwd=self.folder, capture_output=True, text=True, timeout=120,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
        )  # fmt: skip

    def pot(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.folder / "bin/pot"), *words)

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.folder / "bin/python"), "-c", code)


def requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        metadata = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return BytesParser().parsebytes(opened.read(metadata)).get_all("Requires-Dist", [])


def closure(required: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """The distributions that these requirements need without extras, and theirs, from this environment."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [Requirement(line) for line in required]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[name] = importlib.metadata.distribution(name)
        waiting += [Requirement(line) for line in found[name].requires or []]
    return found


def link(distribution: importlib.metadata.Distribution, site: Path) -> None:
    for file in distribution.files or []:
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(os.fspath(file.locate()), target)
        except OSError:  # another file system
            shutil.copyfile(os.fspath(file.locate()), target)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    dist, folder = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("bare")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(dist)],
        cwd=ROOT, capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    (wheel,) = dist.glob("*.whl")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for distribution in closure(requirements(wheel)).values():
        link(distribution, site)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin/python")]
    subprocess.run(
        [*pip, "install", "--no-index", "--no-deps", str(wheel)], capture_output=True, timeout=120, check=True
    )
    checked = subprocess.run([*pip, "check"], capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stdout
    yield Installed(folder, wheel)
    shutil.rmtree(folder)


def test_the_wheel_holds_the_three_packages_and_nothing_else(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as opened:
        names = opened.namelist()
    assert {name.split("/")[0] for name in names} == {"pot", "attest", "verifier_api", "pot_attest-0.1.0.dist-info"}
    assert "pot_attest-0.1.0.dist-info/licenses/LICENSE" in names
    assert {"pot/py.typed", "attest/py.typed", "verifier_api/py.typed"} <= set(names)
    committed = subprocess.run(
        ["git", "ls-files", "pot", "attest", "verifier_api"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(committed) <= set(names)


def test_the_environment_is_bare(installed: Installed) -> None:
    ended = installed.python(f"import importlib.util as u; print([n for n in {ABSENT!r} if u.find_spec(n)])")
    assert ended.stdout == "[]\n", ended.stderr
    where = installed.python("import pot, attest, verifier_api; print(pot.__file__, attest.__file__)")
    assert str(ROOT) + "/" not in where.stdout
    assert where.stdout.count(str(installed.folder)) == 2


def test_the_command_works(installed: Installed) -> None:
    assert installed.pot("--version").stdout == "pot 0.1.0\n"
    ended = installed.pot("--help")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    for command in ("verify", "certify", "serve", "demo"):
        assert f"  {command} " in ended.stdout


def test_doctor_names_what_is_missing(installed: Installed) -> None:
    ended = installed.pot("doctor", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert None not in found["base"].values()
    assert not any(extra["installed"] for extra in found["extras"].values())
    assert found["extras"]["zk"]["command"] == "pip install 'pot-attest[zk]'"


def test_what_needs_an_extra_names_it(installed: Installed, policy_file: Path) -> None:
    ended = installed.pot("serve", "--policy", str(policy_file))
    assert ended.returncode == 4
    assert ended.stderr == (
        "pot: pot serve needs the extra [server], which is not installed: pip install 'pot-attest[server]'\n"
    )
    ended = installed.pot("demo", "--quick", "--out", str(installed.folder / "demo"))
    assert ended.returncode == 4
    assert "pot-attest[" in ended.stderr


def test_verify_passes_an_honest_release(installed: Installed, honest: Path, policy_file: Path) -> None:
    ended = installed.pot("verify", str(honest), "--policy", str(policy_file), "--json")
    assert (ended.returncode, json.loads(ended.stdout)["verdict"]) == (0, "PASS")
    text = installed.pot("verify", str(honest), "--policy", str(policy_file))
    assert text.returncode == 0
    assert "PASS" in text.stdout


def test_verify_denies_a_forged_release(installed: Installed, forged: Path, policy_file: Path) -> None:
    ended = installed.pot("verify", str(forged), "--policy", str(policy_file), "--json")
    assert (ended.returncode, json.loads(ended.stdout)["verdict"]) == (1, "DENY")
