"""Errors as RFC 9457 problem details (`application/problem+json`).

A verdict is not an error: DENY and INCOMPLETE are answered with 200 and the report.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from pot.canonical import canonical_bytes
from pot.errors import EnvironmentFailure, LimitExceeded, PotError, UsageError

__all__ = ["MEDIA_TYPE", "Problem", "answer_problems", "problem"]

MEDIA_TYPE: Final = "application/problem+json"
_LOG = logging.getLogger("verifier_api")


class Problem(Exception):
    """A request that cannot be served: `status` and one sentence, with further response headers."""

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def problem(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> Response:
    """The response for `status`. `detail` loses what must not reach a terminal."""
    from attest.plaintext import clean

    # RFC 9457 4.2.1: without a type of its own, a problem is "about:blank" and its title is the status phrase
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": clean(detail)}
    return Response(canonical_bytes(body), status.value, headers, MEDIA_TYPE)


def answer_problems(app: FastAPI) -> None:
    """Make every error of `app` a problem document, also those of the framework."""

    @app.exception_handler(Problem)
    async def _own(request: Request, error: Problem) -> Response:
        return problem(error.status, error.detail, error.headers)

    @app.exception_handler(PotError)
    async def _pot(request: Request, error: PotError) -> Response:
        return problem(_status(error), str(error))

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        return problem(status, f"{request.method} {request.url.path}: {status.phrase}", dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        _LOG.error("internal error", exc_info=error)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "internal error; this is a defect of the service, not a verdict about the release bundle",
        )


def _status(error: PotError) -> HTTPStatus:
    if isinstance(error, LimitExceeded):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if isinstance(error, UsageError):
        return HTTPStatus.BAD_REQUEST
    if isinstance(error, EnvironmentFailure):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.INTERNAL_SERVER_ERROR
