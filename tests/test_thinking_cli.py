"""Models that think, from the command line: flags, files, what is shown and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import refused, rsd
from test_thinking import ANSWER, MARKS, THOUGHT, TURNS, WORDS, chain, thinking_script
from tiny import write_script


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Flags of a trio that thinks, whose files advise a temperature."""
    folder = tmp_path_factory.mktemp("thinking")
    template = "{% if false %}[THINK][/THINK]{% endif %}" + TURNS  # real ones treat thoughts of earlier turns
    then = thinking_script("mistral") | {"[/THINK]": ANSWER[0]}
    file = write_script(
        folder / "thinker.gguf",
        [*MARKS["mistral"], *WORDS],
        then,
        template=template,
        control=MARKS["mistral"],
        sampling={"temp": 0.5, "top_k": 20},
    )
    return ["-md", file, "-m", file, "--reward-kind", "confidence", "-t", "1", "-c", "400"]


def test_the_answer_stands_alone_and_the_thought_is_shown(models: list[object]) -> None:
    done = rsd("solve", "2+2", *models)
    assert done.returncode == 0 and done.stdout == "4\n"
    assert "Hm. One?" in done.stderr and "That is \\boxed{4}." in done.stderr and "THINK" not in done.stderr
    made = json.loads(rsd("solve", "2+2", *models, "--json").stdout)
    assert (made["thought"], made["text"]) == ("".join(THOUGHT), "That is \\boxed{4}.")
    assert [step["part"] for step in made["steps"]] == ["thought"] * 3 + ["answer"]


def test_a_thought_is_sampled_as_the_file_advises_and_never_greedy_without_a_word(models: list[object]) -> None:
    assert "greedy" not in rsd("solve", "2+2", *models).stderr
    assert "greedy" in rsd("solve", "2+2", *models, "--temp", "0").stderr
    assert "greedy" not in rsd("solve", "2+2", *models, "--temp", "0", "--think", "off").stderr


def test_flags_and_files_say_how_long_is_thought(models: list[object], tmp_path: Path) -> None:
    made = json.loads(rsd("solve", "2+2", *models, "--think-budget", "2", "--json").stdout)
    assert made["thought"] == "Hm. One?\n\n" and made["answer"] == "4"
    trio = tmp_path / "trio.toml"
    roles = "".join(f'[{role}]\npath = "{models[1]}"\nthreads = 1\n' for role in ("draft", "target"))
    trio.write_text(f'reward_kind = "confidence"\nthink_budget = 2\nthink = "auto"\ntemplate_kwargs = {{ style = "short" }}\n{roles}')
    assert json.loads(rsd("solve", "2+2", "--trio", trio, "--json").stdout)["thought"] == "Hm. One?\n\n"
    assert json.loads(rsd("solve", "2+2", "--trio", trio, "--think-budget", "0", "--json").stdout)["thought"] == "".join(THOUGHT)
    said = rsd("config", "--trio", trio, "-tk", "n=3").stdout
    assert "think-budget" in said and 'template-kwargs  [["style", "short"], ["n", 3]]'.split()[0] in said


def test_a_chat_may_think_or_not(models: list[object]) -> None:
    done = rsd("chat", *models, stdin="2+2\n/think off\n2+2\n/think\n/think maybe\n")
    assert done.stdout.splitlines() == ["That is \\boxed{4}."] * 2
    assert done.stderr.count("Hm. One?") == 1 and "think off" in done.stderr and "'maybe'" in done.stderr and done.returncode == 1


def test_what_cannot_be_is_one_line(models: list[object]) -> None:
    refused(rsd("solve", "1+1", "--think", "on"), 2, "neither draft nor target thinks")
    refused(rsd("solve", "2+2", *models, "-tk", "style"), 2, "has no =")
    refused(rsd("solve", "2+2", *models, "-tk", "messages=1"), 2, "messages")
    refused(rsd("solve", "2+2", *models, "--think-budget", "-1"), 2, "think_budget")


def test_a_variable_that_no_template_has_is_warned_of(models: list[object], tmp_path: Path) -> None:
    file = write_script(tmp_path / "low.gguf", WORDS, chain("So"), template="{{ style }}" + TURNS)
    done = rsd("solve", "2+2", *models, "-m", file, "--reasoning-effort", "low", "-tk", "style=short", "-tk", "foo=1", "--temp", "0")
    assert done.returncode == 0 and "no effect of reasoning_effort, foo: " in done.stderr, done.stderr
    assert "no effect" not in rsd("solve", "2+2", *models, "-m", file, "-tk", "style=short").stderr
