"""The layouts of Granite's and TRL's process reward models: each token, and the place where each reward is read."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from test_rewards import said, value
from tiny_vocabulary import WIDTH, write_bpe, write_spm

import rsd_local
from rsd_local.config import RoleConfig, TagLayout, Trio
from rsd_local.errors import BadHead, MissingTokens
from rsd_local.prompt import Prompt
from rsd_local.reasoner import Reasoner
from rsd_local.rewards.base import sigmoid
from rsd_local.rewards.heads import ValueHead, read_head
from rsd_local.rewards.layouts import Granite, Layout
from rsd_local.rewards.reading import ReadReward
from rsd_local.rewards.value_head import TokenClassification
from rsd_local.runtime import Engine, Model

QUESTION = "Tom has 3 apples, and buys 4 more. How many?"
STEPS = ["He has 3 apples.", "He buys 4, so\n3 + 4 = 7.", "So N is 7: Y."]
TEMPLATE = (Path(__file__).parent / "templates" / "granite3.3.jinja").read_text(encoding="utf-8")
MARKS = ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"]
WORDS = ["▁Y", "▁N", "▁So", "▁He", "ap", "so"]
SCRIPT = Path(__file__).parent.parent / "scripts" / "convert_prm.py"
Files = dict[str, Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Granite's kind of vocabulary, and the two kinds of SentencePiece."""
    folder = tmp_path_factory.mktemp("prm")
    user = ["\n\n", "\n", "  "]
    return {
        "bpe": write_bpe(folder / "bpe.gguf", "refact", TEMPLATE, control=["<|end|>", *MARKS], user=["\n\n"]),
        "spm": write_spm(folder / "spm.gguf", TEMPLATE, normal=WORDS, control=MARKS),
        "gemma": write_spm(folder / "gemma.gguf", TEMPLATE, normal=WORDS, control=MARKS, user=user, space=False),
    }


@pytest.fixture(params=["bpe", "spm", "gemma"])
def path(request: pytest.FixtureRequest, files: Files) -> Path:
    return files[request.param]


@pytest.fixture
def model(path: Path) -> Iterator[Model]:
    made = Model(role(path))
    yield made
    made.close()


def role(path: Path) -> RoleConfig:
    return RoleConfig(path, ctx_size=1024, flash_attention="off", cache_type="f32", trusted=True)


def head(separator: str = "\n\n", bos: bool = False) -> ValueHead:
    chance = np.random.default_rng(7)
    layer = chance.normal(size=(2, WIDTH)).astype(np.float32) / 8, chance.normal(size=2).astype(np.float32)
    return ValueHead("trl", (layer,), separator, bos)


def granites_text(steps: Sequence[str]) -> str:
    """The conversation of the model card, up to where the last answer is predicted."""

    def turn(who: str, what: str) -> str:
        return f"<|start_of_role|>{who}<|end_of_role|>{what}<|end_of_text|>\n"

    today = datetime.date.today().strftime("%B %d, %Y")
    told = f"Knowledge Cutoff Date: April 2024. Today's Date: {today}. You are Granite, developed by IBM. You are a helpful AI assistant."
    text = turn("system", told)
    for place, step in enumerate(steps):
        asked = f"{step} Is this response correct so far (Y/N)?"
        text += turn("user", asked if place else f"{QUESTION} {asked}") + turn("assistant", "Y")
    return text.removesuffix("Y<|end_of_text|>\n")


def trls_tokens(model: Model, steps: Sequence[str], separator: str, bos: bool) -> list[int]:
    """The row of ``tokenize_row``, up to the label of the last step."""
    parts = [QUESTION, *(part for step in steps for part in (step, separator))]
    return [model.bos] * bos + [token for part in parts for token in model.encode(part.encode(), False)]


def read_so_far(layout: Layout) -> Iterator[list[int]]:
    """All tokens up to the place where each step's reward is read."""
    tokens = layout.opening()
    for place, step in enumerate(STEPS):
        tokens = tokens + layout.step(place, said(f"{step}\n\n"))
        yield tokens + layout.query


def scored(trio: Trio) -> tuple[list[float], list[list[int]]]:
    """The score of each step, and what the scorer held then: after a wrong turn that is taken back, and in a fork."""
    with Reasoner.open(trio) as opened:
        scores, held = [], []
        reward, fresh = opened.trio.reward(Prompt.of(QUESTION)), opened.trio.reward(Prompt.of(QUESTION))
        assert isinstance(reward, ReadReward)
        for place, step in enumerate(STEPS):
            value(reward.start_score(said("Nonsense, and\nmore of it.\n\n")).result())
            reward.forget()
            scores.append(value(reward.start_score(said(f"{step}\n\n")).result()))
            held.append(list(reward._sequence.tokens))
            if place == 1:
                fork = reward.fork()
                again = value(fork.start_score(said(STEPS[2])).result())
                fork.close()
        for step in STEPS[:-1]:
            fresh.read(said(f"{step}\n\n"))
        assert value(fresh.start_score(said(STEPS[-1])).result()) == pytest.approx(scores[-1], abs=1e-5)
        assert again == pytest.approx(scores[-1], abs=1e-5)
        for one in (reward, fresh):
            one.close()
    return scores, held


def engine_of(model: Model) -> Engine:
    return Engine(model, role(model.path), 1, "test", reuse=False)


def test_granites_turns_are_the_conversation_of_its_card(model: Model) -> None:
    start = [model.bos] if model.adds_bos else []
    for place, tokens in enumerate(read_so_far(Granite(model, Prompt.of(QUESTION, "A system message, for those who write.")))):
        assert tokens == start + model.encode(granites_text(STEPS[: place + 1]).encode(), True)


def test_granites_reward_is_read_where_the_assistant_answers(model: Model) -> None:
    scores, held = scored(Trio(role(model.path), role(model.path), role(model.path), layout="granite", width=3, reuse=False))
    assert max(scores) - min(scores) > 0.01, "a slip of one step would not be seen"
    good, bad = (model.encode(word.encode(), False)[-1] for word in ("Y", "N"))
    assert model.piece(good).strip() == b"Y" and model.piece(bad).strip() == b"N"
    engine = engine_of(model)
    start = [model.bos] if model.adds_bos else []
    for place, score in enumerate(scores):
        whole = start + model.encode(granites_text(STEPS[: place + 1]).encode(), True)
        assert held[place] == whole
        beside = []
        for tokens in (whole, whole[:-1], [*whole, good]):
            sequence = engine.sequence(tokens)
            logits = sequence.read_logits().result()
            sequence.close()
            beside.append(sigmoid(float(logits[good]) - float(logits[bad])))
        assert score == pytest.approx(beside[0], abs=1e-5)
        assert min(abs(score - other) for other in beside[1:]) > 1e-3, "a slip of one token would not be seen"


def test_granite_needs_its_two_answers_and_a_template_of_turns(tmp_path: Path) -> None:
    numbered = "{% for m in messages %}{{ m.content }}{{ loop.index }}{% endfor %}"
    for control, template, why in (([*MARKS, "Y"], TEMPLATE, "no token for 'Y'"), (MARKS, numbered, "does not fit the layout granite")):
        model = Model(role(write_spm(tmp_path / f"{len(control)}.gguf", template, control=control)))
        try:
            with pytest.raises(MissingTokens, match=why):
                Granite(model, Prompt.of(QUESTION))
        finally:
            model.close()


@pytest.mark.parametrize(("separator", "bos"), [("\n\n", False), ("\n\n", True), ("\n", False), (" ки\n", True)])
def test_trls_row_is_encoded_part_by_part(model: Model, separator: str, bos: bool) -> None:
    layout = TokenClassification(model, head(separator, bos), Prompt.of(QUESTION, "A system message, for those who write."))
    for place, tokens in enumerate(read_so_far(layout)):
        assert tokens == trls_tokens(model, STEPS[: place + 1], separator, bos)
    assert tokens[:1] == [model.bos] or not bos


@pytest.mark.parametrize("bos", [False, True])
def test_trls_reward_is_the_head_on_the_separators_last_token(tiny: Files, bos: bool, tmp_path: Path) -> None:
    file, read = tmp_path / "head.safetensors", role(tiny["dense"])
    head(bos=bos).save(file)
    scores, held = scored(Trio(read, read, read, "value-head", head=file, width=3, reuse=False))
    assert max(scores) - min(scores) > 1e-3, "a slip of one step would not be seen"
    model = Model(read)
    (weight, bias), engine = head().layers[0], engine_of(model)
    for place, score in enumerate(scores):
        whole = trls_tokens(model, STEPS[: place + 1], "\n\n", bos)
        assert held[place] == whole
        beside = []
        for tokens in (whole, whole[:-1], [*whole, whole[1]]):
            sequence = engine.sequence(tokens)
            wrong, right = weight @ sequence.read_hidden().result() + bias
            sequence.close()
            beside.append(float(np.exp(right) / (np.exp(right) + np.exp(wrong))))  # label 1 is a right step
        assert score == pytest.approx(beside[0], abs=1e-5)
        assert min(abs(score - other) for other in beside[1:]) > 1e-3, "a slip of one token would not be seen"
    model.close()


def test_a_head_of_trl_keeps_its_separator_and_its_beginning_of_text(tmp_path: Path, files: Files) -> None:
    file = tmp_path / "head.safetensors"
    head("\n", True).save(file)
    made = read_head(file)
    assert isinstance(made, ValueHead) and (made.layout, made.separator, made.bos) == ("trl", "\n", True)
    np.testing.assert_array_equal(made.layers[0][0], head().layers[0][0])
    head("", True).save(file)
    with pytest.raises(BadHead, match="no separator"):
        read_head(file)
    ValueHead("trl", ((np.ones((3, WIDTH), np.float32), np.zeros(3, np.float32)),)).save(file)
    with pytest.raises(BadHead, match="do not fit together"):
        read_head(file)
    model = Model(role(files["bpe"]))
    model.bos = -1
    with pytest.raises(MissingTokens, match="no beginning-of-text token"):
        TokenClassification(model, head(bos=True), Prompt.of(QUESTION))
    model.close()


@pytest.mark.parametrize("bos", [None, "<|endoftext|>"])
def test_the_converter_takes_a_head_of_trl_alone(tmp_path: Path, bos: str | None) -> None:
    from safetensors.numpy import save_file

    folder, (weight, bias) = tmp_path / "Tiny-PRM", head().layers[0]
    folder.mkdir()
    save_file({"score.weight": weight, "score.bias": bias, "model.norm.weight": np.ones(WIDTH, np.float32)}, folder / "model.safetensors")
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": bos}))
    call = [sys.executable, str(SCRIPT), str(folder), "--out", str(tmp_path / "out"), "--head-only"]
    here = os.environ | {"PYTHONPATH": str(Path(rsd_local.__file__).parents[1])}
    done = subprocess.run([*call, "--separator", r"\n"], capture_output=True, text=True, env=here)
    assert done.returncode == 0, done.stderr
    made = read_head(Path(done.stdout.strip()))
    assert isinstance(made, ValueHead) and (made.layout, made.separator, made.bos) == ("trl", "\n", bos is not None)
    for one, other in zip(made.layers[0], (weight, bias), strict=True):
        np.testing.assert_array_equal(one, other)
    save_file({"score.weight": np.ones((5, WIDTH), np.float32), "score.bias": np.ones(5, np.float32)}, folder / "model.safetensors")
    done = subprocess.run(call, capture_output=True, text=True, env=here)
    assert done.returncode == 1 and "5 classes" in done.stderr


def test_a_layout_has_a_name_that_settings_know(files: Files) -> None:
    layouts: list[TagLayout] = ["math-shepherd", "rlhflow", "granite"]
    read = role(files["spm"])
    assert [Trio(read, read, read, layout=layout).stages[0].layout for layout in layouts] == layouts
