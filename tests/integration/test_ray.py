"""Commitments on a real Ray cluster of two worker nodes: the same roots as here, also when a node is killed midway."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import cluster_of

from pot.data.commit import commit
from pot.errors import EnvironmentFailure, Malformed

SHARDS = 12


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(SHARDS):
        lines = (json.dumps({"text": f"record {number} {line} " * 9}) + "\n" for line in range(6000))
        (folder / f"{number:03d}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def cluster() -> Iterator[Any]:
    with cluster_of(1, 1) as made:
        yield made


def test_a_node_killed_midway_changes_nothing(shards: Path, cluster: Any) -> None:
    expected = commit([shards], "text/1").commitment
    seen: list[int] = []
    killed = threading.Event()

    def kill_after_the_first_shard(done: int, total: int) -> None:
        seen.append(done)
        if not killed.is_set() and 0 < done < total:
            killed.set()
            cluster.remove_node(cluster.worker_nodes and sorted(cluster.worker_nodes, key=str)[0], allow_graceful=False)

    found = commit([shards], "text/1", progress=kill_after_the_first_shard, ray=cluster.address).commitment
    assert killed.is_set()
    assert len([done for done in seen if done < max(seen)]) > 1
    assert found == expected


def test_an_error_on_the_cluster_names_the_shard(tmp_path: Path, cluster: Any) -> None:
    (tmp_path / "good.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "bad.jsonl").write_text('{"text": "one"}\n{"text": \n')
    with pytest.raises(Malformed, match=r"bad\.jsonl line 2"):
        commit([tmp_path], "text/1", ray=cluster.address)


def test_no_cluster_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    with pytest.raises(EnvironmentFailure, match=r"Ray cluster 127\.0\.0\.1:1: cannot be reached"):
        commit([tmp_path], "text/1", ray="127.0.0.1:1")
