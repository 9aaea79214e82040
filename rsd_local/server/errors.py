"""What goes wrong with a request, as HTTP says it: one table for the errors of rsd_local and for those of the server."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from rsd_local.errors import (
    Cancelled,
    Closed,
    ConfigError,
    ContextFull,
    DoesNotFit,
    EngineError,
    ModelError,
    QuestionRefused,
    QueueFull,
    RemoteBusy,
    RemoteError,
    RSDError,
    SandboxTooWeak,
    VerifierFailed,
)

log = logging.getLogger("rsd_local.server")


class BadField(ConfigError):
    """A field of a request that cannot be used.

    Args:
        message: what is wrong.
        param: the field's name.
        hint: what to give instead.
    """

    code = "invalid_value"

    def __init__(self, message: str, param: str | None = None, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.param = param


class Unsupported(BadField):
    """A field of OpenAI's that this server cannot honour."""

    code = "unsupported_parameter"


class NoSuchModel(BadField):
    """A model that is not served here."""

    code = "model_not_found"


class BadKey(RSDError):
    """A request without a key, or with a wrong one."""

    code = "invalid_api_key"


class NotAllowed(RSDError):
    """A Host or an Origin that is not served."""

    code = "not_allowed"


class NoSuchRoute(RSDError):
    """An address where nothing is."""

    code = "not_found"


class WrongMethod(RSDError):
    """A method that an address does not have.

    Args:
        message: what is wrong.
        allow: the methods that it has, as the header ``Allow`` names them.
        hint: what to do.
    """

    code = "method_not_allowed"

    def __init__(self, message: str, allow: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.allow = allow


class BodyTooLarge(RSDError):
    """A body of more bytes than are taken."""

    code = "body_too_large"


class HeadersTooLarge(RSDError):
    """Headers of more bytes than are taken."""

    code = "headers_too_large"


class BodyTooSlow(RSDError):
    """A body that did not come in time."""

    code = "request_timeout"


class Loading(RSDError):
    """The models are not loaded yet."""

    code = "loading"


class Stopping(RSDError):
    """The server takes no new work."""

    code = "stopping"


class TookTooLong(RSDError):
    """An answer that was not done in the time that one may take."""

    code = "timeout"


@dataclass(frozen=True, slots=True)
class Row:
    """How HTTP says an error.

    Attributes:
        status: of the response.
        kind: OpenAI's ``type``.
        code: OpenAI's ``code``; empty for the error's own.
    """

    status: int
    kind: str = "invalid_request_error"
    code: str = ""


_UNAVAILABLE, _OURS = "unavailable_error", "server_error"
TABLE: dict[type[RSDError], Row] = {
    NoSuchModel: Row(404),
    ConfigError: Row(400),
    QuestionRefused: Row(400),
    ContextFull: Row(400, code="context_length_exceeded"),
    BadKey: Row(401, "authentication_error"),
    NotAllowed: Row(403, "permission_error"),
    NoSuchRoute: Row(404),
    WrongMethod: Row(405),
    BodyTooSlow: Row(408),
    BodyTooLarge: Row(413),
    HeadersTooLarge: Row(431),
    QueueFull: Row(429, "rate_limit_error"),
    Loading: Row(503, _UNAVAILABLE),
    Stopping: Row(503, _UNAVAILABLE),
    Closed: Row(503, _UNAVAILABLE),
    Cancelled: Row(503, _UNAVAILABLE),
    DoesNotFit: Row(503, _UNAVAILABLE),
    TookTooLong: Row(504, _OURS),
    RemoteBusy: Row(503, _UNAVAILABLE),
    RemoteError: Row(502, _OURS),
    VerifierFailed: Row(500, _OURS),
    SandboxTooWeak: Row(500, _OURS),
    ModelError: Row(500, _OURS),
    EngineError: Row(500, _OURS),
    RSDError: Row(500, _OURS),
}
"""Errors, and how HTTP says them; what is not named has the row of the nearest class above it."""


def row_of(error: RSDError) -> Row:
    """How HTTP says an error."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def code_of(error: RSDError) -> str:
    """The error's stable name, as clients and figures have it."""
    return row_of(error).code or error.code


def body_of(error: RSDError) -> dict[str, Any]:
    """An error in OpenAI's form."""
    message = f"{error}; {error.hint}" if error.hint else str(error)
    param = error.param if isinstance(error, BadField) else None
    return {"error": {"message": message, "type": row_of(error).kind, "param": param, "code": code_of(error)}}


def as_ours(error: Exception) -> RSDError:
    """Any exception as an error that HTTP can say; what nobody foresaw is logged, and its text is not sent."""
    if isinstance(error, RSDError):
        return error
    log.error("an unforeseen error", exc_info=error)
    return RSDError("an unforeseen error; the server's log has it")
