"""The views that there are, by name.

Spec: `specs/commitments.md`, "Containers and views". A view's bytes never change; another projection is another number.

Shows / does not show: the sentence of each view is what its absence shows.
"""

from __future__ import annotations

from typing import Final

from pot.data.views.content import file_bytes, json_bytes, text_bytes, token_bytes
from pot.data.views.minhash import band_keys
from pot.data.views.normalise import normalise
from pot.data.views.pixels import pixel_bytes
from pot.data.views.tiles import tiles
from pot.data.views.view import View
from pot.data.views.winnow import token_stream, winnowed
from pot.errors import UsageError

__all__ = ["VIEWS", "view_named"]

_ALL: Final = (
    View(
        "text/1", "text",
        "no record of X has the same text as a training record, byte for byte",
        text_bytes,
    ),
    View(
        "text-norm/1", "text",
        "no record of X has the same text as a training record after normalisation",
        text_bytes, normalise,
    ),
    View(
        "json/1", "object",
        "no record of X has the same JSON value as a training record",
        json_bytes,
    ),
    View(
        "tokens/1", "tokens",
        "no record of X has the same tokens as a training record",
        token_bytes,
    ),
    View(
        "pixels/1", "image",
        "no record of X has the same image as a training record, pixel for pixel",
        pixel_bytes,
    ),
    View(
        "file/1", "bytes",
        "no file of X has the same bytes as a training file",
        file_bytes,
    ),
    View(
        "tiles50/1", "text",
        "no record of X and no training record have a run of 99 or more bytes of normalised text in common",
        text_bytes, normalise, tiles,
    ),
    View(
        "winnow50/1", "text",
        "no record of X and no training record have a run of 50 or more bytes of normalised text in common",
        text_bytes, normalise, winnowed,
    ),
    View(
        "winnow50-tokens/1", "tokens",
        "no run of 50 or more tokens of X is in the training data, also across sequence boundaries within one shard",
        token_bytes, shard_stream=token_stream,
    ),
    View(
        "minhash/1", "text",
        "no record of X and no training record are an LSH candidate at the parameters of minhash/1",
        text_bytes, normalise, band_keys,
    ),
)  # fmt: skip

VIEWS: Final[dict[str, View]] = {view.name: view for view in _ALL}
"""Every view, by name."""


def view_named(name: str) -> View:
    """The view of that name. Raises `UsageError` naming the ones there are."""
    view = VIEWS.get(name)
    if view is None:
        raise UsageError(f"view {name[:64]!r} is not known; known views are {', '.join(sorted(VIEWS))}")
    return view
