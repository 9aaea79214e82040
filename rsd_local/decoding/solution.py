"""The accepted steps of one answer, and when it ends."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rsd_local.answers import boxed
from rsd_local.config import Limits
from rsd_local.errors import Cancelled, ContextFull
from rsd_local.events import Author, Counters, Finished, FinishReason, Role, StepDone
from rsd_local.roles import Writer
from rsd_local.segments import Scan, Segmenter
from rsd_local.steps import THOUGHT_BEGIN, THOUGHT_END, UNCHECKED, Part, Score, Step, inside_tags

_LONGEST_CYCLE = 8  # steps that come again and again


class Solution:
    """The accepted steps, the limits of their answer, and why it ended: ``reason``, None while it goes on.

    Args:
        limits: of the answer.
        segmenter: says where its steps end.
    """

    def __init__(self, limits: Limits, segmenter: Segmenter) -> None:
        self._limits = limits
        self._parts: dict[Part, bytearray] = {"thought": bytearray(), "answer": bytearray()}
        self._part: Part = "answer"  # of the last step
        self._unshown = 0  # bytes at the end of that step which close its thought
        self._scan = segmenter.start()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._last: list[bytes] = []  # the last steps, as far back as a repetition can be seen
        self.steps = 0
        self.tokens = self.target_tokens = 0
        self.failed = 0  # rewards that gave no number
        self.unchecked = 0  # steps that the reward had nothing to check of
        self.decided: Counter[str] = Counter()  # draft steps by the reward that decided about them
        self.reason: FinishReason | None = None

    @property
    def room(self) -> int:
        """Tokens that the next step may take."""
        return min(self._limits.step_tokens, self._limits.tokens - self.tokens)

    @property
    def text(self) -> str:
        """The solution so far, without its thought and the white space behind that."""
        text = self._shown("answer")
        return text.lstrip() if self._parts["thought"] else text

    @property
    def thought(self) -> str:
        """What was thought so far."""
        return self._shown("thought")

    def _shown(self, part: Part) -> str:
        """A part as its steps' events have it: a character whose rest has not come is in none of them."""
        raw = self._parts[part]
        waiting = len(self._decoder.getstate()[0]) if part == self._part else 0
        return raw[: len(raw) - waiting].decode("utf-8", "replace")

    @property
    def part(self) -> Part:
        """That the next step begins in."""
        return "thought" if self._scan.thinks else "answer"

    def part_of(self, raw: bytes) -> tuple[Part, int, int]:
        """What is known of the next step from the bytes that it has so far: its part, and which of them are surely no tag.

        Args:
            raw: its first bytes.
        """
        begun = raw.lstrip()
        if self.part == "answer" and len(begun) < len(THOUGHT_BEGIN) and THOUGHT_BEGIN.startswith(begun):
            return "answer", 0, 0
        if self.part == "answer" and not (begun.startswith(THOUGHT_BEGIN) and self._begins_thought(raw)):
            return "answer", 0, len(raw)
        first, last = inside_tags(raw)
        open_end = next((size for size in range(len(THOUGHT_END) - 1, 0, -1) if raw.endswith(THOUGHT_END[:size])), 0)
        return "thought", first, last - open_end if last == len(raw) else last

    def _begins_thought(self, raw: bytes) -> bool:
        """Whether the tag at the beginning of the next step's bytes counts; one in the middle of a line or in code does not."""
        scan = self.scan()
        scan.feed(raw[: raw.index(THOUGHT_BEGIN) + len(THOUGHT_BEGIN)])
        return scan.thinks

    @property
    def answer(self) -> str | None:
        """What stands in the last ``\\boxed{}``."""
        return boxed(self.text)

    def scan(self) -> Scan:
        """A scanner at the beginning of the next step, for one try at it."""
        scan = self._scan.copy()
        scan.begin(self.room)
        return scan

    def scan_after(self, step: Step) -> Scan:
        """A scanner at the beginning of the step behind one that is not accepted yet."""
        scan = self._scan.copy()
        _pass_over(scan, step)
        scan.begin(self.room_after(step))
        return scan

    def room_after(self, step: Step) -> int:
        """Tokens that the step behind one that is not accepted yet may take."""
        return min(self._limits.step_tokens, self._limits.tokens - self.tokens - len(step.tokens))

    @property
    def held_back(self) -> int:
        """How many bytes at the end of what is written may turn out to begin a stop string."""
        return self._scan.held_back

    def decoder(self) -> Callable[..., str]:
        """Turns the bytes of one try at the next step into text as they come; a cut character waits for its rest.

        What is returned takes bytes, and whether they are the last ones of the solution.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.setstate(self._decoder.getstate())
        return decoder.decode

    def accept(self, step: Step, author: Author, score: Score = UNCHECKED, *, last: bool | None = None, **rejected: object) -> StepDone:
        """Take a step, set the reason where the solution ends with it, and return its event.

        A character that a limit cut in two belongs to the step that completes it.

        Args:
            step: the step.
            author: who wrote it.
            score: of the draft's step at this place.
            last: whether nothing comes behind it, so that a cut character is text; where nobody says so, the reason does.
            rejected: fields of the event that only some strategies have.
        """
        self.reason = self.reason_after(step)
        before = self._parts[self._part]
        del before[max(0, len(before) - max(0, step.takes_back - self._unshown)) :]
        self._unshown = len(step.raw) - inside_tags(step.raw)[1] if step.part == "thought" else 0
        self._parts[step.part] += step.shown
        self._part = step.part
        _pass_over(self._scan, step)
        self.steps += 1
        self.tokens += len(step.tokens)
        self.target_tokens += len(step.tokens) if author == "target" else 0
        self._last = [*self._last[1 - _LONGEST_CYCLE * max(1, self._limits.repeats) :], step.raw.strip()]
        text = self._decoder.decode(step.shown, final=self.reason is not None if last is None else last)
        return StepDone(
            self.steps - 1, author, text, score.value, len(step.tokens), 0.0,
            part=step.part, reward_by=score.by, reward_failed=score.failed, **rejected,  # type: ignore[arg-type]
        )  # fmt: skip

    def reason_after(self, step: Step) -> FinishReason | None:
        """Why the solution would end with a step, None where it would go on."""
        if step.ended in ("end", "stop", "block"):
            return "stop"
        if step.ended == "context":
            return "context"
        if self.tokens + len(step.tokens) >= self._limits.tokens:
            return "length"
        if self._repeats([*self._last, step.raw.strip()]):
            return "repetition"
        return "steps" if self.steps + 1 >= self._limits.steps else None

    def count(self, score: Score) -> None:
        """Note whether a draft step's score was a number, failed, or had nothing to check."""
        self.failed += score.failed
        self.unchecked += score.value is None and not score.failed and not score.skipped
        if score.value is not None:
            self.decided[score.by] += 1

    @contextmanager
    def growing(self, *writers: Writer) -> Iterator[None]:
        """Around the work on one step: a cancel ends the solution, and so does a full context once there is a step.

        Args:
            writers: whose unfinished step is then taken back, so that it counts as discarded; each must ``begin`` behind a step
                that was accepted.
        """
        try:
            yield
        except ContextFull:
            if self.steps == 0:
                raise
            self.reason = "context"
        except Cancelled:
            self.reason = "cancelled"
        else:
            return
        for writer in writers:
            writer.forget()

    def finished(self, *parts: dict[Role, Counters]) -> Finished:
        """The final event, with counters by role."""
        counters = {role: made for part in parts for role, made in part.items()}
        return Finished(
            self.reason or "stop", self.text, self.answer, counters, self.failed, self.unchecked, dict(self.decided), self.thought
        )

    def _repeats(self, last: list[bytes]) -> bool:
        """Whether the last steps are one cycle again and again; dividers alone (no letter or digit) are none."""
        times = self._limits.repeats
        if times == 0:
            return False
        for length in range(1, _LONGEST_CYCLE + 1):
            cycle = last[-length:]
            if len(last) >= length * times and last[-length * times :] == cycle * times:
                return any(character.isalnum() for step in cycle for character in step.decode("utf-8", "replace"))
        return False


def _pass_over(scan: Scan, step: Step) -> None:
    """Let a scanner go on behind a step that is accepted."""
    scan.begin()
    scan.feed(step.raw)
    scan.thought_tokens += len(step.tokens) if step.part == "thought" else 0
