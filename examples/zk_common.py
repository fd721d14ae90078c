"""What the step-proof examples share: commands that are shown and run, digits as records, and a forger's tools.

Each example tells its story in one folder with the commands that a user would type. Commands and their progress go to
standard error, one summary to standard output.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attest.bundle import CLAIMS_FILE, OBJECTS_FOLDER, WEIGHTS_FILE, SigstoreBundle, join_lines, split_lines
from attest.certify import sign_statement
from attest.statement import Statement
from attest.trust.keys import PrivateKey
from pot.canonical import canonical_bytes, sha256_hex, write_file
from pot.commitments.model import model_digest, model_files, names_digest
from pot.data.readers import RecordDataset

HERE = Path(__file__).resolve().parent
POT = str(Path(sys.executable).with_name("pot"))


class Story:
    """Runs commands in one folder, shows them, and stops where one ends otherwise than expected."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        """Wall-clock time of the latest run of each command, by its first two words."""

    def run(self, words: str, *, expect: Sequence[int] = (0,)) -> str:
        """A command; returns its standard output. Its standard error, where progress is shown, passes through."""
        self.say(f"$ {words}")
        first, *rest = shlex.split(words)
        program = {"pot": [POT], "python": [sys.executable]}[first]
        began = time.monotonic()
        ended = subprocess.run(
            [*program, *rest], cwd=self.folder, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=False
        )
        self.seconds[" ".join([first, *rest[:1]])] = time.monotonic() - began
        if ended.returncode not in expect:
            sys.exit(f"{words}: exit code {ended.returncode}, expected {expect[0]}\n{ended.stdout}")
        return ended.stdout

    def say(self, text: str) -> None:
        """A line of the story."""
        print(text, file=sys.stderr, flush=True)

    def path(self, name: str) -> Path:
        """A file of the story's folder."""
        return self.folder / name


def new_folder(name: str, programs: Sequence[str]) -> Path:
    """A new folder, with copies of the example programs that run there."""
    folder = Path(name).resolve()
    if folder.exists():
        sys.exit(f"{folder}: exists already; name another folder with --out")
    folder.mkdir(parents=True)
    for program in programs:
        shutil.copy(HERE / program, folder)
    return folder


def digits() -> list[dict[str, Any]]:
    """scikit-learn's 1,797 digits as {"image": 8 rows of 8 numbers 0..16, "label": 0..9}, in one fixed random order."""
    import numpy as np
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target)).tolist()
    return [
        {"image": [[int(pixel) for pixel in row] for row in found.images[at]], "label": int(found.target[at])}
        for at in order
    ]


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """JSON lines, each in canonical form."""
    write_file(path, b"".join(canonical_bytes(record) + b"\n" for record in records))


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a file of JSON lines."""
    data = RecordDataset(path)
    return [dict(data[at]) for at in range(len(data))]


def load(model: Any, weights: Path) -> Any:
    """The module with these weights."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(str(weights)))
    return model


def accuracy(model: Any, records: Path) -> float:
    """The share of the records whose digit the module tells."""
    import torch

    test = read_records(records)
    images = torch.tensor([record["image"] for record in test], dtype=torch.float32).flatten(1) / 16
    labels = torch.tensor([record["label"] for record in test])
    with torch.no_grad():
        return float((model(images).argmax(dim=1) == labels).float().mean())


def identity(name: str, public: Path) -> str:
    """An entry of a policy's role."""
    key = textwrap.indent(public.read_text("utf-8").strip(), " " * 8)
    return f"    - name: {name}\n      public_key: |\n{key}"


def verdict(story: Story, model: str) -> dict[str, Any]:
    """The report of `pot verify` under the story's policy; a page of it lies in report.html."""
    words = f"pot verify {model} --policy policy.yaml --offline --report report.html --json"
    report: dict[str, Any] = json.loads(story.run(words, expect=(0, 1, 3)))
    return report


def told(report: dict[str, Any], claims: Sequence[str]) -> str:
    """Verdict and reason; where it is PASS, the sentences of these claims of the released model."""
    lines = [f"{report['verdict']}: {report['reason']}"]
    if report["verdict"] == "PASS":
        own = [item for item in report["claims"] if item["type"] in claims]
        lines += [f"  {item['level']}: {item['sentence']}" for item in own]
    return "\n".join(textwrap.fill(line, 110, subsequent_indent="    ") for line in lines)


class Forger:
    """Bends a copy of a release. It holds the developer's key: a forger without it fails at the signature already."""

    def __init__(self, release: Path, copy: Path, key: Path) -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(release, copy)
        self.folder = copy
        self._key = PrivateKey.load(key)
        weights = sha256_hex((copy / WEIGHTS_FILE).read_bytes())
        self._lines = split_lines((copy / CLAIMS_FILE).read_bytes())
        self._at, self._statement = next(
            (at, found)
            for at, found in enumerate(map(_statement, self._lines))
            if any(file["sha256"] == weights for file in found["predicate"].get("model", {}).get("files", ()))
        )

    def claim(self, kind: str) -> dict[str, Any]:
        """A claim of the certificate, to be changed in place."""
        found: dict[str, Any] = next(item for item in self._statement["predicate"]["claims"] if item["type"] == kind)
        return found

    def bend_object(self, sha256: str, bend: Callable[[dict[str, Any]], None]) -> str:
        """Change a JSON object of the evidence; returns the digest under which the bent one lies in the bundle."""
        value = json.loads((self.folder / OBJECTS_FOLDER / sha256).read_bytes())
        bend(value)
        return self.add(canonical_bytes(value))

    def add(self, data: bytes) -> str:
        """Put an object into the bundle; returns its digest."""
        sha256 = sha256_hex(data)
        write_file(self.folder / OBJECTS_FOLDER / sha256, data)
        return sha256

    def weight(self) -> None:
        """Flip the lowest bit of the last byte of the weights."""
        data = bytearray((self.folder / WEIGHTS_FILE).read_bytes())
        data[-1] ^= 1
        write_file(self.folder / WEIGHTS_FILE, bytes(data))

    def release(self, data: bytes) -> None:
        """Other weights, with file list, subject and operation as if they had been certified."""
        predicate, old = self._statement["predicate"], sha256_hex((self.folder / WEIGHTS_FILE).read_bytes())
        write_file(self.folder / WEIGHTS_FILE, data)
        files = model_files(self.folder)
        predicate["model"] |= {"files": [file.model_dump() for file in files], "names_blake3": names_digest(files)}
        self._statement["subject"][0]["digest"]["sha256"] = model_digest(files)
        for operation in predicate["operations"]:
            if operation["output_sha256"] == old:
                operation["output_sha256"] = sha256_hex(data)

    def sign_again(self) -> None:
        """Put the changed certificate in the place of the honest one, with the developer's good signature."""
        statement = Statement.from_payload(canonical_bytes(self._statement), what=CLAIMS_FILE)
        self._lines[self._at] = sign_statement(statement, self._key)
        write_file(self.folder / CLAIMS_FILE, join_lines(self._lines))


def _statement(line: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SigstoreBundle.from_line(line, what=CLAIMS_FILE).dsse_envelope.payload_bytes())
    return found
