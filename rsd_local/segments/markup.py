"""What stands open at a place of a text: a fenced code block, or display mathematics."""

from __future__ import annotations

from copy import copy

FENCE_LIMIT = 16_384
"""Bytes after which a code fence counts as forgotten by its author, and steps end again."""
MATH_LIMIT = 4_096
r"""Bytes after which a ``\[`` or ``$$`` counts as forgotten by its author."""

_INFO_LIMIT = 32

LINE, BLANK, CLOSED = 1, 2, 4
"""What a byte can end: a line, a line without anything in it, the line that closes a code block."""
_ENDS = {LINE: ("\n",), BLANK: ("\n\n", "\n\r\n"), CLOSED: ("```\n", "~~~\n")}
_MATH_ENDS = ("$$", "\\]")

_NEWLINE, _RETURN, _TAB, _SPACE = b"\n\r\t "
_TICK, _TILDE, _BACKSLASH, _DOLLAR, _OPEN, _CLOSE = b"`~\\$[]"
_DIGITS, _BULLETS, _BLANKS = b"0123456789", b"-+*", b" \t\r"
_SPECIAL = b"\n`\\$"


# Where in a line the next byte stands:
_TEXT = 0
_START = 1  # nothing but indentation and list markers before it
_NUMBER = 2  # in what may become a list marker "12."
_MARKER = 3  # behind what is a list marker if white space follows
_TICKS = 4  # one or two fence characters begin the line
_OPENING = 5  # three or more do
_INFO = 6  # behind them
_CLOSING = 7  # in a code block: fence characters begin the line
_TAIL = 8  # behind enough of them, nothing but blanks so far


class Markup:
    r"""Reads a text byte by byte, and knows whether a code block or display mathematics is open.

    Fences follow CommonMark 0.31, section 4.5: three or more backticks or tildes, indented by at most three columns, closed by
    at least as many of the same with nothing behind them. In a list item, indentation counts from the item's own text. Block
    quotes are not looked into. Mathematics is ``\[ … \]`` and ``$$ … $$``, but not behind another backslash (``\\[4pt]``) nor in
    a code span, which ends with its line at the latest. A fence ends mathematics that was left open. What is left open for
    ``FENCE_LIMIT`` or ``MATH_LIMIT`` bytes is forgotten, at the next line or token.
    """

    __slots__ = ("_at", "_before", "_char", "_code", "_column", "_fence", "_fence_at", "_indent", "_info", "_line_at", "_math", "_math_at",
                 "_place", "_run", "_ticks")  # fmt: skip

    def __init__(self) -> None:
        self._at = 0  # bytes so far
        self._place = _START
        self._line_at = 0  # where the line's first byte stands that is neither indentation nor list marker
        self._indent = 0  # of the line
        self._column = 0  # where the text of the list item begins, 0 outside of lists
        self._char = self._run = 0  # the fence's character, and how many the line begins with
        self._fence = self._fence_at = 0  # the open fence's length, 0 for none, and where it began
        self._info = b""  # what stands behind the fence that was opened last, as far as it is of interest
        self._math = self._math_at = 0  # what opened mathematics, "[" or "$", 0 for none, and where
        self._before = 0  # the byte before, where it is a backslash or dollar that matters
        self._ticks = self._code = 0  # backticks just before, and those that opened the code span

    def copy(self) -> Markup:
        """One that goes on from here on its own."""
        return copy(self)

    @property
    def inside(self) -> bool:
        """Whether a code block or mathematics is open."""
        return bool(self._fence or self._math)

    def ends(self, events: int) -> tuple[str, ...]:
        """Texts with which events that count come about; inside of code and mathematics, those with which these may end."""
        if events and self._math:
            return _MATH_ENDS
        return tuple(text for event, texts in _ENDS.items() if (CLOSED if self._fence else events) & event for text in texts if events)

    @property
    def language(self) -> bytes:
        """The first word behind the fence that was opened last, in small letters."""
        return (self._info.split() or [b""])[0].lower()

    @property
    def in_code(self) -> bool:
        """Whether a code block is open."""
        return bool(self._fence)

    def starts_line(self, size: int) -> bool:
        """Whether the last ``size`` bytes are the first of their line, but for indentation and list markers."""
        return self._place == _TEXT and self._at - self._line_at == size

    def skim(self, piece: bytes) -> bool:
        """Takes a piece that neither opens, closes nor ends anything; False, and nothing done, for any other."""
        if self._place or self._before or self._ticks or len(piece.translate(None, _SPECIAL)) != len(piece):
            return False
        self._at += len(piece)
        if self._fence or self._math:
            self._forget()
        return True

    def take(self, byte: int) -> int:
        """Takes a byte; returns ``LINE``, ``BLANK`` or ``CLOSED`` where it ends one, else 0."""
        self._at += 1
        if byte == _NEWLINE:
            return self._end_line()
        place = self._place
        if place == _TEXT:
            if not self._fence:
                self._take_text(byte)
        elif place == _START:
            self._take_start(byte)
        elif place in (_NUMBER, _MARKER):
            self._take_marker(byte)
        else:
            self._take_fence(byte)
        return 0

    def _end_line(self) -> int:
        self._forget()
        place, self._place = self._place, _START
        blank = place == _START and self._indent == 0
        self._indent = self._before = self._ticks = self._code = 0
        if place in (_OPENING, _INFO):
            self._math = 0
        if place == _TAIL or (place == _CLOSING and self._run >= self._fence):
            self._fence = 0
            return CLOSED
        return BLANK if blank else LINE

    def _forget(self) -> None:
        if self._fence and self._at - self._fence_at > FENCE_LIMIT:
            self._fence = 0
            self._place = self._place if self._place == _START else _TEXT
        if self._math and self._at - self._math_at > MATH_LIMIT:
            self._math = 0

    def _take_start(self, byte: int) -> None:
        if byte == _SPACE:
            self._indent += 1
        elif byte == _TAB:
            self._indent += 4 - self._indent % 4
        elif byte != _RETURN:
            self._take_first(byte)

    def _take_first(self, byte: int) -> None:
        """The first byte of a line behind indentation."""
        near = self._indent <= self._column + 3
        self._line_at, self._run = self._at - 1, 1
        self._place = _TEXT
        if self._fence:
            if near and byte == self._char:
                self._place = _CLOSING
            return
        self._column = min(self._column, self._indent)
        if near and byte in (_TICK, _TILDE):
            self._place, self._char = _TICKS, byte
        elif near and byte in _DIGITS:
            self._place = _NUMBER
        elif near and byte in _BULLETS:
            self._place = _MARKER
        else:
            self._take_text(byte)

    def _take_marker(self, byte: int) -> None:
        if self._place == _NUMBER and byte in _DIGITS and self._run < 9:
            self._run += 1
        elif self._place == _NUMBER and byte in b".)":
            self._run += 1
            self._place = _MARKER
        elif self._place == _MARKER and byte in (_SPACE, _TAB):
            self._indent += self._run + 1
            self._column = self._indent
            self._place = _START
        else:
            self._place = _TEXT
            self._take_text(byte)

    def _take_fence(self, byte: int) -> None:
        place = self._place
        if place == _INFO:
            if len(self._info) < _INFO_LIMIT:
                self._info += bytes((byte,))
            if byte == self._char == _TICK:  # backticks behind backticks: a code span
                self._fence, self._place = 0, _TEXT
                self._code, self._ticks = (0, 0) if self._math else (self._run, 1)
        elif place == _TAIL:
            if byte not in _BLANKS:
                self._place = _TEXT
        elif byte == self._char:
            self._run += 1
            if place == _TICKS and self._run == 3:
                self._place, self._fence_at, self._info = _OPENING, self._at, b""
            if self._place == _OPENING:
                self._fence = self._run
        elif place == _OPENING:
            self._place, self._info = _INFO, bytes((byte,))
        elif place == _CLOSING:
            self._place = _TAIL if self._run >= self._fence and byte in _BLANKS else _TEXT
        else:
            self._place = _TEXT
            self._ticks = self._run if self._char == _TICK and not self._math else 0
            self._take_text(byte)

    def _take_text(self, byte: int) -> None:
        """A byte outside of code blocks, behind the beginning of its line."""
        before, self._before = self._before, 0
        if not self._math:
            if byte == _TICK and before != _BACKSLASH:
                self._ticks += 1
                return
            if self._ticks:
                self._code = 0 if self._ticks == self._code else self._code or self._ticks
                self._ticks = 0
            if self._code:
                return
        if before == _BACKSLASH:
            if byte == _OPEN and not self._math:
                self._math, self._math_at = _OPEN, self._at
            elif byte == _CLOSE and self._math == _OPEN:
                self._math = 0
        elif byte == _BACKSLASH:
            self._before = byte
        elif byte == _DOLLAR and self._math != _OPEN:
            if before != _DOLLAR:
                self._before = byte
            elif self._math:
                self._math = 0
            else:
                self._math, self._math_at = _DOLLAR, self._at
