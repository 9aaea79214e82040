"""Examples in running text: ``f(2) == 4``, ``f(2) → 4``, "f(2) should return 4", and inputs with their outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rsd_local.programs.asked import BUILTINS, AskedCode
from rsd_local.programs.doctests import Span
from rsd_local.programs.example import Example, callable_check
from rsd_local.programs.literals import bracket_end, literal, value_at

_IS = r"is(?=[ \t]+(?:True|False|None)\b)"  # "f(2) is 4" may go on
_VERB = rf"(?:(?:should|must|will|would)[ \t]*\n?[ \t]*)?(?:returns?|gives?|outputs?|evaluates?[ \t]+to|equals?|{_IS}|be|yields?)"
_SIGN = r"={2,3}>?|=>|=|-{1,2}>|➞|→|⇒|⟶|↦|➔"
_SEPARATOR = re.compile(rf"`?[ \t]*(?:#[ \t]*)?(?:(?P<sign>{_SIGN})|(?P<verb>{_VERB})\b:?)[ \t]*(?:\n[ \t]+(?=[\d\[({{'\"-]))?`?")
_COMMENT = re.compile(r"[ \t]*#[ \t]*(?:(?:[Oo]utput|[Rr]esult)[ \t]*:[ \t]*)?")
# What may stand behind a value: the line's end, a comment, a remark, a new sentence; a second value may not.
_VALUE_NEXT = r"(?![ \t]*(?:[\d\"'\[({-]|True\b|False\b|None\b))"
_END = re.compile(
    rf"[`*]*(?:[.;:!]?[ \t]*(?:\n|$|\"\"\"|''')|[.;][ \t]|![ \t](?![ \t]*[=+*/^-])|[ \t]*#|[ \t]*//|[ \t]+\(|\)"
    rf"|,[ \t]+{_VALUE_NEXT}|,[ \t]*\n|[ \t]+(?:and|because|since|as(?![ \t]+an?\b)|while|for|where)\b{_VALUE_NEXT})"
)
_DOUBTS = re.compile(
    r"\b(?:but|instead|however|wrong(?:ly)?|incorrect(?:ly)?|bugs?|buggy|not|never|actually|currently|formerly|previously|old|unexpected(?:ly)?|fails?|raises?"
    r"|isn't|doesn't|shouldn't|n't)\b",
    re.IGNORECASE,
)
_LOOSE = re.compile(r"\b(?:round(?:ed|ing|s)?|approx\w*|about|roughly|around|random\w*|or|any order)\b|≈", re.IGNORECASE)  # in a remark
_PREFIX_REFUSED = re.compile(r"(?:\b(?:if|while|elif|return|or|not|lambda|in|def)[ \t]*|[=+\-*/%<>][ \t]*|\.|\)[ \t]*,[ \t]*)$")
_BULLET = re.compile(r"^[ \t]*(?:[-*+•]|\(?\d+[.)])[ \t]+")
_FOR = re.compile(r"^[ \t]*(?:[-*+][ \t]+)?(?:For|When|If|Given)[ \t]+(?=[A-Za-z_]\w*[ \t]*=[^=])", re.MULTILINE)
_FOR_VERB = re.compile(
    r"[ \t]*,?[ \t]*(?:then[ \t]+)?(?:the[ \t]+)?(?:output|result|answer|function)[ \t]+"
    r"(?:should[ \t]+(?:be|return)|is|returns|will[ \t]+be)[ \t]*:?[ \t]*`?"
)
_INPUT = re.compile(r"^[ \t]*(?:[-*+][ \t]+)?\**(?:Sample[ \t]+)?[Ii]nput\**[ \t]*:\**[ \t]*\n?[ \t]*`?", re.MULTILINE)
_OUTPUT = re.compile(
    r"`?[ \t]*\n(?:[ \t]*\n)?[ \t]*(?:[-*+][ \t]+)?\**(?:Sample[ \t]+|Expected[ \t]+)?[Oo]utput\**[ \t]*:\**[ \t]*\n?[ \t]*`?"
)
_GIVEN = re.compile(r"([A-Za-z_]\w*)[ \t]*=[ \t]*(?!=)")


def read_statements(text: str, taken: Sequence[Span], names: tuple[str, ...], asked: AskedCode) -> list[Example]:
    """The examples that are stated in running text.

    Args:
        text: the prompt.
        taken: parts of it that were read already.
        names: of the functions that are asked for.
        asked: the prompt's code.
    """
    found = [example for name in names for example in _calls(text, taken, name, names, asked)]
    if len(asked.parameters) == 1 and len(asked.names) == 1:
        (name, parameters), *_ = asked.parameters.items()
        found += _inputs(text, name, parameters)
    return found


def _calls(text: str, taken: Sequence[Span], name: str, names: tuple[str, ...], asked: AskedCode) -> Iterator[Example]:
    for match in re.finditer(rf"(?<![\w.])((?:[A-Za-z_]\w*\()*){re.escape(name)}\(", text):
        start = match.start()
        wrappers = match[1].split("(")[:-1]
        if any(first <= start < last for first, last in taken) or not set(wrappers) <= BUILTINS - {"print"}:
            continue
        line_start = text.rfind("\n", 0, start) + 1
        before = _BULLET.sub("", text[line_start:start])
        end = bracket_end(text, start + len(wrappers[0]) if wrappers else match.end() - 1)
        if end is None or _PREFIX_REFUSED.search(before):
            continue
        source = " ".join(line.strip() for line in text[start:end].split("\n"))
        stated = _stated(text, end)
        if stated is None:
            continue
        expected, weak, last = stated
        line_end = text.find("\n", last) % (len(text) + 1)
        rest = re.sub(r"[(#].*", "", text[last:line_end])
        remark = re.match(r"[`*]*[ \t]*\([^)\n]*\)", text[last:line_end])
        called = callable_check(source, names, asked.known)
        if called is not None and not _DOUBTS.search(f"{before} {rest}") and not (remark and _LOOSE.search(remark[0])):
            yield Example(source, expected, names=called, weak=weak)


def _stated(text: str, end: int) -> tuple[str, bool, int] | None:
    """The value that follows a call, whether behind a single equals sign, and where it ends."""
    match = _SEPARATOR.match(text, end)
    if match is None:
        comment = _COMMENT.match(text, end)
        found = value_at(text, comment.end()) if comment else None
        return (found[0], False, found[1]) if found and re.match(r"[ \t]*(?:\n|$)", text[found[1] :]) else None
    found = value_at(text, match.end())
    if found is None or not _END.match(text, found[1]):
        return None
    return found[0], match["sign"] == "=", found[1]


def _inputs(text: str, name: str, parameters: tuple[str, ...]) -> Iterator[Example]:
    """Inputs with outputs, of a prompt with one function: ``Input: a = 1, b = 2`` or "For a = 1, b = 2 the output should be 3"."""
    for begin, middle in ((_FOR, _FOR_VERB), (_INPUT, _OUTPUT)):
        for match in begin.finditer(text):
            given = _arguments(text, match.end(), parameters, begin is _INPUT)
            verb = middle.match(text, given[1]) if given else None
            if given is None or verb is None:
                continue
            found = value_at(text, verb.end())
            if found is not None and _END.match(text, found[1]):
                yield Example(f"{name}({', '.join(given[0])})", found[0], names=(name,))


def _arguments(text: str, start: int, parameters: tuple[str, ...], bare: bool) -> tuple[list[str], int] | None:
    """The values of all parameters, in their order, and where they end; None where they are not all there."""
    values: dict[str, str] = {}
    at = start
    while match := _GIVEN.match(text, at):
        found = value_at(text, match.end())
        if found is None or match[1] in values:
            return None
        values[match[1]], at = found
        comma = re.compile(r"[ \t]*,[ \t]*|[ \t]*\n[ \t]*").match(text, at)
        if comma is None or not _GIVEN.match(text, comma.end()):
            break
        at = comma.end()
    if not values and bare and len(parameters) == 1:
        found = value_at(text, start)
        return ([found[0]], found[1]) if found is not None and literal(found[0]) is not None else None
    if set(values) != set(parameters) or not values:
        return None
    return [values[parameter] for parameter in parameters], at
