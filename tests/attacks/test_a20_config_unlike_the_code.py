"""A20: a pre-commitment whose configuration is not the one that the committed program uses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pot.canonical import canonical_bytes
from pot.errors import Malformed
from pot.recording.config import config_digest


def test_a_config_edited_under_its_digest_is_refused(recorded: Any) -> None:
    path = recorded.run_dir / "precommit.json"
    document = json.loads(path.read_bytes())
    document["config"]["rate"] = 1
    path.write_bytes(canonical_bytes(document))
    with pytest.raises(Malformed, match="config_blake3 is not the digest of config"):
        recorded.precommit  # noqa: B018


def test_a_consistent_other_config_does_not_replay(recorded: Any) -> None:
    path = recorded.run_dir / "precommit.json"
    document = json.loads(path.read_bytes())
    document["config"]["rate"] = 1
    document["config_blake3"] = config_digest(document["config"])
    path.write_bytes(canonical_bytes(document))
    assert recorded.codes()[0] == "start"  # the transcript names another pre-commitment
    replay = recorded.replay(1)
    assert replay.outcome == "MISMATCH"
    assert "configuration is not the committed one: rate: 1, now 3" in replay.detail
