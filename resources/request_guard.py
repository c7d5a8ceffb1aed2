"""ASGI middleware that rejects requests to Dagster's web server from other sites.

Not here: the server (`resources.ui`).

Dagster checks neither Host nor Origin, and its GraphQL endpoint runs mutations by GET. Without this middleware, any
page open in a browser could launch a job: by an image's address, a form, a web socket, or a name that resolves to
127.0.0.1.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_OWN = frozenset({"same-origin", "none"})
"""Sec-Fetch-Site of requests by the server's own pages, and of addresses that a person typed."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_POLICY_VIOLATION = 1008


class RequestGuard:
    """Passes on requests to a loopback name or one of `hosts` that no other site's page has sent."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = LOOPBACK_NAMES | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a rejected request with 403 and the reason; close a web socket before accepting it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        why = self._refusal(scope)
        if why is None:
            await self._app(scope, receive, _unframed(send))
        elif scope["type"] == "http":
            await PlainTextResponse(f"{why}\n", status_code=403)(scope, receive, send)
        else:
            await receive()  # the connection request, required before a close
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})

    def _refusal(self, scope: Scope) -> str | None:
        """Why the request is rejected; None if it is not."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or _name(hosts[0]) not in self._hosts:
            return "The Host header does not name this server: see docs/running.md, --allowed-host."
        if origins and (len(origins) > 1 or _host_and_port(origins[0]) != hosts[0].lower()):
            return "A page of another origin has sent this request."
        if not _OWN.issuperset(headers.getlist("sec-fetch-site")) and not _opens_a_page(scope, headers):
            return "A page of another site has sent this request."
        if scope["type"] == "http" and scope["method"] in _READING and _is_graphql(scope["path"]):
            return "GraphQL accepts only POST."
        return None


def _name(host: str) -> str | None:
    """The lower-case name in a Host header, without port; None if the header is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises ValueError if it is not a number
    except ValueError:
        return None
    if parts.netloc != host or parts.username is not None:
        return None
    return parts.hostname


def _host_and_port(origin: str) -> str | None:
    """Lower-case host and port of an Origin header; None if the header is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _opens_a_page(scope: Scope, headers: Headers) -> bool:
    """Whether a person follows a link: it changes nothing, and no other page can read the response."""
    fetched = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} and fetched == ("navigate", "document")


def _is_graphql(path: str) -> bool:
    return path.rstrip("/").lower().endswith("/graphql")


def _unframed(send: Send) -> Send:
    """`send` with a header that keeps other sites from framing the pages."""

    async def with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Frame-Options"] = "SAMEORIGIN"
        await send(message)

    return with_header
