"""The public vectors of transparency-dev/merkle (see SOURCES.md there): each verdict must be `wantErr`'s."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from pot.commitments.hashing import SHA256
from pot.commitments.merkle_verify import ProofRefused, verify_consistency, verify_inclusion

FOLDER = Path(__file__).parents[1] / "vectors" / "transparency-dev-merkle"
INCLUSION = sorted((FOLDER / "inclusion").rglob("*.json"))
CONSISTENCY = sorted((FOLDER / "consistency").rglob("*.json"))


def decoded(value: str | None) -> bytes:
    return base64.b64decode(value or "")


def refused(vector: dict[str, Any]) -> bool:
    path = [decoded(item) for item in vector["proof"] or []]
    try:
        if "leafIdx" in vector:
            leaf, root = decoded(vector["leafHash"]), decoded(vector["root"])
            verify_inclusion(leaf, vector["leafIdx"], vector["treeSize"], path, root, SHA256)
        else:
            old, new = decoded(vector["root1"]), decoded(vector["root2"])
            verify_consistency(vector["size1"], vector["size2"], path, old, new, SHA256)
    except ProofRefused:
        return True
    return False


def test_all_vectors_are_there() -> None:
    assert len(INCLUSION) == 98
    assert len(CONSISTENCY) == 98


@pytest.mark.parametrize("path", [*INCLUSION, *CONSISTENCY], ids=lambda path: str(path.relative_to(FOLDER)))
def test_vector(path: Path) -> None:
    vector = json.loads(path.read_text())
    assert refused(vector) is vector["wantErr"]
