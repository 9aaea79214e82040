"""Hooks of schemathesis for ``fuzz_server.py``: questions that abacus can read, so that answers are made and not only refusals."""

from __future__ import annotations

import json
import random
from typing import Any

import schemathesis

_SIGNS = "+-*"


def map_body(context: Any, body: Any) -> Any:
    """Puts an expression in place of the question of two bodies in three; all other fields stay as they were made."""
    if not isinstance(body, dict):
        return body
    draws = random.Random(json.dumps(body, sort_keys=True, default=repr))
    if draws.random() < 1 / 3:
        return body
    question = f"{draws.randint(0, 99)}{draws.choice(_SIGNS)}{draws.randint(0, 99)}{draws.choice(_SIGNS)}{draws.randint(0, 9)}"
    if isinstance(body.get("prompt"), str):
        return body | {"prompt": question}
    messages = body.get("messages")
    if isinstance(messages, list) and messages and draws.random() < 0.9:
        return body | {"messages": [{"role": "user", "content": question}]}
    return body


schemathesis.hook(map_body)
