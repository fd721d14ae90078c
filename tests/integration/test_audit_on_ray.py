"""An audit spread over a real Ray cluster: the same outcomes as here, in the same document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ray_cluster import cluster_of

from pot.audit.audit import audit
from pot.audit.challenges.challenge import new_challenge
from pot.errors import EnvironmentFailure


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with cluster_of(2) as made:
        yield made


def test_a_cluster_gives_the_same_result(recorded: Any, cluster: Any) -> None:
    recorded.bend_tensors(15, "model", lambda values: [values[0] + 1, *values[1:]])
    challenge = new_challenge(
        recorded.precommit.sha256(), recorded.transcript.sha256(), 6, forged="0.2", detect="1", nonce="03" * 32
    )
    data, code = [recorded.folder / "train.jsonl"], recorded.folder
    here = audit(recorded.run_dir, challenge, data, code, workers=2)
    there = audit(recorded.run_dir, challenge, data, code, ray=cluster.address)
    assert there == here
    assert {unit.outcome for unit in there.replays} == {"MATCH", "MISMATCH"}


def test_no_cluster_is_one_sentence(finished_run: Any) -> None:
    challenge = new_challenge(
        finished_run.precommit.sha256(), finished_run.transcript.sha256(), 6, forged="0.5", nonce="03" * 32
    )
    done: list[tuple[str, int, int]] = []
    with pytest.raises(EnvironmentFailure, match=r"Ray cluster 127\.0\.0\.1:1: cannot be reached"):
        audit(
            finished_run.run_dir, challenge, [finished_run.folder], finished_run.folder, ray="127.0.0.1:1",
            progress=lambda *words: done.append(words),
        )  # fmt: skip
    assert done == []  # found out before any data is read or segment screened
