"""`python -m resources.ui` serves Dagster's pages on this machine and runs the daemon.

Not here: which requests are rejected (`resources.request_guard`).

It replaces `dagster dev`, whose web server accepts requests from any site.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import uvicorn
import yaml
from dagster import DagsterInstance
from dagster._cli.proxy_server_manager import ProxyServerManager
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._serdes import serialize_value
from dagster_shared.ipc import get_ipc_shutdown_pipe, open_ipc_subprocess, send_ipc_shutdown_message
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver
from starlette.applications import Starlette
from starlette.middleware import Middleware

from pipeline.command import command
from resources.instance import refuse_home
from resources.port import LOOPBACK, refuse_taken
from resources.request_guard import RequestGuard

STATEMENT_TIMEOUT, POOL_RECYCLE, POOL_OVERFLOW = 15_000, 3_600, 20
"""Settings of the web server's database connections, as in `dagster-webserver`: milliseconds, seconds, connections."""
POLL_RATE = 2000
"""Milliseconds between two updates of a page's assets, as in `dagster dev`."""
STOP_SECONDS = 60
"""Seconds to wait for the daemon to stop."""


class GuardedWebserver(DagsterWebserver):  # type: ignore[type-arg]
    """Dagster's web server behind `RequestGuard`."""

    def __init__(self, context: WorkspaceProcessContext, hosts: Sequence[str]) -> None:
        self._allowed_hosts = hosts
        super().__init__(context, live_data_poll_rate=POLL_RATE)

    def build_middleware(self) -> list[Middleware]:
        """The guard, then Dagster's own middleware."""
        return [Middleware(RequestGuard, hosts=self._allowed_hosts), *super().build_middleware()]


@command
def main(arguments: list[str]) -> None:
    """Serve until Ctrl-C; exit code 1 and a sentence if the port is in use."""
    options = _parser().parse_args(arguments)
    refuse_taken(options.port)
    refuse_home(os.environ.get("DAGSTER_HOME", ""))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a service manager stops the daemon, too
    os.environ["DAGSTER_IS_DEV_CLI"] = "" if options.without_daemon else "1"
    with (
        DagsterInstance.get() as instance,
        _code_servers(instance, options.workspace) as workspace,
        nullcontext() if options.without_daemon else _daemon(instance, workspace),
    ):
        _serve(instance, workspace, options.port, options.allowed_host)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m resources.ui", description="Dagster's pages and daemon.")
    parser.add_argument("--port", type=int, default=3000, help="default: %(default)s")
    parser.add_argument("--workspace", default="workspace.yaml", help="default: %(default)s")
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host name under which your reverse proxy serves the pages, without port; may be repeated",
    )
    parser.add_argument("--without-daemon", action="store_true", help="if the daemon is a separate service")
    return parser


@contextmanager
def _code_servers(instance: DagsterInstance, workspace: str) -> Iterator[str]:
    """Start the servers that load the definitions; yields a workspace file with their addresses."""
    with (
        ProxyServerManager(instance, WorkspaceFileTarget([workspace]), "warning") as servers,
        TemporaryDirectory() as t,
    ):
        path = Path(t, "workspace.yaml")
        path.write_text(yaml.safe_dump({"load_from": servers.get_code_server_specs()}), encoding="utf-8")
        yield str(path)


def _serve(instance: DagsterInstance, workspace: str, port: int, hosts: Sequence[str]) -> None:
    instance.optimize_for_webserver(STATEMENT_TIMEOUT, POOL_RECYCLE, POOL_OVERFLOW)
    with WorkspaceProcessContext(instance, WorkspaceFileTarget([workspace]), version=__version__) as context:
        print(f"Dagster's pages: http://{LOOPBACK}:{port} (stop with Ctrl-C)", flush=True)
        uvicorn.run(app(context, hosts), host=LOOPBACK, port=port, log_level="warning")


def app(context: WorkspaceProcessContext, hosts: Sequence[str] = ()) -> Starlette:
    """The web application of the workspace `context`, also served under the names `hosts`."""
    return GuardedWebserver(context, hosts).create_asgi_app()


@contextmanager
def _daemon(instance: DagsterInstance, workspace: str) -> Iterator[None]:
    """Run Dagster's daemon in the block; if it stops by itself, this process stops as by Ctrl-C."""
    read, write = get_ipc_shutdown_pipe()
    reference = serialize_value(instance.get_ref())
    arguments = ["--workspace", workspace, "--instance-ref", reference, "--shutdown-pipe", str(read)]
    daemon = open_ipc_subprocess([sys.executable, "-m", "dagster._daemon", "run", *arguments], pass_fds=[read])
    stopping = Event()
    Thread(target=_stop_with, args=(daemon, stopping), daemon=True).start()
    try:
        yield
    finally:
        stopping.set()
        send_ipc_shutdown_message(write)
        try:
            daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()


def _stop_with(daemon: "subprocess.Popen[bytes]", stopping: Event) -> None:
    daemon.wait()
    if not stopping.is_set():
        print(f"Dagster's daemon has stopped by itself (exit code {daemon.returncode}).", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
