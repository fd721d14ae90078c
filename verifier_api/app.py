"""The verdict over HTTP: the same report as `pot verify --json`, from the same function.

`POST /v1/verify` takes a release bundle as a tar (`application/x-tar`) or a compressed tar (`application/gzip`) and
answers with the report; DENY and INCOMPLETE are answers, not errors. `GET /v1/policy` shows the policy that decides,
which the operator chose and no request can change. `GET /healthz` says that the service runs. Errors are problem
documents.

Shows: what `attest.verdict` shows, under the operator's policy.
Does not show: anything to a caller who does not trust the operator; such a caller runs `pot verify`.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from attest.bundle import read_release
from attest.verdict.policy import Policy
from attest.verdict.verify import verify
from pot import __version__
from pot.errors import EnvironmentFailure, PotError, Refused
from verifier_api.archive import unpack
from verifier_api.problems import MEDIA_TYPE, Problem, answer_problems
from verifier_api.settings import Settings

__all__ = ["create_app"]

COMPRESSED: Final = {
    "application/x-tar": False,
    "application/gzip": True,
    "application/x-gzip": True,
    "application/x-gtar-compressed": True,
}
"""The media types of an upload, and whether each is compressed."""

_BUFFER: Final = 1 << 20  # bytes gathered before they go to the disk


def create_app(settings: Settings) -> FastAPI:
    """The service with these settings."""
    # no interactive pages: they load scripts from elsewhere
    app = FastAPI(title="pot verifier", version=__version__, docs_url=None, redoc_url=None)
    answer_problems(app)
    verifications = CapacityLimiter(settings.verifications)
    requests = asyncio.Semaphore(settings.requests)

    @app.middleware("http")
    async def _headers(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["cache-control"] = "no-store"
        response.headers["x-content-type-options"] = "nosniff"
        return response

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Says that the service runs."""
        return JSONResponse({"status": "ok", "version": __version__})

    @app.get("/v1/policy", response_class=Response, responses={200: {"content": {"application/yaml": {}}}})
    async def policy() -> Response:
        """The policy file, as the operator gave it."""
        return Response(settings.policy_bytes, media_type="application/yaml")

    @app.post("/v1/verify", response_class=Response, responses=_RESPONSES, openapi_extra=_REQUEST)
    async def verify_release(request: Request) -> Response:
        """Verify a release bundle and answer with the report."""
        compressed = _accepted(request, settings.max_bytes)
        async with _place(requests), _folder() as folder:
            upload = folder / "upload"
            await _receive(request, upload, settings)
            report = await to_thread.run_sync(_judge, upload, compressed, settings, limiter=verifications)
        return Response(report, media_type="application/json")

    return app


def _judge(upload: Path, compressed: bool, settings: Settings) -> bytes:
    """Unpack, read, verify; the report's bytes. Runs in a thread of its own."""
    unpacked = upload.parent / "release"
    try:
        unpacked.mkdir()
        folder = unpack(upload, unpacked, compressed=compressed, limit=settings.max_bytes)
        upload.unlink()
        return verify_folder(folder, settings.policy)
    except PotError as error:
        # the caller's paths, not those of this machine
        detail = str(error).replace(f"{unpacked}/", "").replace(str(unpacked), "the release bundle")
        if isinstance(error, Refused):
            raise EnvironmentFailure(detail) from error
        raise type(error)(detail) from error
    except (OSError, MemoryError) as error:
        raise EnvironmentFailure(f"the service lacks room or memory: {getattr(error, 'strerror', '')}") from error


def verify_folder(folder: Path, policy: Policy) -> bytes:
    """The report on the release bundle in `folder`: the bytes that `pot verify --json` prints."""
    return verify(read_release(folder), policy).to_bytes() + b"\n"


def _accepted(request: Request, max_bytes: int) -> bool:
    """Whether the upload is compressed; refuses by the headers alone what cannot be taken."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type not in COMPRESSED:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"send the release bundle as one of {', '.join(COMPRESSED)}, not as {media_type[:80] or 'nothing named'}",
            {"accept-post": ", ".join(COMPRESSED)},
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-encoding is not supported; send application/gzip")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and (len(length) > 18 or int(length) > max_bytes):
        raise _too_large(max_bytes)
    return COMPRESSED[media_type]


async def _receive(request: Request, upload: Path, settings: Settings) -> None:
    """Stream the body to disk, within the limits of size and time."""
    try:
        async with asyncio.timeout(settings.receive_seconds):
            with upload.open("xb") as out:
                count, buffer = 0, bytearray()
                async for chunk in request.stream():
                    count += len(chunk)
                    if count > settings.max_bytes:
                        raise _too_large(settings.max_bytes)
                    buffer += chunk
                    if len(buffer) >= _BUFFER:
                        await to_thread.run_sync(out.write, bytes(buffer))
                        buffer.clear()
                out.write(buffer)
    except TimeoutError:
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT, f"the upload took more than {settings.receive_seconds:g} seconds"
        ) from None
    except ClientDisconnect:
        raise Problem(HTTPStatus.BAD_REQUEST, "the upload ended early") from None
    except OSError as error:
        raise EnvironmentFailure(f"the upload could not be stored: {error.strerror}") from error
    if count == 0:
        raise Problem(HTTPStatus.BAD_REQUEST, "the request has no body; send a release bundle as a tar")


def _too_large(limit: int) -> Problem:
    # the rest of the body stays unread, so the connection cannot be used again
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the upload has more than the limit of {limit} bytes",
        {"connection": "close"},
    )


@asynccontextmanager
async def _place(requests: asyncio.Semaphore) -> AsyncIterator[None]:
    """One of the places for requests in work; refuses at once when all are taken, so that none queues with its body."""
    if requests.locked():
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "too many verifications at the same time; try again", {"retry-after": "5"}
        )
    async with requests:
        yield


@asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    """A private folder that is gone afterwards, whatever happened."""
    folder = await to_thread.run_sync(_make_folder)
    try:
        yield Path(folder.name)
    finally:
        await to_thread.run_sync(folder.cleanup)


def _make_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="pot-verify-", ignore_cleanup_errors=True)
    except OSError as error:
        raise EnvironmentFailure(f"the service has no room for an upload: {error.strerror}") from error


_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {name: {"schema": {"type": "string", "format": "binary"}} for name in COMPRESSED},
    }
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The report: PASS, DENY or INCOMPLETE", "content": {"application/json": {}}},
    **{
        status.value: {"description": status.phrase, "content": {MEDIA_TYPE: {}}}
        for status in (
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            HTTPStatus.SERVICE_UNAVAILABLE,
        )
    },
}
