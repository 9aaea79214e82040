"""The templates of families of models: as transformers renders them, with thoughts opened and closed where they are asked for."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_vocabulary import write_spm

from rsd_local.config import RoleConfig, Thinking
from rsd_local.errors import NoChatTemplate
from rsd_local.prompt import Prompt
from rsd_local.rewards.judge import Digit, Judge
from rsd_local.runtime import Model, opens_thought, prompt_tokens

FOLDER = Path(__file__).parent / "templates"
PINNED: dict[str, Any] = json.loads((FOLDER / "pinned.json").read_text(encoding="utf-8"))
THINK, HARMONY = ("<think>", "</think>"), ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")
# Of each family its control tokens, and what stands behind the template's own text to open a thought, and to have none.
FAMILIES = {
    "qwen3": (THINK, "<think>\n", ""),
    "qwen3.5": (THINK, "", ""),
    "smollm3": (THINK, "<think>\n", ""),
    "gpt-oss": (HARMONY, "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    "gemma4": (("<|channel>", "<channel|>"), "<|channel>thought\n", ""),
    "ministral3-reasoning": (("[THINK]", "[/THINK]"), "[THINK]", "[THINK][/THINK]"),
    "r1-distill-qwen": (THINK, "", ""),
    "granite3.3": ((), "<think>\n", ""),
    "qwen2.5": ((), "", ""),
    "phi3.5": ((), "", ""),
}
THINKS_BY_ITSELF = {"qwen3.5"}
NEVER_THINKS = {"qwen2.5", "phi3.5"}
MODES = ("auto", "on", "off")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Model]]:
    folder, models = tmp_path_factory.mktemp("families"), dict[str, Model]()

    def made(family: str) -> Model:
        if family not in models:
            template = (FOLDER / f"{family}.jinja").read_text(encoding="utf-8")
            words = ["Yes", "No", *"0123456789"]
            file = write_spm(folder / f"{family}.gguf", template, normal=words, control=FAMILIES[family][0], space=False)
            models[family] = Model(RoleConfig(file))
        return models[family]

    yield made
    for model in models.values():
        model.close()


def pinned(family: str, talk: str, mode: str) -> str:
    text: str = PINNED["texts"][family][f"{talk} {mode}"]
    for form in ("%Y-%m-%d", "%d %B %Y", "%B %d, %Y"):
        text = text.replace(f"<<{form}>>", datetime.datetime.now().strftime(form))
    return text.replace("▁", " ")  # which such a vocabulary writes for a space


def prompt_of(talk: str) -> Prompt:
    (role, first), *rest = PINNED["talks"][talk]
    system, question = (first, rest.pop(0)[1]) if role == "system" else ("", first)
    prompt = Prompt.of(question, system)
    while rest:
        prompt = prompt.then(rest.pop(0)[1], rest.pop(0)[1])
    return prompt


def spelled(model: Model, tokens: list[int]) -> str:
    """The text of tokens with that of control tokens."""
    return b"".join(model.piece(token) or model.token_text(token).encode() for token in tokens).decode().replace("▁", " ")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("talk", PINNED["talks"])
def test_a_prompt_is_what_transformers_makes_of_it_with_the_thought_that_is_asked_for(
    family: str, talk: str, opened: Callable[[str], Model]
) -> None:
    model, (_, opens, closes) = opened(family), FAMILIES[family]
    for mode in MODES:
        tokens = prompt_tokens(model, prompt_of(talk), Thinking(mode))  # type: ignore[arg-type]
        tail = {"auto": "", "on": opens, "off": closes}[mode]
        expected = pinned(family, talk, mode) + tail
        assert spelled(model, tokens) == (expected if expected.startswith("<s>") else f"<s>{expected}"), mode
        in_thought = opens_thought(model, prompt_of(talk), Thinking(mode))  # type: ignore[arg-type]
        assert in_thought == ((mode == "on" and family not in NEVER_THINKS) or (mode == "auto" and family in THINKS_BY_ITSELF))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", [Judge, Digit])
def test_a_judge_answers_behind_the_thought_that_it_does_not_have(
    family: str, layout: type[Judge | Digit], opened: Callable[[str], Model]
) -> None:
    model = opened(family)
    query = spelled(model, layout(model, Prompt.of("What is 2+2?")).query)
    whole = pinned(family, "question", "off") + FAMILIES[family][2]
    assert query.endswith(whole.rpartition("What is 2+2?")[2])


def test_a_variable_of_the_template_is_given_to_it(opened: Callable[[str], Model]) -> None:
    model = opened("gpt-oss")
    for effort in ("low", "high"):
        assert f"Reasoning: {effort}" in spelled(model, prompt_tokens(model, Prompt.of("2+2"), Thinking(effort=effort)))
    named = Thinking(template=(("model_identity", "You are a pocket calculator."),))
    assert "You are a pocket calculator." in spelled(model, prompt_tokens(model, Prompt.of("2+2"), named))


@pytest.mark.skipif(
    "RSD_TEMPLATES" not in os.environ, reason="RSD_TEMPLATES names no folder of chat templates, such as llama.cpp's models/templates"
)
def test_all_templates_of_a_folder_render_or_say_why_not(tmp_path: Path) -> None:
    files = sorted(Path(os.environ["RSD_TEMPLATES"]).glob("*.jinja"))
    refused: dict[str, str] = {}
    for file in files:
        template = file.read_text(encoding="utf-8")
        model = Model(
            RoleConfig(write_spm(tmp_path / f"{file.stem}.gguf", template, control=[tag for tag in THINK if tag in template], space=False))
        )
        try:
            for talk in PINNED["talks"]:
                for mode in MODES:
                    text = spelled(model, prompt_tokens(model, prompt_of(talk), Thinking(mode)))  # type: ignore[arg-type]
                    assert all(message.content.strip() in text for message in prompt_of(talk).messages), file.name
        except NoChatTemplate as error:
            refused[file.name] = str(error)
        finally:
            model.close()
    assert files and len(files) - len(refused) >= 0.94 * len(files), refused
    assert all(reason.count("\n") == 0 and "chat template" in reason for reason in refused.values())
