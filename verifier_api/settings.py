"""What the operator of the service decides when it starts; a request changes none of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from attest.verdict.policy import Policy

__all__ = ["DEFAULT_MAX_BYTES", "Settings", "cores"]

DEFAULT_MAX_BYTES: Final = 1 << 30  # the total cap of a release bundle


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """The service's policy and limits.

    `max_bytes`: of an upload, and of all files unpacked from it. `verifications`: run at the same time, each in a
    thread. `requests`: uploads and verifications together; one more is answered with 503, so that disk use is at most
    `2 * requests * max_bytes`. `receive_seconds`: within which an upload must arrive whole.
    """

    policy: Policy
    policy_bytes: bytes
    max_bytes: int = DEFAULT_MAX_BYTES
    verifications: int = field(default_factory=cores)
    requests: int = 16
    receive_seconds: float = 600.0
