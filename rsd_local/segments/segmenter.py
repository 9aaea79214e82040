"""The setting that says where steps end, and its place in one answer."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from rsd_local.config import StopAfter, require
from rsd_local.errors import ConfigError
from rsd_local.segments.markup import BLANK, CLOSED, LINE, Markup
from rsd_local.segments.matching import SENTENCE, WHITE, Matcher, Wanted, literal, pattern, unescaped
from rsd_local.steps import Part

DELIMITERS = ("paragraph", "line", "sentence", "code-block", "fence", "tokens:N", "re:PATTERN", "text:TEXT")
"""The forms that a delimiter can have."""
MAX_TOKENS = 65_536
"""The most tokens of a step under ``tokens:N``."""
MAX_STOPS, MAX_STOP_BYTES = 16, 256

_EVENTS = {"paragraph": BLANK, "line": LINE | BLANK | CLOSED, "code-block": BLANK | CLOSED, "fence": CLOSED}
_NOT_CODE = (b"bash", b"console", b"output", b"plaintext", b"powershell", b"sh", b"shell", b"text", b"txt", b"zsh")
_WHITE = WHITE.encode()


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a step of a whole answer ends.

    Attributes:
        at: the place behind its last token.
        ended: the place behind the token that ended it; only blank ones stand between that and ``at``.
        part: that it belongs to.
    """

    at: int
    ended: int
    part: Part


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a segmenter's settings come to.

    Attributes:
        events: of the markup that end a step.
        wanted: what ends one where it is found.
        tokens: after which one ends; 0 for no count.
        stops: the stop strings' bytes.
        tags: that open and close a thought; none where there are no thoughts.
        budget: tokens of a thought behind which it is closed; 0 for none.
        stops_after_code: whether the answer ends with a closed code block.
    """

    events: int
    wanted: Wanted | None
    tokens: int
    stops: tuple[bytes, ...]
    tags: tuple[bytes, ...]
    budget: int
    stops_after_code: bool


@dataclass(frozen=True, slots=True)
class Segmenter:
    r"""Where steps end, and which part of the answer they belong to.

    A step ends with the token in which its delimiter is complete, and only once something other than white space stands before
    the delimiter in this step. No step ends inside a fenced code block or display mathematics (``Markup``), unless tokens are
    counted.

    Args:
        delimiter: ``paragraph`` a blank line, with nothing in it, not even a space; ``line``; ``sentence`` (or a line);
            ``code-block`` a closed code block, and outside of those a blank line; ``fence`` a closed code block and nothing else,
            so that a step is a block with the text before it; ``tokens:N`` every N tokens; ``re:PATTERN`` a
            match of a regular expression (``pattern``); ``text:TEXT`` a text, with ``\n``, ``\t``, ``\r`` and ``\\`` for what
            they stand for. Line ends may be ``\r\n`` in all but the last two.
        stop: strings that end the answer, wherever they stand.
        thought: the tags around a thought, such as ``("<think>", "</think>")``; None where the model has none. A step ends
            with the closing tag, too. The opening tag counts at the beginning of a line outside of code, and as white space.
        in_thought: whether answers begin inside a thought that the prompt opened.
        budget: tokens behind which a thought is closed at the end of a step; 0 for none.
        stop_after: ``code-block`` ends the answer with its first closed code block, thoughts left out; blocks that are marked as
            of a shell, or as output, do not count.

    Raises:
        ConfigError: a delimiter that is unknown (the nearest known one is named) or cannot be used, an empty or too long stop
            string, or tags that are none.
    """

    delimiter: str = "paragraph"
    stop: tuple[str, ...] = ()
    thought: tuple[str, str] | None = None
    stop_after: StopAfter = "never"
    in_thought: bool = False
    budget: int = 0
    _rule: _Rule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(isinstance(self.stop, tuple | list), f"stop {self.stop!r} is no list of strings", f"give [{self.stop!r}]")
        object.__setattr__(self, "stop", tuple(self.stop))
        stops = tuple(_text_bytes(text, "stop string") for text in self.stop)
        require(len(stops) <= MAX_STOPS, f"{len(stops)} stop strings are too many", f"give at most {MAX_STOPS}")
        tags: tuple[bytes, ...] = ()
        if self.thought is not None:
            hint = "two different ones, without white space around them, such as <think> and </think>"
            require(isinstance(self.thought, tuple | list), f"thought {self.thought!r} is no pair of tags", hint)
            object.__setattr__(self, "thought", tuple(self.thought))
            tags = tuple(_text_bytes(tag, "tag of a thought") for tag in self.thought)
            fine = len(tags) == 2 and tags[0] != tags[1] and all(tag == tag.strip() and b"\n" not in tag for tag in tags)
            require(fine, f"thought {self.thought!r} is no pair of tags", hint)
        require(not self.in_thought or bool(tags), "an answer begins in a thought, but no tag is known that ends it")
        rule = _Rule(*_delimiter(self.delimiter), stops, tags, self.budget, self.stop_after == "code-block")
        object.__setattr__(self, "_rule", rule)

    def start(self, *, steps: bool = True) -> Scan:
        """The beginning of an answer.

        Args:
            steps: whether steps end; without them, only what ends the answer does: for answers that are split later.
        """
        return Scan(self._rule, self.in_thought, steps)

    def split(self, pieces: Sequence[bytes]) -> list[int]:
        """The places behind the tokens with which steps end, the last one ``len(pieces)``.

        What is blank at the end goes with the step before.

        Args:
            pieces: the bytes of each token of a whole answer; none for an end-of-text token.
        """
        return [cut.at for cut in self.cuts(pieces)]

    def cuts(self, pieces: Sequence[bytes]) -> list[Cut]:
        """As ``split``, with what else is known of each step."""
        scan = self.start()
        ends: list[Cut] = []
        blank = True
        for place, piece in enumerate(pieces, 1):
            blank = blank and not piece.strip()
            if scan.feed(piece):
                ends.append(Cut(place, place, scan.part))
                scan.begin()
                blank = True
        if blank and ends:
            return [*ends[:-1], replace(ends[-1], at=len(pieces))]
        return [*ends, Cut(len(pieces), len(pieces), scan.part)]


class Scan:
    """A place in an answer. Feed it the bytes of each token in turn, and ``begin`` where a step begins.

    Attributes:
        part: which one the step so far belongs to: a thought, once it has a part of one.
        stopped: where in the step's bytes a stop string begins, once one is complete; 0 where it began in an earlier step.
        takes_back: how many of its bytes are those of earlier steps.
        closed: whether the code block that ends the answer is closed.
        thinks: whether what comes next is inside a thought.
        thought_tokens: of the thought before this step.
        overruns: whether a step of a thought ended with the last token, behind as many tokens as a thought may have.
    """

    __slots__ = ("_count", "_markup", "_matcher", "_most", "_rule", "_size", "_steps", "_tag_tail", "_tail",
                 "_written", "closed", "overruns", "part", "stopped", "takes_back", "thinks", "thought_tokens")  # fmt: skip

    def __init__(self, rule: _Rule, in_thought: bool, steps: bool) -> None:
        self._rule, self._steps, self.thinks, self.thought_tokens = rule, steps, in_thought, 0
        self._markup = Markup()
        self._matcher = Matcher(rule.wanted) if rule.wanted else None
        self._tail = self._tag_tail = b""  # the last bytes, where a stop string and a tag may have begun
        self.part: Part
        self.begin()

    @property
    def size(self) -> int:
        """Bytes of the step so far."""
        return self._size

    @property
    def held_back(self) -> int:
        """How many of the last bytes may turn out to begin a stop string."""
        return max(map(len, self._rule.stops), default=1) - 1

    @property
    def ends(self) -> tuple[str, ...] | None:
        """Texts of which one stands at the end of a step from here on, and elsewhere too; None where there are none such.

        For whoever writes elsewhere and can only be told texts to stop at. Where a step ends without one of them, all the same it ends.
        """
        rule, given = self._rule, [text.decode() for text in (*self._rule.stops, *self._rule.tags[1:])]
        if self._steps and rule.wanted is not None:
            return (*given, rule.wanted.text) if rule.wanted.text else None
        events = (rule.events if self._steps else 0) | (CLOSED if rule.stops_after_code else 0)
        return tuple(dict.fromkeys((*given, *self._markup.ends(events))))

    @property
    def tokens_left(self) -> int | None:
        """Tokens behind which the step ends in any case, None where they are not counted."""
        return self._rule.tokens - self._count if self._rule.tokens and self._steps else None

    def begin(self, most: int = 0) -> None:
        """Start a step here. What is open stays open: a code block, mathematics, a thought, a stop string half written.

        Args:
            most: tokens after which the step is cut; 0 where it is not.
        """
        self._most = most
        self.part = "thought" if self.thinks else "answer"
        self.overruns = False
        self.stopped: int | None = None
        self.takes_back = 0
        self.closed = False
        self._size = self._count = 0  # bytes and tokens of the step
        self._written = False  # whether something other than white space stands in it
        if self._matcher:
            self._matcher.begin()

    def copy(self) -> Scan:
        """One that goes on from here on its own."""
        made = copy(self)
        made._markup = self._markup.copy()
        made._matcher = self._matcher and self._matcher.copy()
        return made

    def feed(self, piece: bytes) -> bool:
        """Take the bytes of a token; say whether the step ends with it."""
        rule = self._rule
        self._count += 1
        ended = rule.tokens > 0 and (self._count == rule.tokens if self._steps else self._count % rule.tokens == 0)
        if rule.stops:
            self._seek_stop(piece)
        if rule.tags:
            ended = self._take_tagged(piece) or ended
        else:
            ended = self._take(piece) or ended
        self._size += len(piece)
        over = self.thinks and 0 < rule.budget <= self.thought_tokens + self._count
        self.overruns = over and (ended or self._count == self._most)
        return (ended and self._steps) or self.stopped is not None or self.closed

    def _seek_stop(self, piece: bytes) -> None:
        """Of several stop strings, the one counts that is complete first, and the longest of those."""
        data = self._tail + piece
        found = [(at + len(stop), at) for stop in self._rule.stops if (at := data.find(stop)) >= 0]
        if found and self.stopped is None:
            begins = self._size - len(self._tail) + min(found)[1]
            self.stopped, self.takes_back = max(0, begins), max(0, -begins)
        self._tail = b"" if found else data[max(0, len(data) + 1 - max(map(len, self._rule.stops))) :]

    def _take_tagged(self, piece: bytes) -> bool:
        """As ``_take``, for a piece in which tags of thoughts may be complete."""
        tags, data = self._rule.tags, self._tag_tail + piece
        done, seen, ended = len(self._tag_tail), 0, False
        while (at := data.find(tags[self.thinks], seen)) >= 0:
            seen = at + len(tags[self.thinks])
            ended = self._take(data[done:seen]) or ended
            done = seen
            ended = self._take_tag() or ended
        self._tag_tail = data[max(seen, len(data) + 1 - max(map(len, tags))) :]
        return self._take(data[done:]) or ended

    def _take_tag(self) -> bool:
        """Opens or closes a thought behind the tag that would do so; says whether one was closed."""
        if self.thinks:
            self.thinks = False
        elif not self._markup.inside and self._markup.starts_line(len(self._rule.tags[0])):
            self.thinks, self.part = True, "thought"
            self._written = False
        else:
            return False
        self._markup = Markup()
        if self._matcher:
            self._matcher.begin()
        return not self.thinks

    def _take(self, piece: bytes) -> bool:
        """Takes bytes; says whether a delimiter is complete in them."""
        markup, matcher = self._markup, self._matcher
        if markup.skim(piece):
            if matcher:
                return matcher.take(piece, not markup.inside)
            self._written = self._written or bool(piece.strip())
            return False
        if matcher:
            return self._match(matcher, piece)
        ended, events = False, self._rule.events
        for byte in piece:
            event = markup.take(byte)
            if event:
                self._note_closed(event)
                ended = ended or (event & events > 0 and self._written and not markup.inside)
            elif not self._written:
                self._written = byte not in _WHITE
        return ended

    def _note_closed(self, event: int) -> None:
        """Sees whether what a byte ended is the code block that ends the answer."""
        if event & CLOSED and self._rule.stops_after_code and not self.thinks and self._markup.language not in _NOT_CODE:
            self.closed = True

    def _match(self, matcher: Matcher, piece: bytes) -> bool:
        """Searches the runs of a piece that stand inside or outside of code and mathematics."""
        begun, inside, ended = 0, self._markup.inside, False
        for place, byte in enumerate(piece):
            self._note_closed(self._markup.take(byte))
            if self._markup.inside != inside:
                ended = matcher.take(piece[begun:place], not inside) or ended
                begun, inside = place, not inside
        return matcher.take(piece[begun:], not inside) or ended


def joint(delimiter: str) -> str:
    """The text that ends a step which stands alone, as under a delimiter: a blank line where the delimiter names no text of its own."""
    form, _, rest = delimiter.partition(":")
    return unescaped(rest) if form == "text" else {"line": "\n", "sentence": " "}.get(form, "\n\n")


def _text_bytes(text: object, name: str) -> bytes:
    require(isinstance(text, str) and text != "", f"{name} {text!r} is no text", "give at least one character")
    try:
        data = str(text).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} {text!r} is no UTF-8", hint="half a character stands in it") from None
    require(len(data) <= MAX_STOP_BYTES, f"{name} has {len(data)} bytes", f"give at most {MAX_STOP_BYTES}")
    return data


def _delimiter(delimiter: str) -> tuple[int, Wanted | None, int]:
    """The events, what is wanted and the number of tokens that a delimiter comes to."""
    require(isinstance(delimiter, str), f"delimiter {delimiter!r} is no text")
    form, colon, rest = delimiter.partition(":")
    if delimiter in _EVENTS:
        return _EVENTS[delimiter], None, 0
    if delimiter == "sentence":
        return 0, SENTENCE, 0
    if colon and form == "tokens":
        fine = rest.isascii() and rest.isdigit() and len(rest) < 10 and 1 <= int(rest) <= MAX_TOKENS
        require(fine, f"delimiter {delimiter!r} has no number from 1 to {MAX_TOKENS} behind the colon", "such as tokens:64")
        return 0, None, int(rest)
    if colon and form in ("re", "text"):
        return 0, (pattern if form == "re" else literal)(rest), 0
    forms = {known.partition(":")[0]: known for known in DELIMITERS}
    near = difflib.get_close_matches(form.lower(), forms, 1, 0.5)
    hint = f"did you mean {forms[near[0]]!r}?" if near else f"one of: {', '.join(DELIMITERS)}"
    raise ConfigError(f"delimiter {delimiter!r} is unknown", hint=hint)
