"""Whether a text is a grammar in GBNF: llama.cpp says why it is none on standard error alone, where nobody can take it from."""

from __future__ import annotations

import re

from rsd_local.errors import ConfigError

_MOST_NESTED = 500  # llama.cpp's parser would use up the stack
_ESCAPED = r"\\[xuUtrn\\\"\[\]]"
_TOKEN = re.compile(
    r"(?P<space>[ \t]+|#[^\r\n]*)|(?P<line>[\r\n]+)|(?P<rule>[A-Za-z0-9-]+[ \t]*::=)|(?P<name>[A-Za-z0-9-]+)"
    rf'|(?P<item>"(?:{_ESCAPED}|[^"\\])*"|\[(?:{_ESCAPED}|[^\]\\])*\]|\.|!?<[^>]*>)'
    r"|(?P<bar>\|)|(?P<open>\()|(?P<close>\))|(?P<times>[*+?]|\{\s*\d+\s*(?:,\s*\d*\s*)?\})"
)
_FORM = "a rule is NAME ::= …, its name has letters, digits and -, and it goes on in a next line only behind | or inside ( )"


def check_syntax(text: str) -> None:
    """See whether a text is a grammar; that it has a rule root, and none that begins with itself, llama.cpp says in its log.

    Raises:
        ConfigError: it is none, and the place where it cannot be read.
    """
    place = level = 0
    before, begins_line = "", True
    rules, used = set[str](), dict[str, int]()
    while place < len(text):
        found = _TOKEN.match(text, place)
        kind = str(found.lastgroup) if found else ""
        if kind == "line":
            begins_line = True
        elif kind != "space":
            begins = begins_line and not level and before not in ("rule", "bar")
            level += (kind == "open") - (kind == "close")
            nothing_before = kind == "times" and before in ("rule", "bar", "open")
            if found is None or begins != (kind == "rule") or level < 0 or nothing_before:
                raise ConfigError(f"{_line(text, place)} cannot be read from '{text[place : place + 40].splitlines()[0]}' on", hint=_FORM)
            if level > _MOST_NESTED:
                raise ConfigError(
                    f"the grammar has more than {_MOST_NESTED} parentheses within each other", hint="give them rules of their own"
                )
            if kind == "rule":
                rules.add(found[0].removesuffix("::=").rstrip())
            elif kind == "name":
                used.setdefault(found[0], place)
            before, begins_line = kind, False
        place = found.end() if found else place
    if level:
        raise ConfigError(f"the grammar has parentheses that are not closed: {level}", hint="close them")
    if missing := [name for name in used if name not in rules]:
        name = missing[0]
        raise ConfigError(f"{_line(text, used[name])} names {name}, and there is no such rule", hint=f"add {name} ::= …")


def _line(text: str, place: int) -> str:
    return f"line {text.count(chr(10), 0, place) + 1} of the grammar"
