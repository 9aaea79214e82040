"""Text as it is written: what a reader is shown of the last try at each step is that step's text, to the last byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from test_rsd import QUESTION, role
from tiny import chain, write_model, write_script

from rsd_local import Limits, Params, Reasoner, Sampling, Trio, Weighting
from rsd_local.config import Fallback, Search, Strategy
from rsd_local.decoding import STRATEGIES
from rsd_local.events import Drafted, Event, Finished, StepDone, TextWritten

WARM = Sampling(temperature=1.0, top_k=20, seed=3)
LIMITS = Limits(tokens=60, step_tokens=7, repeats=0)
HALF = Weighting("constant", probability=0.5)
SHOWN = ("rsd", "auto", "target", "draft", "speculative", "step-best-of-n")
"""The strategies that write their answer step by step; the others choose among whole solutions that nobody sees."""


@dataclass
class Reader:
    """Puts together what it is shown, as a page or a terminal would.

    Attributes:
        written: of the try that is under way.
        drafted: of the draft's last try at this step.
        shown: the text of the accepted steps, as it was shown.
    """

    written: str = ""
    drafted: str | None = None
    shown: list[tuple[str, str]] = field(default_factory=list)
    pieces: int = 0

    def take(self, event: Event) -> None:
        """Takes the next event."""
        if isinstance(event, TextWritten):
            assert event.text and event.index == len(self.shown)
            self.written += event.text
            self.pieces += 1
        elif isinstance(event, Drafted):
            self.drafted, self.written = self.written, ""
        elif isinstance(event, StepDone):
            written = self.written if event.author == "target" or self.drafted is None else self.drafted
            self.shown.append((written, event.text))
            self.written, self.drafted = "", None


def read(events: Iterator[Event]) -> tuple[Reader, Finished]:
    reader = Reader()
    for event in events:
        reader.take(event)
    assert isinstance(event, Finished)
    return reader, event


@pytest.fixture(scope="module")
def reasoner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reasoner]:
    folder = tmp_path_factory.mktemp("written")
    roles = [role(write_model(folder / f"{seed}.gguf", "dense", seed)) for seed in range(3)]
    with Reasoner.open(Trio(*roles, width=7, reuse=False)) as opened:
        yield opened


@pytest.mark.parametrize("delimiter_tokens", [1, 2, 3, 7])
@pytest.mark.parametrize("strategy", SHOWN)
def test_what_is_shown_of_each_step_is_its_text(reasoner: Reasoner, strategy: Strategy, delimiter_tokens: int) -> None:
    """Random models write bytes that are no whole characters, and ones that a step's end cuts in two."""
    cut = 0
    for seed in range(4):
        limits = replace(LIMITS, step_tokens=delimiter_tokens)
        for weighting in (HALF, replace(HALF, redrafts=2), replace(HALF, hand_over=2)) if strategy == "rsd" else (HALF,):
            params = Params(replace(WARM, seed=seed), weighting, limits, Search(samples=3, fallback="on"))
            reader, end = read(reasoner.run(QUESTION, params, strategy=strategy))
            assert [shown for shown, _ in reader.shown] == [text for _, text in reader.shown]
            assert "".join(shown for shown, _ in reader.shown) == end.text
            cut += end.text.endswith("\ufffd")
            assert reader.pieces > (0 if strategy == "step-best-of-n" else len(reader.shown) / 2)
    assert cut, "no text of these ended within a character"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(4))
def test_text_comes_only_where_it_is_asked_for_and_only_of_answers_that_grow(reasoner: Reasoner, strategy: Strategy, seed: int) -> None:
    params = Params(replace(WARM, seed=seed), HALF, LIMITS, Search(samples=3, beams=2, branches=2))
    quiet = list(reasoner.stream(QUESTION, params, strategy=strategy))
    told = list(reasoner.run(QUESTION, params, strategy=strategy))
    assert not any(isinstance(event, TextWritten) for event in quiet)
    assert any(isinstance(event, TextWritten) for event in told) == (strategy in SHOWN)
    steps, same = ([event.text for event in events if isinstance(event, StepDone)] for events in (quiet, told))
    end = quiet[-1]
    assert isinstance(end, Finished) and steps == same and "".join(steps) == end.text


def test_a_text_event_says_which_step_and_who_writes_it(reasoner: Reasoner) -> None:
    params = Params(WARM, Weighting("constant", probability=0.0), LIMITS)
    authors: list[list[str]] = [[]]
    for event in reasoner.run(QUESTION, params):
        if isinstance(event, TextWritten):
            assert event.index == len(authors) - 1
            if authors[-1][-1:] != [event.author]:
                authors[-1].append(event.author)
        elif isinstance(event, StepDone):
            authors.append([])
    assert authors[:4] == [["draft", "target"]] * 4


TEXTS = ["one two\n\n", "three ST", "OP four\n\n", "five\n\nSTO", "P", "\n\n", "six", "\\boxed{1}"]


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[list[str]], Reasoner]]:
    """Opens trios whose draft and target write the same texts, each only once."""
    folder, made = tmp_path_factory.mktemp("scripted"), dict[str, Reasoner]()

    def opened(order: list[str]) -> Reasoner:
        name = "".join(order)
        if name not in made:
            model = role(write_script(folder / f"{len(made)}.gguf", TEXTS, chain(*order)), ctx_size=512)
            made[name] = Reasoner.open(Trio(model, model, reward_kind="confidence"))
        return made[name]

    yield opened
    for reasoner in made.values():
        reasoner.close()


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("fallback", ["off", "on"])
@pytest.mark.parametrize(
    ("strategy", "probability"), [("target", 0.0), ("draft", 0.0), ("speculative", 0.0), ("rsd", 0.0), ("rsd", 1.0)], ids=str
)
@pytest.mark.parametrize(
    ("order", "stop", "wanted"),
    [
        (["one two\n\n", "three ST", "OP four\n\n", "six"], "STOP", "one two\n\nthree "),
        (["one two\n\n", "three ST", "OP four\n\n", "six"], "ST", "one two\n\nthree "),
        (["one two\n\n", "three ST", "OP four\n\n", "six"], "o\n\nthr", "one tw"),
        (["one two\n\n", "three ST", "OP four\n\n", "six"], "one two\n\nth", ""),
        (["one two\n\n", "five\n\nSTO", "P", "six"], "STOP", "one two\n\nfive\n\n"),
        (["one two\n\n", "three ST", "six"], "STOP", "one two\n\nthree STsix"),
    ],
    ids=["tokens", "token", "steps", "all", "piece", "none"],
)
def test_a_stop_string_ends_the_text_before_it_and_nothing_of_it_is_shown(
    scripted: Callable[[list[str]], Reasoner],
    order: list[str],
    stop: str,
    wanted: str,
    strategy: Strategy,
    probability: float,
    fallback: Fallback,
    text: bool,
) -> None:
    limits = Limits(stop=(stop, "never"), repeats=0)
    params = Params(weighting=Weighting("constant", probability=probability), limits=limits, search=Search(fallback=fallback))
    reader, end = read(scripted(order).run("What?", params, strategy=strategy, text=text))
    assert end.reason == "stop" and end.text == wanted
    if text:
        assert [shown for shown, _ in reader.shown] == [text for _, text in reader.shown]
        shown = "".join(shown for shown, _ in reader.shown)
        # What an earlier step ended with is known to begin a stop string only once the next step has come.
        assert shown.startswith(wanted) and shown in "".join(order) and stop not in shown
        assert shown == wanted or (wanted + stop).startswith(shown)
