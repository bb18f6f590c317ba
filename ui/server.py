"""The web server: own routes, Gradio's page, and what keeps strangers out of a local program."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from saadi.errors import BadInputError
from ui import feedback, routes
from ui.context import Context, person

MAX_BODY_BYTES = 16 * 2**20
"""A drawn label map is 1-10 kB; incompressible noise at 1920 x 1920 is 5 MB in base64."""
PAGE_PATH = "/app"
PERSON_HEADER = "x-saadi-person"
"""Percent-encoded name of who sits at the page; no proof of identity, as all of them use one account of the computer."""
MAX_PERSON_LENGTH = 60
UNUSED = tuple(f"{PAGE_PATH}/gradio_api/{name}" for name in ("upload", "file", "proxy", "stream"))
"""What Gradio could do with files; our pages never ask for it."""
# 'unsafe-eval': Gradio builds the start code of HTML components with `new Function`.
CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; frame-ancestors 'none'; form-action 'self'"
)
HEADERS = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class TooLarge(Exception):
    """A body without a declared length turned out too long."""


class Guard:
    """Refuses what comes from other sites and bodies that are too large; adds security headers.

    Pure ASGI, since `BaseHTTPMiddleware` would buffer event streams. Other origins are refused with every method, GET
    included; only opening the page itself by a link is allowed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        if reason := refusal(scope["method"], scope["path"], headers):
            await _refuse(send, *reason)
            return
        is_json = scope["path"].startswith("/api/")

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"cache-control", b"no-store")] if is_json else []
                message["headers"] = [*message["headers"], *HEADERS, *extra]
            await send(message)

        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise TooLarge
            return message

        token = person.set(unquote(headers.get(PERSON_HEADER, "")) or None)
        try:
            await self.app(scope, receive_bounded, send_guarded)
        except TooLarge:
            await _refuse(send, 413, b"body too large")
        finally:
            person.reset(token)


def refusal(method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes] | None:
    """Why a request is refused (status, words), or None."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return 403, b"request from another site refused"
    opens_page = (
        method == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and path in ("/", PAGE_PATH, f"{PAGE_PATH}/")
    )
    if site in ("cross-site", "same-site") and not opens_page:
        return 403, b"request from another site refused"
    if path.startswith(UNUSED):
        return 404, b"not part of this program"
    name = unquote(headers.get(PERSON_HEADER, ""))
    if len(name) > MAX_PERSON_LENGTH or not name.isprintable() or name != name.strip():
        return 400, b"the reviewer's name must be plain text of at most 60 characters; choose it again at the top of the page"
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        return 413, b"body too large"
    return None


async def _refuse(send: Send, status: int, words: bytes) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"text/plain"), (b"connection", b"close")],
        }
    )
    await send({"type": "http.response.body", "body": words})


def check_host(host: str) -> str:
    """Return a loopback host unchanged.

    Raises:
        BadInputError: Any other address: there are no accounts yet.
    """
    if host == "localhost":
        return host
    try:
        if ipaddress.IPv4Address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise BadInputError(
        f"--host {host} would let other computers in, and there are no accounts yet (they come with a later release); "
        "use 127.0.0.1 and, from elsewhere, an SSH tunnel"
    )


def build_app(context: Context, *, with_page: bool = True) -> FastAPI:
    """Return the application.

    Args:
        with_page: False leaves Gradio out (4 s of imports), for tests of the routes.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    feedback.install(app)
    app.include_router(routes.build_router(context))

    @app.get("/")
    def root() -> RedirectResponse:
        return RedirectResponse(f"{PAGE_PATH}/", 303)

    if with_page:
        app = _mounted(app, context)
    app.add_middleware(Guard)
    # Against DNS rebinding: a page elsewhere that points its own name at 127.0.0.1 sends that name here.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    return app


def _mounted(app: FastAPI, context: Context) -> FastAPI:
    temporary = context.home.path / "tmp"
    temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(temporary)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr  # after the settings above, which it reads while it is imported

    from ui import page

    blocks = page.build_page(context)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        blocks,
        path=PAGE_PATH,
        theme=page.theme(),
        head=page.head(context),
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size="1mb",
        show_error=False,
    )
    return mounted
