"""Whether contexts are longer than what the models were trained for."""

from __future__ import annotations

from collections.abc import Iterable

from rsd_local.events import Role
from rsd_local.gguf_header import Header, longest_context


def context_warning(roles: Iterable[tuple[Role, Header, int]]) -> str:
    """One line that names the roles whose context is longer than their model was trained for; empty where there is none.

    Args:
        roles: each with its model's header and its context, in tokens of one question.
    """
    beyond = [(role, longest_context(header), context) for role, header, context in roles if context > longest_context(header) > 0]
    if not beyond:
        return ""
    context = max(tokens for _, _, tokens in beyond)
    said = ", ".join(f"{role} for {trained:,}" for role, trained, _ in beyond)
    fix = min(trained for _, trained, _ in beyond)
    return f"a context of {context:,} tokens is longer than models were trained for ({said}): text beyond that is mostly bad; give -c {fix}"
