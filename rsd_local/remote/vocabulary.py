"""Whether two models have one vocabulary, by the tokens that they make of probe texts: a server gives no list of its tokens."""

from __future__ import annotations

from collections.abc import Callable

from rsd_local.remote.api import Server
from rsd_local.remote.transport import Call

PROBES = (
    "The quick brown fox jumps over the lazy dog. It didn't, though: he'd said so!",
    "0 1 2 12 123 1234 12345 1234567890 3.14159 1,000,000 2026-10-31 0x1F 1e-9",
    "\\[ \\frac{a+b}{2} = \\sqrt{x^2 + y_1} \\le \\boxed{\\text{42}} \\]\n\n$$E = mc^2$$",
    "def f(x: int) -> None:\n    if x == 0:\n\t\treturn {'a': [1, 2]}\n\n\n        # done\r\n",
    "  two   three    four     \n\n\n \n\t\n",
    "Größe, naïve façade, señor, Ångström, über, œuvre, İstanbul",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "我能吞下玻璃而不伤身体。こんにちは世界。안녕하세요 세계",
    "مرحبا بالعالم שלום עולם नमस्ते दुनिया สวัสดีชาวโลก",
    "🦙🚀👩‍👩‍👧‍👦 ∑∏∫√∞ ≤≥≠ → ⇒ ℝ ∀x∈S",
    "pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism internationalization",
    'import numpy as np; SELECT * FROM users WHERE id = 7; <div class="a">https://example.org/?q=1&r=2</div>',
)
"""Writing of many kinds: words, digits, mathematics, code, white space, scripts, signs."""
_MARK, _NEXT = "\n", "a"


def same_tokens(one: Callable[[str], list[int]], other: Callable[[str], list[int]]) -> bool:
    """Whether two models make the same tokens of every probe text."""
    return all(one(text) == other(text) for text in PROBES)


def step_tokens(server: Server, raw: bytes, marks: tuple[list[int], list[int]], call: Call) -> list[int]:
    """The tokens of a step that goes on from a text, and is followed by one.

    A word before it and one behind keep the server's tokenizer from taking its ends for those of a text.

    Args:
        server: whose vocabulary it is.
        raw: the step's bytes.
        marks: the tokens of the two, each for itself; see ``edge_marks``.
        call: the request.
    """
    text = raw.decode("utf-8", "replace")
    if not text:
        return []
    before, behind = marks
    follows = text[-1:].isspace()
    tokens = server.tokenize(_MARK + text + (_NEXT if follows else ""), call=call)
    if tokens[: len(before)] == before and (not follows or tokens[len(tokens) - len(behind) :] == behind):
        return tokens[len(before) : len(tokens) - len(behind) if follows else None]
    return server.tokenize(text, call=call)


def edge_marks(server: Server) -> tuple[list[int], list[int]]:
    """What the words before and behind a step are, as tokens: the second one behind another text."""
    before = server.tokenize(_MARK)
    return before, server.tokenize(_MARK + _NEXT)[len(before) :]
