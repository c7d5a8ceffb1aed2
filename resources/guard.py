"""Which requests Dagster's web server answers: those of its own pages and of programs on this machine.

Belongs here: an ASGI middleware that looks at a request's headers. Not here: the server (`resources.ui`), passwords.

Dagster checks neither Host nor Origin, and its GraphQL runs mutations by GET: without this, any page that a person has
open could launch a job, by an image's address, by a form, by a web socket, or by a name that resolves to 127.0.0.1.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_OWN = frozenset({"same-origin", "none"})
"""Sec-Fetch-Site of what the server's own pages ask for, and of what a person types."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_POLICY_VIOLATION = 1008


class Guard:
    """Passes on requests whose Host is a loopback name or one of `hosts` and that no other site's page has sent."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = LOOPBACK_NAMES | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused with 403 and a sentence; a web socket is closed before it is accepted."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        why = self._refusal(scope)
        if why is None:
            await self._app(scope, receive, _unframed(send))
        elif scope["type"] == "http":
            await PlainTextResponse(f"{why}\n", status_code=403)(scope, receive, send)
        else:
            await receive()  # the connection's request, which must be taken before it is declined
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})

    def _refusal(self, scope: Scope) -> str | None:
        """Why the request is not answered; None if it is."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or _name(hosts[0]) not in self._hosts:
            return "The Host of this request is no name of this server: see docs/running.md, --allowed-host."
        if origins and (len(origins) > 1 or _place(origins[0]) != hosts[0].lower()):
            return "A page of another origin has sent this request."
        if not _OWN.issuperset(headers.getlist("sec-fetch-site")) and not _opens_a_page(scope, headers):
            return "A page of another site has sent this request."
        if scope["type"] == "http" and scope["method"] in _READING and _is_graphql(scope["path"]):
            return "GraphQL is answered to POST alone."
        return None


def _name(host: str) -> str | None:
    """The name in a Host header without its port, lower case; None if the header is no host and port."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    if parts.netloc != host or parts.username is not None:
        return None
    return parts.hostname


def _place(origin: str) -> str | None:
    """Host and port of an Origin header, lower case; None if the header is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _opens_a_page(scope: Scope, headers: Headers) -> bool:
    """Whether a person follows a link to here: nothing is changed by it, and no other page reads the answer."""
    fetched = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} and fetched == ("navigate", "document")


def _is_graphql(path: str) -> bool:
    return path.rstrip("/").lower().endswith("/graphql")


def _unframed(send: Send) -> Send:
    """`send`, with a header that keeps other sites from showing the pages within theirs."""

    async def with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Frame-Options"] = "SAMEORIGIN"
        await send(message)

    return with_header
