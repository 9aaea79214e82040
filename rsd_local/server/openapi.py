"""The description of the endpoints, made from the tables that requests are read with."""

from __future__ import annotations

from typing import Any

from rsd_local.server import VERSION
from rsd_local.server.errors import TABLE
from rsd_local.server.fields import CHAT, COMPLETION, EXTENSION, HARMLESS, STREAM_OPTIONS, Kind

_TEXT_PART = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"type": "string", "enum": ["text"]}, "text": {"type": "string"}},
}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant"]},
        "content": {"oneOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART}]},
        "name": {"type": "string"},
    },
}
_PROMPT = {"type": "string", "minLength": 1}
_ONE_PROMPT = {"type": "array", "minItems": 1, "maxItems": 1, "items": _PROMPT}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string", "enum": sorted({row.kind for row in TABLE.values()})},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


def document() -> dict[str, Any]:
    """The document, in the form of OpenAPI 3.1."""
    asks = {"/v1/chat/completions": ("Chat", "Answer a conversation."), "/v1/completions": ("Completion", "Go on behind a text.")}
    reads = {
        "/v1/models": ("The models, one for each strategy.", "application/json"),
        "/health": ("Whether requests are answered.", "application/json"),
        "/props": ("What is known of the trio.", "application/json"),
        "/metrics": ("Figures for Prometheus.", "text/plain"),
        "/openapi.json": ("This document.", "application/json"),
    }
    paths: dict[str, Any] = {path: {"post": _asking(schema, about)} for path, (schema, about) in asks.items()}
    paths |= {path: {"get": _reading(about, kind)} for path, (about, kind) in reads.items()}
    one = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    paths["/v1/models/{name}"] = {"get": _reading("One model.", "application/json") | {"parameters": [one]}}
    schemas = {
        "Chat": _schema(CHAT, ["messages"], messages={"type": "array", "minItems": 1, "items": _MESSAGE}),
        "Completion": _schema(COMPLETION, ["prompt"], prompt={"oneOf": [_PROMPT, _ONE_PROMPT]}),
        "Error": _ERROR,
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "rsd serve", "version": VERSION, "description": "Reward-guided speculative decoding behind OpenAI's API."},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def _schema(kinds: dict[str, Kind], required: list[str], **own: Any) -> dict[str, Any]:
    """A request's body: the fields that are honoured, and those that change nothing. Each may be null; others are refused or ignored."""
    found = {name: kind.schema for name, kind in (kinds | HARMLESS).items()} | own
    found["rsd"] = {"type": "object", "additionalProperties": False, "properties": _nullable(EXTENSION)}
    found["stream_options"] = {"type": "object", "properties": _nullable(STREAM_OPTIONS)}
    found["n"] = {"type": "integer", "enum": [1]}
    optional = {name: schema if name in required else {"anyOf": [schema, {"type": "null"}]} for name, schema in found.items()}
    return {"type": "object", "required": required, "properties": optional}


def _nullable(kinds: dict[str, Kind]) -> dict[str, Any]:
    return {name: {"anyOf": [kind.schema, {"type": "null"}]} for name, kind in kinds.items()}


def _asking(schema: str, about: str) -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}
    found = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}}
    return {"summary": about, "requestBody": body, "responses": {"200": {"description": "The answer.", "content": found}} | _failures()}


def _reading(about: str, kind: str) -> dict[str, Any]:
    schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
    return {"summary": about, "responses": {"200": {"description": about, "content": {kind: {"schema": schema}}}} | _failures()}


def _failures() -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {str(status): {"description": "An error.", "content": error} for status in sorted({row.status for row in TABLE.values()})}
