"""An honest release bundle from the honest run, its policy, and a forgery of it: fixtures for the tests that verify."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from attest.certify import certify
from attest.trust.keys import PrivateKey, generate
from attest.verdict.operations import apply_operation
from pot.commitments.state import entries_from_safetensors

__all__ = ["developer", "forged", "honest", "policy_file"]


@pytest.fixture(scope="session")
def developer() -> PrivateKey:
    """The key that signs the honest release."""
    return generate()


@pytest.fixture(scope="session")
def policy_file(developer: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that believes the developer and requires training provenance at the level `committed`."""
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    policy = {
        "version": "pot/policy/v1",
        "roles": {"developer": [{"name": "developer", "public_key": developer.public.pem().decode()}]},
        "require": [{"claim": "training-provenance", "level": "committed"}],
    }
    path.write_text(json.dumps(policy))  # YAML 1.2 contains JSON
    return path


@pytest.fixture(scope="session")
def honest(finished_run: Any, developer: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release bundle that passes; not to be changed."""
    folder = tmp_path_factory.mktemp("honest-release") / "toy"
    folder.mkdir()
    last = max((finished_run.run_dir / "checkpoints").iterdir())
    trained = entries_from_safetensors((last / "model.safetensors").read_bytes())
    released = {
        entry.name: np.frombuffer(bytes(entry.data), "<f4").reshape(entry.shape)
        for entry in apply_operation("dequantise/1", trained)  # the run is exact: its weights are integers
    }
    save_file(released, folder / "model.safetensors")
    certify(folder, finished_run.run_dir, developer, commitments=[finished_run.folder / "train.json"])
    return folder


@pytest.fixture(scope="session")
def forged(honest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one bit of the weights flipped."""
    folder = tmp_path_factory.mktemp("forged-release") / "toy"
    shutil.copytree(honest, folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    return folder
