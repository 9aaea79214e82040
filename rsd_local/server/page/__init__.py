"""The page at ``/``: one HTML file with its style and script inside, and KaTeX beside it.

Everything comes from this server: the policy that goes with the page lets a browser ask nothing else, run no script but the page's
own and KaTeX's, and take no string for HTML.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rsd_local.server.errors import NoSuchRoute

PREFIX = "/page/"
"""What the addresses of the page's files begin with."""
_KINDS = {".js": "text/javascript", ".css": "text/css", ".woff2": "font/woff2"}
_HEADERS = {
    "cache-control": "no-cache",  # asked again each time, and answered by 304 where nothing changed
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


def is_public(path: str) -> bool:
    """Whether an address is the page or one of its files, which say nothing of the trio and need no key."""
    return path == "/" or path.startswith(PREFIX)


def page_routes() -> list[BaseRoute]:
    """The page, and its files."""
    return [Route("/", _page, methods=["GET"]), Route(PREFIX + "{name:path}", _file, methods=["GET"])]


def policy(html: str) -> str:
    """The Content-Security-Policy of a page.

    Args:
        html: it, with one style and one script inside.
    """
    style, script = (_hash(re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)) for tag in ("style", "script"))
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' {script}",
            f"style-src 'self' {style}",
            "font-src 'self'",
            "img-src data:",  # the icon, which is in the page
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


async def _page(request: Request) -> Response:
    html = _content("index.html")
    return _response(request, html, "text/html; charset=utf-8", {"content-security-policy": _policy()})


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _names():
        raise NoSuchRoute("nothing is at this address", hint="the page is at /")
    kind = _KINDS[name[name.rindex(".") :]]
    return _response(request, _content(name), kind, {})


def _response(request: Request, content: bytes, kind: str, headers: dict[str, str]) -> Response:
    """A file, or that the browser has it already."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = _HEADERS | headers | {"etag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers | {"content-type": kind})


def _hash(found: list[str]) -> str:
    (text,) = found
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _policy() -> str:
    return policy(_content("index.html").decode())


@cache
def _content(name: str) -> bytes:
    """A file of the page's folder."""
    content = files(__package__).joinpath(*name.split("/")).read_bytes()
    return content if name.endswith(".woff2") else content.replace(b"\r\n", b"\n")  # a browser hashes a script with such lines


@cache
def _names() -> frozenset[str]:
    """The files that are served, by their paths in the page's folder."""

    def inside(folder: Traversable, before: str) -> list[str]:
        found = []
        for one in folder.iterdir():
            found += inside(one, f"{before}{one.name}/") if one.is_dir() else [before + one.name]
        return found

    return frozenset(name for name in inside(files(__package__), "") if name.endswith(tuple(_KINDS)))
