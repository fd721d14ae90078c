"""A real Ray cluster on this machine: a head that computes nothing, and worker nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["cluster_of"]


@contextmanager
def cluster_of(*cpus: int) -> Iterator[Any]:
    """A cluster with one node for each number of CPUs; gone at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for count in cpus:
            made.add_node(num_cpus=count)
        made.wait_for_nodes()
        yield made
        made.shutdown()
