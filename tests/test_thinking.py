"""Models that think before they answer: tags, thoughts and answers apart, budgets, and what is kept of a thought."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tiny import chain, write_script

from rsd_local import Params, Prompt, Reasoner, Result, StepDone, TextWritten, Trio
from rsd_local.config import Limits, RoleConfig, Search, Thinking, Weighting
from rsd_local.errors import ConfigError
from rsd_local.runtime import Model, opens_thought, prompt_tokens
from rsd_local.steps import Step

MARKS = {
    "qwen": ("<think>", "</think>"),
    "mistral": ("[THINK]", "[/THINK]"),
    "gemma": ("<|channel>", "<channel|>"),
    "harmony": ("<|start|>", "<|channel|>", "<|message|>", "<|end|>"),
}
WORDS = [
    "Hm",
    ". One?\n\n",
    " Two",
    ".\n\n",
    "So",
    " it is.",
    "\n\nThat is",
    " \\boxed{4}.",
    "thought\n",
    "assistant",
    "analysis",
    "final",
    "go:",
]
LETTERS = tuple("abcdefghijkl")
THOUGHT = ("Hm", ". One?\n\n", " Two", ".\n\n", "So", " it is.")
ANSWER = ("\n\nThat is", " \\boxed{4}.")
TURNS = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}go:"
SWITCHED = TURNS + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
Scripted = Callable[..., Path]


@pytest.fixture
def scripted(tmp_path: Path) -> Scripted:
    """Writes models with the tags of a family as control tokens."""

    def made(family: str, then: dict[str, str], template: str = TURNS, name: str = "model") -> Path:
        marks = MARKS[family]
        return write_script(tmp_path / f"{name}.gguf", [*marks, *WORDS], then, template=template, control=marks)

    return made


def opening(family: str) -> tuple[str, ...]:
    return {"gemma": ("<|channel>", "thought\n"), "harmony": ("<|channel|>", "analysis", "<|message|>")}.get(family, MARKS[family][:1])


def thinking_script(family: str, thought: tuple[str, ...] = THOUGHT, end: tuple[str, ...] | None = None) -> dict[str, str]:
    """A model that thinks, closes its thought and answers."""
    closes = MARKS[family][-1:] if end is None else end
    return chain(*opening(family), *thought, *closes, *ANSWER) | {"go:": opening(family)[0]}


def open_pair(draft: Path, target: Path | None = None, **settings: object) -> Reasoner:
    """A trio whose reward is the draft's own confidence, which is 1 for what is scripted."""
    return Reasoner.open(Trio(RoleConfig(draft), RoleConfig(target or draft), reward_kind="confidence", **settings))  # type: ignore[arg-type]


@pytest.fixture
def models() -> Iterator[Callable[[Path], Model]]:
    opened: list[Model] = []

    def made(path: Path) -> Model:
        opened.append(Model(RoleConfig(path)))
        return opened[-1]

    yield made
    for model in opened:
        model.close()


@pytest.mark.parametrize("family", MARKS)
def test_tags_are_the_same_bytes_in_every_family(family: str, scripted: Scripted, models: Callable[[Path], Model]) -> None:
    model = models(scripted(family, {}))
    own = [*opening(family), *THOUGHT, MARKS[family][-1]]
    tokens = [model.tokenize(text, special=True, continues=True)[-1] for text in own]
    reader = model.spelling.reader()
    assert b"".join(map(reader.piece, tokens)) == b"<think>" + "".join(THOUGHT).encode() + b"</think>"
    begun, written = len(opening(family)), "".join(THOUGHT).encode()
    made = model.spelling.tokens(b"<think>" + written, thought=True)
    assert made[:begun] == tokens[:begun] and b"".join(map(model.piece, made[begun:])) == written
    closed = model.spelling.tokens(b" it is.</think>", thought=True)
    text = closed[: len(closed) - len(model.spelling.closing)]
    assert closed[len(text) :] == model.spelling.closing and model.spelling.closing[0] == tokens[-1]
    assert b"".join(map(model.piece, text)) == b" it is."
    assert model.special_tokens(model.spelling.tokens(b"</think>", thought=False)) == [], "in an answer it is text"


def test_headers_of_harmony_are_no_text(scripted: Scripted, models: Callable[[Path], Model]) -> None:
    model = models(scripted("harmony", {}))

    def read(*texts: str) -> list[bytes]:
        reader = model.spelling.reader()
        return [reader.piece(model.tokenize(text, special=True, continues=True)[-1]) for text in texts]

    final = ("<|start|>", "assistant", "<|channel|>", "final", "<|message|>")
    assert read(*final, "go:") == [b"", b"", b"", b"", b"", b"go:"]
    assert read("<|end|>", *final[:3], "analysis", "<|message|>", "Hm") == [b"</think>", b"", b"", b"", b"", b"<think>", b"Hm"]
    assert read("<|start|>", "go:", "Hm") == [b"", b"<|start|>go:", b"Hm"], "what only begins like a header is text, as llama.cpp has it"
    assert model.spelling.closing == [model.tokenize(text, special=True, continues=True)[-1] for text in ("<|end|>", *final)]


@pytest.mark.parametrize("family", ["qwen", "mistral", "gemma"])
@pytest.mark.parametrize("strategy", ["rsd", "target", "draft", "speculative", "majority"])
def test_thought_and_answer_are_apart(family: str, strategy: str, scripted: Scripted) -> None:
    with open_pair(scripted(family, thinking_script(family)), width=9) as reasoner:
        with reasoner.run("2+2", strategy=strategy) as run:  # type: ignore[arg-type]
            events = list(run)
            result = run.result()
    assert result.thought == "".join(THOUGHT) and result.text == "That is \\boxed{4}." and result.answer == "4"
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [(step.part, step.text) for step in steps] == [
        ("thought", "Hm. One?\n\n"),
        ("thought", " Two.\n\n"),
        ("thought", "So it is."),
        ("answer", "\n\nThat is \\boxed{4}."),
    ]
    if strategy != "majority":  # a sample's text is shown once it has won
        for part in ("thought", "answer"):
            shown = "".join(event.text for event in events if isinstance(event, TextWritten) and event.part == part)
            assert shown == "".join(step.text for step in steps if step.part == part)


def test_what_was_rejected_was_thought_too(scripted: Scripted) -> None:
    draft, target = (scripted("mistral", thinking_script("mistral"), name=name) for name in ("draft", "target"))
    with open_pair(draft, target) as reasoner:
        result = reasoner.solve("2+2", Params(weighting=Weighting("constant", probability=0.0)))
    assert [step.author for step in result.steps] == ["target"] * 4 and result.thought == "".join(THOUGHT)
    assert [step.rejected and step.rejected.text for step in result.steps] == [step.text for step in result.steps]


@pytest.mark.parametrize(
    ("budget", "kept"),
    [(1, "Hm. One?\n\n"), (2, "Hm. One?\n\n"), (3, "Hm. One?\n\n"), (4, "Hm. One?\n\n Two.\n\n"), (99, "".join(THOUGHT))],
)
@pytest.mark.parametrize("strategy", ["rsd", "target", "draft", "speculative", "majority"])
def test_a_thought_ends_with_the_step_that_is_behind_its_budget(budget: int, kept: str, strategy: str, scripted: Scripted) -> None:
    """The opening tag counts too; what the budget closes ends in a byte of its own, behind which this model answers."""
    path = scripted("qwen", thinking_script("qwen") | {"<0x0A>": " \\boxed{4}."})
    with open_pair(path, width=9) as reasoner:
        result = reasoner.solve("2+2", Params(thinking=Thinking(budget=budget)), strategy=strategy)  # type: ignore[arg-type]
    assert result.thought == kept and result.answer == "4"
    assert result.text == ("\\boxed{4}." if budget < 99 else "That is \\boxed{4}.")
    assert [step.part for step in result.steps][-2:] == ["thought", "answer"]


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A model that thinks in one line without an end, in a thought that its prompt opens; behind it, it goes on from b."""
    marks = MARKS["qwen"]
    template = TURNS.replace("go:", "<think>\n{# </think> #}go:")
    then = chain(*LETTERS) | {"go:": "a", LETTERS[-1]: "a", "</think>": "b", "<0x0A>": "b"}
    return write_script(tmp_path / "endless.gguf", [*marks, *LETTERS, "go:"], then, template=template, control=marks)


def endlessly(model: Path, params: Params, delimiter: str = "paragraph", strategy: str = "draft") -> Result:
    role = RoleConfig(model, threads=1, trusted=True, flash_attention="off", cache_type="f32", ctx_size=512)
    with Reasoner.open(Trio(role, role, reward_kind="confidence", delimiter=delimiter, width=3, reuse=False)) as reasoner:
        return reasoner.solve("2+2", params, strategy=strategy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "delimiter", "strategy"),
    [
        (Limits(tokens=30, step_tokens=3, repeats=0), "paragraph", "draft"),
        (Limits(tokens=30, step_tokens=3, repeats=0), "paragraph", "target"),
        (Limits(tokens=30, repeats=0), "tokens:3", "draft"),
        (Limits(tokens=30, repeats=0), "tokens:3", "majority"),
    ],
)
def test_a_thought_without_delimiters_has_a_budget_too(endless: Path, limits: Limits, delimiter: str, strategy: str) -> None:
    """Its steps end by their length, or are counted by whoever writes a whole answer at once."""
    made = endlessly(endless, Params(limits=limits, thinking=Thinking(budget=5), search=Search(samples=2)), delimiter, strategy)
    assert made.thought == "abcdef" and made.text.startswith("bcdefghijkl")


def test_a_stop_string_that_begins_in_what_closes_a_thought_takes_nothing_of_the_thought(endless: Path) -> None:
    made = endlessly(endless, Params(limits=Limits(tokens=30, repeats=0, stop=("\n\nb",)), thinking=Thinking(budget=5)), "tokens:3")
    assert (made.thought, made.text, made.finish_reason) == ("abcdef", "", "stop")


def test_a_tag_in_the_middle_of_a_line_is_shown_as_it_counts(tmp_path: Path) -> None:
    """At the beginning of a step, where it might begin a thought."""
    marks, then = MARKS["qwen"], chain("a", "b", "<think>", "c", "d") | {"go:": "a"}
    template = TURNS.replace("go:", "go:{# </think> #}")
    model = write_script(tmp_path / "literal.gguf", [*marks, *LETTERS, "go:"], then, template=template, control=marks)
    role = RoleConfig(model, threads=1, trusted=True, flash_attention="off", cache_type="f32", ctx_size=512)
    with Reasoner.open(Trio(role, role, reward_kind="confidence", reuse=False)) as reasoner:
        events = list(reasoner.stream("2+2", Params(limits=Limits(tokens=30, step_tokens=2, repeats=0)), strategy="draft"))
        with reasoner.run("2+2", Params(limits=Limits(tokens=30, step_tokens=2, repeats=0)), strategy="draft") as run:
            written = [event for event in run if isinstance(event, TextWritten)]
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [step.text for step in steps] == ["ab", "<think>c", "d"] and {step.part for step in steps} == {"answer"}
    assert "".join(event.text for event in written) == "ab<think>cd" and {event.part for event in written} == {"answer"}


def test_a_budget_costs_the_tokens_of_a_tag_and_nothing_else(scripted: Scripted) -> None:
    path = scripted("mistral", thinking_script("mistral") | {"[/THINK]": ANSWER[0]})
    with open_pair(path) as reasoner:
        counters = reasoner.solve("2+2", Params(thinking=Thinking(budget=1)), strategy="target").counters["target"]
        opened = counters.opening_tokens
    assert counters.generated_tokens == 3 + 2 + 1, "a tag, a step, the answer, its end; the closing tag is not written"
    assert counters.prompt_tokens == opened + 1 and counters.evaluated_tokens == opened + 3 + 1 + 2


@pytest.mark.parametrize("accepted", [0.0, 1.0])
@pytest.mark.parametrize("family", ["qwen", "mistral", "gemma"])
def test_thinking_costs_the_rows_of_its_tokens(family: str, accepted: float, scripted: Scripted) -> None:
    """Tags are tokens like any other: written once by whoever writes, read once by the other, and the last token of all by nobody."""
    draft, target = (scripted(family, thinking_script(family), name=name) for name in ("draft", "target"))
    params = Params(weighting=Weighting("constant", probability=accepted), search=Search(fallback="off"))
    with open_pair(draft, target) as reasoner:
        result = reasoner.solve("2+2", params)
    tokens = sum(step.tokens for step in result.steps)
    drafts, targets = result.counters["draft"], result.counters["target"]
    opening = drafts.opening_tokens
    assert result.thought == "".join(THOUGHT) and [step.part for step in result.steps] == ["thought"] * 3 + ["answer"]
    assert drafts.generated_tokens == tokens and drafts.discarded_tokens == (0 if accepted else tokens)
    assert targets.generated_tokens == (0 if accepted else tokens) and targets.discarded_tokens == 0
    if accepted:  # what stands is read when the target is first asked, so here by nobody
        assert drafts.evaluated_tokens == opening + tokens - 1 and targets.evaluated_tokens == 0
    else:  # each step of the target's is read by the draft but the last, whose token before it is evaluated once more
        read = tokens - result.steps[-1].tokens
        assert targets.evaluated_tokens == opening + tokens - 1
        assert drafts.evaluated_tokens >= opening + tokens - 1 and drafts.prompt_tokens <= opening + read


def test_a_conversations_caches_are_cut_back_to_what_was_said(scripted: Scripted) -> None:
    """The next turn goes on from the prompt of the one before: the thought behind it is forgotten, the answer is read without it."""
    with open_pair(scripted("qwen", thinking_script("qwen"))) as reasoner, reasoner.converse() as talk:
        first = talk.solve("2+2")
        second = talk.solve("3+3")
        model = reasoner.trio.draft.model
        asked = Prompt.of("2+2"), Prompt.of("2+2").then("".join(ANSWER), "3+3")
        before, after = (prompt_tokens(model, reasoner.read_prompt(prompt)) for prompt in asked)
    shared = next((place for place, token in enumerate(before) if after[place] != token), len(before))
    assert first.thought and second.thought and first.counters["draft"].cached_tokens == 0
    assert second.counters["draft"].cached_tokens == shared >= len(before) - 1
    assert second.counters["draft"].opening_tokens == len(after)


def test_a_thought_that_never_ends_leaves_no_answer(scripted: Scripted) -> None:
    path = scripted("qwen", thinking_script("qwen", end=()) | {" it is.": "Hm"})
    with open_pair(path) as reasoner:
        result = reasoner.solve("2+2", Params(limits=Limits(tokens=40, repeats=0)))
    assert result.finish_reason == "length" and result.text == "" and result.answer is None
    assert result.thought.startswith("".join(THOUGHT) + "Hm")


def test_a_prompt_opens_and_closes_thoughts(scripted: Scripted, models: Callable[[Path], Model]) -> None:
    model = models(scripted("qwen", {}, SWITCHED))
    prompt = Prompt.of("2+2")

    def end(mode: str) -> str:
        tokens = prompt_tokens(model, prompt, Thinking(mode))  # type: ignore[arg-type]
        return "".join(model.token_text(token) for token in tokens).replace("<0x0A>", "\n").partition("go:")[2]

    assert [end(mode) for mode in ("auto", "on", "off")] == ["", "<think>\n", "<think>\n\n</think>\n\n"]
    assert [opens_thought(model, prompt, Thinking(mode)) for mode in ("auto", "on", "off")] == [False, True, False]  # type: ignore[arg-type]


def test_an_answer_may_begin_inside_its_thought(scripted: Scripted) -> None:
    path = scripted("mistral", chain(*THOUGHT, "[/THINK]", *ANSWER) | {"[THINK]": "Hm"}, TURNS)
    with open_pair(path, think="on") as reasoner:
        result = reasoner.solve("2+2")
        off = reasoner.solve("2+2", Params(thinking=Thinking("off")))
    assert result.thought == "".join(THOUGHT) and result.text == "That is \\boxed{4}."
    assert off.thought == "" and [step.part for step in off.steps] == ["answer"] * len(off.steps)


def test_models_of_two_families_think_together(scripted: Scripted) -> None:
    """What one wrote is in the other's cache with the other's own tags."""
    draft = scripted("mistral", thinking_script("mistral"), name="draft")
    target = scripted("gemma", thinking_script("gemma"), name="target")
    with open_pair(draft, target) as reasoner:
        assert reasoner.solve("2+2").thought == "".join(THOUGHT)
        with closing(reasoner.trio.writer("target", Prompt.of("2+2"))) as writer:
            before = len(writer.sequence)
            writer.read(Step([999], b"<think>Hm. One?\n\n", "delimiter", part="thought"))
            writer.read(Step([999], b"So it is.</think>", "delimiter", part="thought"))
            model = reasoner.trio.target.model
            spelled = [model.token_text(token) for token in writer.sequence.tokens[before:]]
    assert spelled[:2] == ["<|channel>", "thought\n"] and spelled[-1] == "<channel|>" and spelled.count("<|channel>") == 1
    assert "think" not in "".join(spelled)


def test_a_conversation_goes_on_without_its_thoughts(scripted: Scripted) -> None:
    with open_pair(scripted("qwen", thinking_script("qwen"))) as reasoner, reasoner.converse() as talk:
        assert talk.solve("2+2").thought
        assert talk.turns == [("2+2", "".join(ANSWER))]
        assert "think" not in str(talk.prompt("And?").messages)


def test_what_cannot_be_asked_is_refused(scripted: Scripted, tmp_path: Path) -> None:
    plain = write_script(tmp_path / "plain.gguf", WORDS, chain("So"), template=TURNS)
    with open_pair(plain) as reasoner, pytest.raises(ConfigError, match="neither draft nor target thinks"):
        reasoner.solve("2+2", Params(thinking=Thinking("on")))
    with pytest.raises(ConfigError, match="neither"):
        open_pair(plain, think="on")
    for wrong in ({"mode": "maybe"}, {"budget": -1}, {"template": (("messages", "x"),)}, {"template": (("a", [1]),)}):
        with pytest.raises(ConfigError):
            Thinking(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("every", "asked"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2, 3]), (0, [3])])
@pytest.mark.parametrize("candidates", [1, 2])
def test_a_reward_may_look_at_some_steps_of_a_thought_or_at_none(every: int, asked: list[int], candidates: int, scripted: Scripted) -> None:
    """This one rejects all that it sees; what it does not see is the draft's."""
    seen: list[str] = []

    def check(prompt: Prompt, steps: tuple[str, ...], step: str) -> float:
        seen.append(step)
        return 0.0

    trio = Trio(*[RoleConfig(scripted("qwen", thinking_script("qwen")))] * 2, reward_kind="verifier", verifier=check, width=candidates + 1)
    params = Params(thinking=Thinking(scored=every), search=Search(candidates=candidates))
    with Reasoner.open(trio) as reasoner:
        result = reasoner.solve("2+2", params)
    assert [step.index for step in result.steps if step.author == "target"] == asked
    assert result.thought == "".join(THOUGHT) and result.answer == "4" and result.unchecked_steps == 0
    assert len(seen) == len(asked) * candidates
