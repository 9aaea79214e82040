"""The accepted steps of an answer: when they end it and why, and how their bytes become text."""

from __future__ import annotations

import pytest

from rsd_local.config import Limits
from rsd_local.decoding.solution import Solution
from rsd_local.errors import Cancelled, ConfigError, ContextFull
from rsd_local.segments import Segmenter
from rsd_local.steps import Score, Step

OFF = Limits(repeats=0)


def step(text: str | bytes, ended: str = "delimiter", tokens: int = 3) -> Step:
    return Step([5] * tokens, text if isinstance(text, bytes) else text.encode(), ended)  # type: ignore[arg-type]


def reasons(limits: Limits, *steps: Step) -> list[str | None]:
    solution, found = Solution(limits, Segmenter()), []
    for one in steps:
        solution.accept(one, "draft")
        found.append(solution.reason)
    return found


def test_every_way_to_end_has_its_own_reason() -> None:
    assert reasons(Limits(tokens=100, steps=4), *(step(f"{n}\n\n") for n in range(4))) == [None, None, None, "steps"]
    assert reasons(Limits(), step("end", "end")) == ["stop"]
    assert reasons(Limits(), step("a", "stop")) == ["stop"], "a stop string is the caller's own end"
    assert reasons(Limits(), step("no room", "context")) == ["context"]
    assert reasons(Limits(tokens=3), step("cut", "length")) == ["length"]
    assert reasons(Limits(), step("cut", "length")) == [None], "a step that is cut is no end of the solution"
    assert reasons(Limits(tokens=3, steps=1), step("end", "end")) == ["stop"], "the end of text counts before a limit"


def times(*texts: str) -> list[str | None]:
    return reasons(Limits(repeats=3), *map(step, texts))


def test_a_step_again_and_again_ends_the_solution_only_in_a_row() -> None:
    assert times("a\n\n", "a\n\n", "a") == [None, None, "repetition"]
    assert times("a\n\n", " a\n\n", "a\n\n\n") == [None, None, "repetition"], "white space around it makes no other step"
    assert times("a\n\n", "b\n\n", "a\n\n", "c\n\n", "a\n\n", "d\n\n", "a") == [None] * 7
    assert times("a", "a", "b", "a", "a", "b", "a", "a") == [None] * 8


@pytest.mark.parametrize("length", range(1, 9))
def test_a_cycle_of_steps_ends_the_solution_with_its_last_repeat(length: int) -> None:
    cycle = [f"step {number}\n\n" for number in range(length)]
    assert times("first\n\n", *cycle * 3) == [None] * 3 * length + ["repetition"]
    assert times("first\n\n", *cycle * 2, *cycle[:-1], "other\n\n") == [None] * (3 * length + 1)


def test_longer_cycles_are_none() -> None:
    cycle = [f"step {number}\n\n" for number in range(9)]
    assert times(*cycle * 4) == [None] * 36


def test_dividers_never_end_a_solution() -> None:
    assert times("---\n\n", "---\n\n", "---\n\n", "---\n\n") == [None] * 4
    assert times(*["***\n\n", "---\n\n"] * 5) == [None] * 10
    assert times("1+1=2\n\n", "---\n\n", "2+1=3\n\n", "---\n\n", "3+1=4\n\n", "---\n\n") == [None] * 6
    assert times("---\n\n", "π\n\n", "---\n\n", "π\n\n", "---\n\n", "π\n\n") == [None] * 5 + ["repetition"], "a letter is no divider"


def test_zero_repeats_are_off_and_one_is_refused() -> None:
    assert reasons(OFF, *[step("again\n\n")] * 50) == [None] * 50
    assert reasons(Limits(repeats=2), step("a"), step("a")) == [None, "repetition"]
    for repeats in (1, -1):
        with pytest.raises(ConfigError, match="neither 0"):
            Limits(repeats=repeats)


def test_a_character_that_a_limit_cuts_comes_whole_with_the_step_that_completes_it() -> None:
    solution = Solution(Limits(), Segmenter())
    raw = "né 🎲".encode()
    steps = [step(raw[:3], "length"), step(raw[3:6], "length"), step(raw[6:], "end")]
    parts = [solution.accept(one, "draft").text for one in steps]
    assert "".join(parts) == "né 🎲" == solution.text
    assert "\ufffd" not in "".join(parts)


@pytest.mark.parametrize("ended", ["end", "length", "context"])
def test_a_character_whose_rest_never_comes_is_marked_where_the_solution_ends(ended: str) -> None:
    solution = Solution(Limits(tokens=3), Segmenter())
    event = solution.accept(step("a🎲".encode()[:3], ended), "draft")
    assert solution.reason is not None and event.text == "a\ufffd" == solution.text


def test_a_try_at_a_step_reads_on_from_a_character_that_was_cut_and_leaves_no_trace() -> None:
    solution, raw = Solution(Limits(), Segmenter()), "🎲".encode()
    solution.accept(step(raw[:2], "length"), "draft")
    for _ in range(2):
        decode = solution.decoder()
        assert [decode(raw[2:3]), decode(raw[3:] + b"!")] == ["", "🎲!"]
    assert solution.accept(step(raw[2:], "end"), "draft").text == "🎲"


def test_a_step_takes_no_more_than_what_is_left_of_the_solution() -> None:
    solution = Solution(Limits(tokens=10, step_tokens=4), Segmenter())
    rooms = []
    while solution.reason is None:
        rooms.append(solution.room)
        solution.accept(step(f"{rooms}", "length", solution.room), "draft")
    assert rooms == [4, 4, 2] and solution.reason == "length"


def test_events_count_up_and_say_who_wrote_and_who_scored() -> None:
    solution = Solution(OFF, Segmenter())
    first = solution.accept(step("a\n\n"), "draft", Score(0.25, "judge"))
    second = solution.accept(step("b\n\n", tokens=5), "target", Score(None, "judge", failed=True))
    third = solution.accept(step("c\n\n"), "target")
    assert [(one.index, one.author, one.reward, one.reward_by, one.reward_failed, one.tokens) for one in (first, second, third)] == [
        (0, "draft", 0.25, "judge", False, 3),
        (1, "target", None, "judge", True, 5),
        (2, "target", None, "", False, 3),
    ]


def test_unchecked_and_failed_are_counted_apart() -> None:
    solution = Solution(OFF, Segmenter())
    for score in (Score(0.5), Score(None), Score(None, failed=True), Score(None), Score(0.0)):
        solution.count(score)
    end = solution.finished({})
    assert (end.non_finite_rewards, end.unchecked_steps) == (1, 2)


def test_a_full_context_ends_a_solution_that_has_a_step_and_refuses_one_that_has_none() -> None:
    solution = Solution(OFF, Segmenter())
    with pytest.raises(ContextFull), solution.growing():
        raise ContextFull("full")
    solution.accept(step("a\n\n"), "draft")
    with solution.growing():
        raise ContextFull("full")
    assert solution.reason == "context"
    with solution.growing():
        raise Cancelled("cancelled")
    assert solution.finished({}).reason == "cancelled"
    with pytest.raises(KeyboardInterrupt), solution.growing():
        raise KeyboardInterrupt


def test_the_answer_is_that_of_the_text_so_far() -> None:
    solution = Solution(OFF, Segmenter())
    solution.accept(step(r"so \boxed{1"), "draft")
    assert solution.answer is None
    solution.accept(step("2}\n\n"), "draft")
    assert solution.answer == "12" == solution.finished({}).answer


def test_a_character_that_never_comes_whole_is_in_no_event_and_not_in_the_text() -> None:
    """As where the context is full, or somebody cancels, behind a step that a limit cut; the next step would have had its rest."""
    solution = Solution(OFF, Segmenter())
    shown = "".join(
        solution.accept(one, "draft").text for one in (step("né".encode()[:2], "length"), step("é!\u00e9".encode()[1:-1], "length"))
    )
    solution.reason = "context"
    assert solution.text == shown == "né!"
    ended = Solution(Limits(tokens=3, repeats=0), Segmenter())
    assert ended.accept(step("né".encode()[:2], "length"), "draft").text == ended.text == "n\ufffd", (
        "an end that a step brings is told with it"
    )
