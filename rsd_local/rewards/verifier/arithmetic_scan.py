"""Reads the longest expression from a token on; units are taken off the numbers.

What is doubtful (a word that may be an operator, a range, a label) is noted: such an equation is never called wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from rsd_local.rewards.verifier.arithmetic_tokens import Token
from rsd_local.rewards.verifier.arithmetic_words import FAMILY, NEXT, PROSE, SCALES, singular

MAX_TOKENS = 120
"""Tokens of one side; a longer one is not read."""
MAX_DEPTH = 16
"""Parentheses within each other."""
_WORDS_OF_UNIT = 5


@dataclass(frozen=True, slots=True)
class Item:
    """A number or a sign of an expression: ``n + - * / ^ ( ) j`` (juxtaposed), ``m`` (a mixed number), ``%``, ``s`` (a scale), ``root``."""

    code: str
    value: Fraction = Fraction(0)
    decimals: int = 0


@dataclass(slots=True)
class Side:
    """One side of an equation.

    Attributes:
        items: the expression.
        units: of its numbers, empty for one that has none.
        doubtful: whether it may say something else than what was read.
        ranges: whether it may be a range, as in "pages 3-5".
        dots: whether a number goes on (3.33…).
        first: its first token.
        last: the one behind its last.
    """

    items: list[Item] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    doubtful: bool = False
    ranges: bool = False
    dots: bool = False
    first: int = 0
    last: int = 0

    def has(self, *codes: str) -> bool:
        """Whether one of these items is in it."""
        return any(item.code in codes for item in self.items)

    @property
    def bare(self) -> bool:
        """Whether it is a number alone, with a sign or a percent sign."""
        return sum(item.code == "n" for item in self.items) == 1 and not self.has("+", "*", "/", "^", "root", "j", "m", "(")

    @property
    def literal(self) -> Item | None:
        """The number, where it is one alone."""
        return next((item for item in self.items if item.code == "n"), None) if self.bare else None


class Scan:
    """Reads the longest expression from a token on."""

    def __init__(self, tokens: Sequence[Token], first: int) -> None:
        self._tokens, self._at = tokens[: first + MAX_TOKENS], first
        self._side = Side(first=first)
        self._groups: list[str] = []
        self._wants = True  # an operand
        self._money = ""

    def run(self) -> Side | None:
        """The expression; None where there is none, or it goes on in a way that cannot be read."""
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            goes_on = self._operand(token) if self._wants else self._behind(token)
            if goes_on is None:
                return None
            if not goes_on:
                break
        if self._wants or self._groups or not self._side.items or self._at - self._side.first >= MAX_TOKENS:
            return None
        self._side.last = self._at
        return self._side

    def _put(self, code: str, value: Fraction = Fraction(0), decimals: int = 0) -> None:
        self._side.items.append(Item(code, value, decimals))

    def _peek(self, ahead: int = 1) -> Token | None:
        place = self._at + ahead
        return self._tokens[place] if place < len(self._tokens) else None

    def _operand(self, token: Token) -> bool | None:
        """Takes what may stand where an operand is wanted."""
        if token.mark == "money":
            self._money = token.text
        elif token.kind == "op" and token.text in "+-":
            if token.text == "-":
                self._put("neg")
            elif self._side.items:
                return None
        elif token.kind == "open":
            return self._opened(token)
        elif token.kind == "frac":
            self._put("(")
            follows = self._peek()
            if follows is None or follows.text != "{":
                return None
            self._at += 1
            self._put("(")
            self._groups.append("above")
        elif token.kind == "root":
            self._put("root")
        elif token.kind == "number":
            self._number(token)
        else:
            return None
        self._at += 1
        return True

    def _opened(self, token: Token) -> bool | None:
        if token.mark == "call" and self._at == self._side.first and self._at > 0:
            return None
        if len(self._groups) >= MAX_DEPTH:
            return None
        self._put("(")
        self._groups.append("{" if token.text == "{" else "(")
        self._at += 1
        return True

    def _number(self, token: Token) -> None:
        self._put("n", token.value, token.decimals)
        self._side.units.append(self._money)
        self._side.dots = self._side.dots or token.mark == "dots"
        self._money, self._wants = "", False

    def _behind(self, token: Token) -> bool | None:
        """Takes what may stand behind an operand; False where the expression ends before it."""
        if token.kind == "op":
            return self._operator(token)
        if token.kind == "percent":
            follows = self._peek()
            if follows is not None and follows.kind in ("number", "open", "frac"):
                return None  # a modulo
            self._put("%")
        elif token.kind == "close":
            return self._closed(token)
        elif token.kind == "open" or token.kind in ("frac", "root"):
            return self._juxtaposed(token)
        elif token.kind == "number":
            return self._mixed(token)
        elif token.kind == "word":
            return self._word(token)
        elif token.mark == "bang" and not self._groups and self._peek() is None:
            self._side.doubtful = True
            return False
        else:
            return False if token.kind == "break" and not self._groups else None
        self._at += 1
        return True

    def _operator(self, token: Token) -> bool | None:
        follows = self._peek()
        if token.text == "/" and follows is not None and follows.kind == "word" and follows.mark != "money":
            if not self._side.units or not self._side.units[-1]:
                return None
            self._per(singular(follows.text))
            self._at += 2
            return True
        if token.mark == "dash" or (token.text == "-" and token.mark == "tight" and len(self._side.items) == 1):
            last, number = self._side.items[-1], follows.value if follows is not None else Fraction(0)
            self._side.ranges = self._side.ranges or token.mark == "dash" or last.value < number
        if token.mark == "x" and follows is not None and follows.text in ("2", "3"):
            self._side.doubtful = True  # x² may have lost its sign
        self._put(token.text)
        self._wants = True
        self._at += 1
        return True

    def _per(self, word: str) -> None:
        self._side.units[-1] += f"/{word}"
        if word not in FAMILY:
            self._side.doubtful = True  # it may be a variable

    def _closed(self, token: Token) -> bool | None:
        if not self._groups:
            return False
        group = self._groups.pop()
        if (group == "(") != (token.text == ")"):
            return None
        self._put(")")
        self._at += 1
        if group == "above":
            follows = self._tokens[self._at] if self._at < len(self._tokens) else None
            if follows is None or follows.text != "{":
                return None
            self._put("/")
            self._put("(")
            self._groups.append("below")
            self._wants = True
            self._at += 1
        elif group == "below":
            self._put(")")
        return True

    def _juxtaposed(self, token: Token) -> bool | None:
        follows = self._peek()
        if token.kind == "open" and (follows is None or follows.kind == "word" and follows.mark != "money"):
            return None if self._groups else False  # a remark
        if token.kind == "open" and token.spaced and self._side.units and self._side.units[-1] and not self._groups:
            return False
        last = self._side.items[-1]
        self._put("m" if token.kind == "frac" and last.code == "n" and not last.decimals else "j")
        self._wants = True
        return True

    def _mixed(self, token: Token) -> bool | None:
        last, slash, below = self._side.items[-1], self._peek(1), self._peek(2)
        whole = last.code == "n" and not last.decimals and self._tokens[self._at - 1].kind == "number"
        if (
            whole
            and slash
            and below
            and slash.text == "/"
            and slash.mark == "tight"
            and below.kind == "number"
            and token.value < below.value
        ):
            for code, value in (("m", 0), ("(", 0), ("n", token.value), ("/", 0), ("n", below.value), (")", 0)):
                self._put(code, Fraction(value))
            self._at += 3
            return True
        return None if self._groups or whole else False

    def _word(self, token: Token) -> bool | None:
        """Takes a unit: words behind a number, up to what cannot be one."""
        last = self._side.items[-1]
        if token.text == "of" and (last.code == "%" or self._is_part()) and self._of():
            return True
        end = self._at
        while end < len(self._tokens) and self._tokens[end].kind == "word" and self._tokens[end].mark != "money":
            end += 1
        if end == self._at:  # a currency's sign: another number comes
            return None if self._groups else False
        run = [one.text for one in self._tokens[self._at : end]]
        own = next((place for place, word in enumerate(run) if word in PROSE), len(run))
        follows = self._tokens[end] if end < len(self._tokens) else None
        if own < len(run) and not self._names(run):
            if self._groups:
                return None
            self._unit(run[:own])
            self._at += own
            return False
        if len(run) > _WORDS_OF_UNIT or (follows is not None and follows.kind == "number" and self._groups):
            return None if self._groups else False
        self._unit(run)
        self._at = end
        if follows is not None and follows.kind == "op" and follows.text == "^":
            power = self._tokens[end + 1] if end + 1 < len(self._tokens) else None
            if power is None or power.kind != "number":
                return None
            self._at += 2
        elif follows is not None and follows.kind == "other":
            return None if follows.mark != "bang" else True
        return True

    def _names(self, run: list[str]) -> bool:
        """Whether words are a unit in spite of an ``of`` or ``per`` in them: cups of flour, miles per hour."""
        return bool(run) and run[0] not in PROSE and len(run) <= _WORDS_OF_UNIT and not (set(run) & PROSE) - {"of", "each", "a"}

    def _unit(self, run: list[str]) -> None:
        if not run:
            return
        if run[0] in SCALES:
            self._put("s", Fraction(SCALES[run[0]]))
            run = run[1:]
        if not run or not self._side.units:
            return
        if self._tokens[self._at].mark == "letter" and not self._tokens[self._at].spaced:
            self._side.doubtful = True
        name = singular(run[0])
        if "per" in run[1:-1]:
            name += f"/{singular(run[run.index('per', 1) + 1])}"
        if run[0] == "per" and len(run) > 1:
            self._per(singular(run[1]))
        elif not self._side.units[-1]:
            self._side.units[-1] = name
        elif name != self._side.units[-1]:
            self._side.units[-1] += f" {name}"
        if set(run) & NEXT:
            self._side.doubtful = True

    def _is_part(self) -> bool:
        """Whether a fraction or a decimal below 1 stands before an ``of``."""
        items = self._side.items
        if items[-1].code == "n" and items[-1].decimals and items[-1].value < 1:
            return True
        shape = "".join(item.code for item in items[-3:])
        return shape == "n/n" or (items[-1].code == ")" and len(items) > 3 and any(item.code == "/" for item in items))

    def _of(self) -> bool:
        follows = self._peek()
        if follows is None or not (follows.kind in ("number", "open", "frac") or follows.mark == "money"):
            return False
        self._put("*")
        self._wants = True
        self._at += 1
        return True
