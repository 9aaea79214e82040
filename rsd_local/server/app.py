"""The application: endpoints, and around them what every request goes through."""

from __future__ import annotations

import time
import uuid
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rsd_local.errors import RSDError
from rsd_local.server.access import access, shown_path
from rsd_local.server.errors import HeadersTooLarge, as_ours, code_of
from rsd_local.server.exchange import failure_response
from rsd_local.server.guard import Guard
from rsd_local.server.routes import Service, as_error, routes

MOST_HEADER_BYTES = 1 << 15
_ELSEWHERE = "other"


def make_app(service: Service, guard: Guard) -> ASGIApp:
    """The application.

    Args:
        service: what the endpoints work with.
        guard: which requests are taken.
    """

    async def failed(request: Request, error: Exception) -> Response:
        return service.failed(request, as_error(error) if isinstance(error, HTTPException) else as_ours(error))

    handlers: dict[Any, Any] = {RSDError: failed, HTTPException: failed}
    app: ASGIApp = _Guarded(Starlette(routes=routes(service), exception_handlers=handlers), guard)
    if guard.origins:
        app = CORSMiddleware(app, allow_origins=guard.origins, allow_methods=("GET", "POST"), allow_headers=("*",), max_age=600)
    return _Watched(app, service)


class _Guarded:
    """Lets through what the guard does."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADER_BYTES:
            raise HeadersTooLarge(f"the headers are larger than {MOST_HEADER_BYTES >> 10} KiB")
        self._guard.check(scope["path"], scope["method"], Headers(scope=scope))
        await self._app(scope, receive, send)


class _Watched:
    """Counts and logs each request, gives it a number, and says what went wrong outside of the endpoints."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._paths = {getattr(route, "path", "") for route in routes(service)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began, number, status = time.perf_counter(), f"req_{uuid.uuid4().hex}", 0
        facts: dict[str, Any] = {}
        scope.setdefault("state", {})["facts"] = facts

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = number
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            ours = as_ours(error)
            facts["error"] = code_of(ours)
            self._service.metrics.error(code_of(ours))
            if not status:
                await failure_response(ours)(scope, receive, sending)
        finally:
            seconds, path = time.perf_counter() - began, scope["path"]
            route = next((one for one in self._paths if one == path), "/v1/models" if path.startswith("/v1/models/") else _ELSEWHERE)
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else _ELSEWHERE
            self._service.metrics.request(route, method, status, seconds)
            client = scope.get("client")
            about = {"request": number, "client": client and client[0], "method": method, "path": shown_path(scope["raw_path"])}
            access(about | {"status": status, "ms": round(1000 * seconds, 1)} | facts)
