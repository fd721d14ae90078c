"""Evidence: what a training run leaves behind, and how it is proven. Knows nothing of signatures or HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pot.recording.recorder import begin as begin
    from pot.recording.recorder import record as record

__all__ = ["__version__", "begin", "record"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`record` and `begin` load their module on first use, so that `import pot` stays light."""
    if name in ("begin", "record"):
        from pot.recording import recorder

        return getattr(recorder, name)
    raise AttributeError(f"module 'pot' has no attribute {name!r}")
