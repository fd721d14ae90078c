"""`pot serve`: added to the command line through the entry-point group `pot.commands`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

import typer

from attest.cli.terminal import say
from pot.errors import EnvironmentFailure, MissingExtra, UsageError

__all__ = ["register"]

_BACKLOG: Final = 128
_KEEP_ALIVE_SECONDS: Final = 5
_SHUTDOWN_SECONDS: Final = 30


def register(app: typer.Typer) -> None:
    """Add `pot serve`."""

    @app.command()
    def serve(
        policy: Path = typer.Option(..., "--policy", help="The policy that decides; requests cannot change it."),
        host: str = typer.Option("127.0.0.1", "--host", help="Address to listen on."),
        port: int = typer.Option(8000, "--port", min=0, max=65535, help="Port to listen on; 0 takes a free one."),
        max_bytes: int = typer.Option(
            1 << 30, "--max-bytes", min=1, help="Largest upload, and largest sum of the files in it."
        ),
    ) -> None:
        """Answer POST /v1/verify with the report of pot verify --json.

        Speaks HTTP without encryption or accounts; put a reverse proxy before it to publish it.

        Example: pot serve --policy policy.yaml --port 8000
        """
        _serve(policy, host, port, max_bytes)


def _serve(policy_path: Path, host: str, port: int, max_bytes: int) -> None:
    try:
        import uvicorn

        from verifier_api.app import create_app
    except ImportError as error:
        if (error.name or "").split(".")[0] in ("uvicorn", "fastapi", "starlette", "anyio"):
            raise MissingExtra("server", "pot serve") from None
        raise
    from attest.verdict.policy import read_policy
    from attest.verdict.yaml_subset import MAX_YAML_BYTES
    from pot.canonical import read_file
    from verifier_api.settings import Settings

    data = read_file(policy_path, limit=MAX_YAML_BYTES)
    app = create_app(Settings(policy=read_policy(data, what=str(policy_path)), policy_bytes=data, max_bytes=max_bytes))
    listening = _listen(host, port)
    address = f"[{host}]" if ":" in host else host
    say(f"pot: serving POST /v1/verify on http://{address}:{listening.getsockname()[1]}; stop with Ctrl-C")
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        ws="none",
        lifespan="off",
    )
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (socket.gaierror, UnicodeError):
        raise UsageError(f"--host {host}: not an address of this machine") from None
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with --port"
        ) from None
