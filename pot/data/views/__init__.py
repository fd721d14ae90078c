"""Views: versioned projections of a record to the bytes, or to the keys, that are committed.

Spec: `specs/commitments.md`, "Containers and views"; `specs/views/`, one file per view. Numba and Pillow are loaded
where they are used, and not before.
"""

from __future__ import annotations

from pot.data.views.kernel import load_kernel
from pot.data.views.named import VIEWS, view_named
from pot.data.views.view import View, ViewName

__all__ = ["VIEWS", "View", "ViewName", "load_kernel", "view_named"]
