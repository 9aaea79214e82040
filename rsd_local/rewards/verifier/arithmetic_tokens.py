"""Cuts text into the numbers, signs and words from which equations are read.

LaTeX, Markdown and typographic signs become plain ones here. What is no arithmetic (code, variables, times of day, versions) becomes a
token of kind ``other``, with which no side of an equation can be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Kind = Literal["number", "op", "open", "close", "percent", "word", "equals", "about", "relation", "break", "frac", "root", "other"]

MAX_TEXT = 100_000
"""Characters of a step; a longer one is not read."""
MAX_DIGITS = 30
"""Digits of a number; a longer one is not read."""


@dataclass(frozen=True, slots=True)
class Token:
    """One sign, number or word.

    Attributes:
        kind: what it is.
        text: as it is read; of an operator one of ``+ - * / ^``.
        start: where it begins in the cleaned text.
        end: where it ends there.
        value: of a number.
        decimals: digits behind a number's point.
        spaced: whether white space stands before it.
        mark: what is special about it, see the lexer.
    """

    kind: Kind
    text: str
    start: int
    end: int
    value: Fraction = Fraction(0)
    decimals: int = 0
    spaced: bool = False
    mark: str = ""


_FENCE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_INLINE = re.compile(r"`[^`\n]*`")
_MARKS = re.compile(r"<<([^<>\n]*)>>")
_DISPLAY = re.compile(  # none looks behind another beginning: many of them must not make it slow
    r"\\\[((?:[^\\]|\\[^\[\]])*)\\\]|\$\$([^$]*)\$\$|\\begin\{[a-z]+\*?\}((?:[^\\]|\\(?!begin|end))*)\\end\{[a-z]+\*?\}"
)
_INLINE_MATH = re.compile(r"\$(?=[^\s$])([^$\n]*)(?<=[^\s$])\$(?!\d)")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}\n]*)\}")
_SPACING = re.compile(
    r"\\(?:left|right|displaystyle|Big|big|Bigg|bigg|[bB]igg?[lr])(?![A-Za-z])\.?|\\[,;:!>]|\\ |~(?![\d=])|\\[()\[\]]|&(?!\w)"
)
_DOLLAR = "\ue000"  # a currency sign that is surely one
_TIMES = "\ue002"  # an x between two numbers, without white space
SHOWN = str.maketrans({_DOLLAR: "$", _TIMES: "x"})
"""What stands for signs in a cleaned text, and the signs."""
_CODE = " \ue001 "

_REPLACED = [
    (re.compile(r"(?<=\d)(?:\\,|[\u00a0\u2009\u202f]|\{,\})(?=\d{3}(?!\d))"), ","),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\\\"), "\n"),
    (re.compile(r"\\q?quad(?![a-z])"), " ; "),
    (re.compile(r"\\\$"), _DOLLAR),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"(?<!\\)\\\*"), "*"),
    (re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])"), " × "),
    (re.compile(r"\\(?:ldots|dots|cdots)(?![A-Za-z])"), "…"),
    (re.compile(r"\\div(?![A-Za-z])"), " ÷ "),
    (re.compile(r"\\(?:approx|simeq|sim)(?![A-Za-z])"), " ≈ "),
    (re.compile(r"\\(?:neq?|leq?|geq?|lt|gt|equiv|ll|gg)(?![A-Za-z])"), " ≠ "),
    (re.compile(r"\\(?:Rightarrow|implies|to|rightarrow|therefore|iff|Longrightarrow)(?![A-Za-z])"), " ; "),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\degree(?![A-Za-z])|\^\{?\\circ\}?"), "°"),
    (re.compile(r"(?<=[\d ])([apAP])\. ?([mM])\b"), r"\1\2"),
]
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_TIMES_TIGHT = re.compile(r"(?<=\d)[xX](?=[\d($])")
_TIMES_WIDE = re.compile(r"(?<=[\w)%])([ \t]+)[xX](?=[ \t]+[\d($.\ue000-])")
_POWER = re.compile(r"(?<=[\d)}])(?:\*\*|[ \t]+\*\*[ \t]+)(?=[-\d(])")
_EMPHASIS = re.compile(r"\*\*|__|(?<![\d)\w %}])\*(?=\S)|(?<=[\w).!])\*(?=[.,;:]?\s*$)", re.MULTILINE)
_BULLET = re.compile(r"^[ \t]*(?:[*+•–](?=\s)|#{1,6}\s|>\s)", re.MULTILINE)
_NUMBERING = re.compile(r"^[ \t]*(?:-[ \t]+)?(?:\(\d{1,3}\)|\d{1,3}[.)])(?=[ \t]+\S)", re.MULTILINE)

_LEX = re.compile(
    r"""
    (?P<space>[ \t\r\u00a0\u2009\u202f"'“”‘’]+)
  | (?P<newline>\n+)
  | (?P<number>\d{1,3}(?:,\d{3})+(?![\d])(?:\.\d+)?|\d+(?:\.\d+)?|(?<![\w.)])\.\d+)
  | (?P<vulgar>[½¼¾⅓⅔⅕⅛])
  | (?P<superscript>[⁰¹²³⁴⁵⁶⁷⁸⁹]+)
  | (?P<word>[A-Za-z\u00b0\u00a2\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]+(?:[-'’][A-Za-z]+)*)
  | (?P<money>[$€£¥₹\ue000])
  | (?P<dots>\.{3}|…)
  | (?P<assign>[+\-*/:!]=|==+|=>|->|<=|>=|=<|≡|≠|<|>|≤|≥|→|⇒|∝)
  | (?P<about>=\s?[~≈]|~=|≈|≅|~)
  | (?P<equals>=)
  | (?P<op>[-+*/^−×÷·⋅∙∗⁄∕–—])
  | (?P<percent>%)
  | (?P<root>\\sqrt|√)
  | (?P<frac>\\frac)
  | (?P<boxed>\\boxed\s*\{)
  | (?P<open>[(\[{])
  | (?P<close>[)\]}])
  | (?P<colon>:)
  | (?P<comma>,)
  | (?P<stop>[.;?。，])
  | (?P<bang>!)
  | (?P<pipe>\|)
  | (?P<command>\\[A-Za-z]+)
  | (?P<rest>.)
""",
    re.VERBOSE,
)
_OPS = {"−": "-", "×": "*", "÷": "/", "·": "*", "⋅": "*", "∙": "*", "∗": "*", "⁄": "/", "∕": "/", "–": "-", "—": "-"}
_VULGAR = {"½": (1, 2), "¼": (1, 4), "¾": (3, 4), "⅓": (1, 3), "⅔": (2, 3), "⅕": (1, 5), "⅛": (1, 8)}
_MONEY = {"$": "dollar", _DOLLAR: "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
_LETTER_UNITS = set("mgshlL")  # others alone are variables
_NO_UNITS = {"e", "st", "nd", "rd", "th", "am", "pm", "a.m", "p.m"}
_DIGITS = tuple("0123456789")
_ABOUT = {"about", "approximately", "roughly", "around", "nearly", "almost", "approx"}


def clean(text: str) -> list[str]:
    """The texts in which equations are looked for: the step in plain signs, and each of GSM8K's calculator marks."""
    if len(text) > MAX_TEXT:
        return []
    text = _INLINE.sub(_CODE, _FENCE.sub("\n", text))
    marks = _MARKS.findall(text)
    text = _MARKS.sub("", text)
    return [_plain(one) for one in (text, *marks)]


def _plain(text: str) -> str:
    for pattern, replaced in _REPLACED:
        text = pattern.sub(replaced, text)
    for _ in range(3):
        text = _TEXT.sub(r" \1 ", text)
    text = _DISPLAY.sub(lambda match: "\n" + (match[1] or match[2] or match[3] or "").replace("\n\n", "\n") + "\n", text)
    text = _INLINE_MATH.sub(r" \1 ", text)
    text = _SPACING.sub(" ", text)
    text = _NUMBERING.sub("\n", text)
    text = _BULLET.sub("\n", text)
    text = _TIMES_TIGHT.sub(_TIMES, text)
    text = _TIMES_WIDE.sub(r"\1×", text)
    text = _POWER.sub("^", text)
    return _EMPHASIS.sub("", text)


def tokens(text: str) -> list[Token]:
    """The tokens of a cleaned text, from its begin to its end."""
    lexer = _Lexer(text)
    for match in _LEX.finditer(text):
        lexer.take(match)
    return _joined(lexer.found)


def _joined(found: list[Token]) -> list[Token]:
    """The tokens without the ends of lines at which a chain goes on: a number before, a sign of equality behind."""
    kept: list[Token] = []
    for place, token in enumerate(found):
        follows = found[place + 1].kind if place + 1 < len(found) else None
        goes_on = token.mark == "line" and follows in ("equals", "about") and kept and kept[-1].kind in ("number", "close", "percent")
        if not goes_on:
            kept.append(token)
    return kept


class _Lexer:
    """Turns matches into tokens; some depend on what stands around them."""

    def __init__(self, text: str) -> None:
        self.found: list[Token] = []
        self._text = text
        self._spaced = True
        self._table = self._is_row(text.split("\n", 1)[0])
        self._boxes: list[bool] = []

    def take(self, match: re.Match[str]) -> None:
        kind, text = str(match.lastgroup), match[0]
        if kind == "space":
            self._spaced = True
            return
        handler = getattr(self, f"_{kind}", None)
        if handler is not None:
            handler(match, text)
        else:
            self._add("other", match, text)
        self._spaced = kind == "newline"

    def _add(self, kind: Kind, match: re.Match[str], text: str, **more: object) -> None:
        self.found.append(Token(kind, text, match.start(), match.end(), spaced=self._spaced, **more))  # type: ignore[arg-type]

    def _before(self, match: re.Match[str]) -> str:
        return self._text[match.start() - 1 : match.start()]

    def _behind(self, match: re.Match[str]) -> str:
        return self._text[match.end() : match.end() + 1]

    def _last(self) -> Kind | None:
        return self.found[-1].kind if self.found else None

    def _newline(self, match: re.Match[str], text: str) -> None:
        self._add("break", match, text, mark="line")
        self._table = self._is_row(self._text[match.end() : match.end() + 200].split("\n", 1)[0])

    @staticmethod
    def _is_row(line: str) -> bool:
        """Whether a line is one of a table."""
        return line.lstrip().startswith("|") and line.count("|") > 1 and bool(re.search(r"\|\s", line))

    def _number(self, match: re.Match[str], text: str) -> None:
        behind = self._text[match.end() : match.end() + 2]
        plain = text.replace(",", "")
        odd = (
            re.match(r"[,.:'_/]?\d", behind) and not behind.startswith("/")
            or behind[:1] == "_"
            or self._before(match) in ("_", "#", "@", "\\") and match.start() > 0
            or len(plain) > MAX_DIGITS
        )  # fmt: skip
        if odd or (self._before(match) in (",", ".", ":") and self._text[match.start() - 2 : match.start() - 1].isdigit()):
            self._add("other", match, text)
            return
        decimals = len(plain.partition(".")[2])
        self._add("number", match, text, value=Fraction(plain), decimals=decimals)

    def _vulgar(self, match: re.Match[str], text: str) -> None:
        mixed = self._last() == "number" and not self._spaced and self.found[-1].decimals == 0
        value = Fraction(*_VULGAR[text])
        if mixed:
            value += self.found.pop().value
        self._add("number", match, text, value=value)

    def _superscript(self, match: re.Match[str], text: str) -> None:
        last = self.found[-1] if self.found else None
        if last and last.kind == "word":
            return  # of a unit
        if len(text) > MAX_DIGITS:
            self._add("other", match, text)
            return
        self._add("op", match, "^")
        self._add("number", match, text, value=Fraction(text.translate(_SUPERSCRIPTS)))

    def _word(self, match: re.Match[str], text: str) -> None:
        behind, lower = self._behind(match), text.lower()
        attached = not self._spaced and self._last() == "number"
        if lower == "percent" and self._last() == "number":
            self._add("percent", match, "%")
        elif behind in _DIGITS or behind == "_" or self._before(match) in ("_", "\\") or (attached and lower in _NO_UNITS):
            self._add("other", match, text)
        elif len(text) == 1 and text not in "aAI°¢" and not (text in _LETTER_UNITS and self._last() in ("number", "op")):
            self._add("other", match, text)
        elif lower in _ABOUT and self.found and self.found[-1].kind in ("equals", "about"):
            self.found[-1] = Token("about", self.found[-1].text, self.found[-1].start, match.end(), spaced=self.found[-1].spaced)
        else:
            self._add("word", match, lower, mark="letter" if len(text) == 1 and text in _LETTER_UNITS else "")

    def _money(self, match: re.Match[str], text: str) -> None:
        if self._text[match.end() : match.end() + 20].lstrip(" ").startswith(tuple("0123456789.")):
            self._add("word", match, _MONEY[text], mark="money")
        elif text != "$" and self._last() == "number":
            self._add("word", match, _MONEY[text])
        elif re.match(r"\s*[A-Za-z]", self._text[match.end() : match.end() + 20]) and text != "$":
            self._add("other", match, text)

    def _dots(self, match: re.Match[str], text: str) -> None:
        if self._last() == "number" and not self._spaced:
            last = self.found.pop()
            self.found.append(Token("number", last.text, last.start, match.end(), last.value, last.decimals, last.spaced, "dots"))
        else:
            self._add("other", match, text)

    def _assign(self, match: re.Match[str], text: str) -> None:
        self._add("break" if text in ("=>", "->", "→", "⇒") else "relation", match, text)

    def _about(self, match: re.Match[str], text: str) -> None:
        if text == "~" and self._last() == "equals":
            self.found.pop()
        self._add("about", match, text)

    def _equals(self, match: re.Match[str], text: str) -> None:
        self._add("equals", match, text)

    def _op(self, match: re.Match[str], text: str) -> None:
        tight = not self._spaced and not self._behind(match).isspace()
        self._add("op", match, _OPS.get(text, text), mark=("dash" if text in "–—" else "tight" if tight else ""))

    def _percent(self, match: re.Match[str], text: str) -> None:
        self._add("percent", match, text)

    def _root(self, match: re.Match[str], text: str) -> None:
        self._add("other" if self._behind(match) == "[" else "root", match, text)

    def _frac(self, match: re.Match[str], text: str) -> None:
        self._add("frac", match, text)

    def _boxed(self, match: re.Match[str], text: str) -> None:
        if self._last() not in ("equals", "about", "op", "relation"):
            self._add("break", match, text)
        self._boxes.append(True)

    def _open(self, match: re.Match[str], text: str) -> None:
        call = not self._spaced and self._last() == "word" and text != "{"
        self._boxes.append(False)
        self._add("open", match, "{" if text == "{" else "(", mark="call" if call else "")

    def _close(self, match: re.Match[str], text: str) -> None:
        if not (self._boxes and self._boxes.pop()):
            self._add("close", match, "}" if text == "}" else ")")

    def _colon(self, match: re.Match[str], text: str) -> None:
        ratio = self._last() == "number" and (self._behind(match).isdigit() or self._spaced)
        self._add("other" if ratio else "break", match, text)

    def _comma(self, match: re.Match[str], text: str) -> None:
        self._add("break", match, text)

    def _stop(self, match: re.Match[str], text: str) -> None:
        self._add("break", match, text)

    def _bang(self, match: re.Match[str], text: str) -> None:
        self._add("other", match, text, mark="bang")

    def _pipe(self, match: re.Match[str], text: str) -> None:
        self._add("break" if self._table or (not self.found) else "other", match, text)

    def _command(self, match: re.Match[str], text: str) -> None:
        self._add("other", match, text)

    def _rest(self, match: re.Match[str], text: str) -> None:
        if text == _TIMES:
            self._add("op", match, "*", mark="x")
        else:
            self._add("other", match, text)
