"""Answers that follow a grammar: every strategy, rejected steps, forks, two vocabularies. llama.cpp's own sampler says what may come."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cli import refused, rsd
from tiny import VOCABULARY, write_model, write_script

from rsd_local import Limits, Params, Reasoner, RoleConfig, Sampling, Search, Trio, Weighting, json_schema_to_grammar
from rsd_local.config import Strategy
from rsd_local.errors import ConfigError, DecodeFailed

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "ok": {"type": "boolean"},
    },
    "required": ["name", "age"],
}
CUT = Limits(tokens=400, repeats=0, step_tokens=5)
"""Steps that end in the middle of a word, so that each begins from a state within the grammar."""
HARD = Weighting("constant", probability=0.5)
"""Keeps every other step of the draft and rejects the rest."""


def trio_of(draft: Path, target: Path, **more: Any) -> Trio:
    roles = [RoleConfig(path, ctx_size=512, threads=1, cache_type="f32", trusted=True) for path in (draft, target)]
    return Trio(roles[0], roles[1], **({"reward_kind": "confidence", "system": "", "width": 4} | more))


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reasoner]:
    """Two random models of one vocabulary, single bytes for the most part."""
    folder = tmp_path_factory.mktemp("random")
    with Reasoner.open(trio_of(write_model(folder / "a.gguf", seed=1), write_model(folder / "b.gguf", seed=2, noise=0.3))) as reasoner:
        yield reasoner


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reasoner]:
    """A draft and a target of different vocabularies."""
    folder = tmp_path_factory.mktemp("other")
    words = [*VOCABULARY, '{"', '":', '",']
    draft, target = write_model(folder / "a.gguf", seed=3, vocabulary=words), write_model(folder / "b.gguf", seed=4)
    with Reasoner.open(trio_of(draft, target)) as reasoner:
        assert reasoner.trio.shared_tokens == 0
        yield reasoner


def params(schema: Any, seed: int = 0, temperature: float = 1.0, **more: Any) -> Params:
    sampling = Sampling(temperature, seed=seed, grammar=json_schema_to_grammar(schema))
    return Params(**({"sampling": sampling, "limits": CUT, "weighting": HARD} | more))


def scalars() -> st.SearchStrategy[Any]:
    bounds = st.tuples(st.integers(-120, 120), st.integers(0, 300))
    return st.one_of(
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": "a\\b\n"}, {"type": "string", "format": "date"}]),
        bounds.map(lambda pair: {"type": "integer", "minimum": pair[0], "maximum": sum(pair)}),
        bounds.map(lambda pair: {"type": "number", "minimum": pair[0] / 8, "exclusiveMaximum": sum(pair) / 8 + 1}),
        st.tuples(st.integers(0, 3), st.integers(0, 4)).map(lambda pair: {"type": "string", "minLength": pair[0], "maxLength": sum(pair)}),
        st.lists(st.one_of(st.integers(-9, 9), st.text(max_size=3), st.booleans()), min_size=1, max_size=3).map(
            lambda some: {"enum": some}
        ),
        st.sampled_from(["^[a-f]{1,3}-\\d$", '^(ab|\\\\)?"$', "^[^a-z]{2}$"]).map(lambda text: {"type": "string", "pattern": text}),
    )


def inside(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.text(alphabet='ab"\\ü\n ', max_size=3)
    arrays = st.tuples(children, st.integers(0, 2), st.integers(0, 2)).map(
        lambda parts: {"type": "array", "items": parts[0], "minItems": parts[1], "maxItems": parts[1] + parts[2]}
    )
    objects = st.dictionaries(names, children, max_size=3).flatmap(
        lambda properties: st.lists(st.sampled_from(sorted(properties) or ["x"]), max_size=3, unique=True).map(
            lambda required: {"type": "object", "properties": properties, "required": [name for name in required if name in properties]}
        )
    )
    return st.one_of(arrays, objects, st.lists(children, min_size=1, max_size=2).map(lambda some: {"anyOf": some}))


SCHEMAS = st.recursive(scalars(), inside, max_leaves=4)
STRATEGIES: tuple[Strategy, ...] = ("target", "draft", "speculative", "rsd")


def check(text: str, schema: Any) -> None:
    jsonschema.validate(json.loads(text, parse_constant=pytest.fail), schema)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(schema=SCHEMAS, seed=st.integers(0, 99), temperature=st.sampled_from([0.0, 1.0, 3.0]))
def test_an_answer_fits_its_schema_whatever_the_strategy(random: Reasoner, schema: Any, seed: int, temperature: float) -> None:
    for strategy in STRATEGIES:
        result = random.solve("x", params(schema, seed, temperature), strategy=strategy)
        if result.finish_reason == "stop":
            check(result.text, schema)
        else:
            assert result.finish_reason in ("length", "context", "steps"), result


def test_it_fits_where_steps_are_rejected_in_the_middle_of_a_word(random: Reasoner) -> None:
    authors = set()
    for seed in range(4):
        result = random.solve("x", params(PERSON, seed), strategy="rsd")
        check(result.text, PERSON)
        assert result.finish_reason == "stop"
        authors |= {(step.author, step.rejected is not None) for step in result.steps}
    assert {("draft", False), ("target", True)} <= authors


def test_a_draft_of_another_vocabulary_goes_on_from_the_same_place(other: Reasoner) -> None:
    authors = set()
    for seed in range(4):
        result = other.solve("x", params(PERSON, seed), strategy="rsd")
        check(result.text, PERSON)
        authors |= {step.author for step in result.steps}
    assert authors == {"draft", "target"}


def test_guessed_tokens_do_not_change_what_the_target_writes(random: Reasoner) -> None:
    for temperature in (0.0, 1.0):
        texts = {random.solve("x", params(PERSON, 5, temperature), strategy=strategy).text for strategy in ("target", "speculative")}
        assert len(texts) == 1
        mode = params(PERSON, 5, temperature, weighting=Weighting(threshold=1.0))
        for fallback in ("on", "off"):
            made = random.solve("x", Params(mode.sampling, mode.weighting, CUT, Search(fallback=fallback)), strategy="rsd")  # type: ignore[arg-type]
            assert {made.text} == texts and made.target_share == 1


def test_candidates_and_further_tries_follow_it_too(random: Reasoner) -> None:
    for weighting, search in ((HARD, Search(candidates=3)), (Weighting(threshold=0.9, redrafts=2), Search(retries=1))):
        result = random.solve("x", params(PERSON, 1, weighting=weighting, search=search), strategy="rsd")
        check(result.text, PERSON)
    check(random.solve("x", params(PERSON, 1, search=Search(samples=3)), strategy="best-of-n").text, PERSON)


def test_without_a_grammar_nothing_changes_and_one_does_not_outlive_its_answer(random: Reasoner) -> None:
    plain = Params(Sampling(1.0, seed=3), limits=Limits(tokens=20))
    before = random.solve("x", plain, strategy="target").text
    random.solve("x", params(PERSON), strategy="target")
    assert random.solve("x", plain, strategy="target").text == before
    assert before[:1] != "{"


def test_a_token_that_the_grammar_takes_is_drawn_as_without_it(random: Reasoner) -> None:
    plain = Sampling(1.0, seed=3)
    free = Sampling(1.0, seed=3, grammar="root ::= [^\\uD800-\\uDFFF]*\n")
    texts = [random.solve("x", Params(one, limits=Limits(tokens=30)), strategy="target").text for one in (plain, free)]
    same = next((place for place, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]), min(map(len, texts)))
    assert "\ufffd" not in texts[1] and texts[0][:same].count("\ufffd") == 0
    assert texts[0][same : same + 1] in ("", "\ufffd")  # the first that differs is a byte that is no character


def test_tokens_are_drawn_in_proportion_where_the_first_draw_is_refused(random: Reasoner) -> None:
    """Of letters that the grammar leaves, each is drawn as often as its probability among those says."""
    with_letters = "root ::= [a-d]\n"
    counts = dict.fromkeys("abcd", 0)
    for seed in range(120):
        sampling = Sampling(1.0, seed=seed, grammar=with_letters)
        counts[random.solve("x", Params(sampling, limits=Limits(tokens=5)), strategy="target").text] += 1
    prompt = random.read_prompt("x")
    writer = random.trio.writer("target", prompt)
    logits = writer.sequence.read_logits().result()
    writer.close()
    ids = [VOCABULARY.index(f"<0x{ord(letter):02X}>") for letter in "abcd"]
    weights = [math.exp(float(logits[token])) for token in ids]
    for letter, weight in zip("abcd", weights, strict=True):
        expected = 120 * weight / sum(weights)
        assert abs(counts[letter] - expected) < 5 * math.sqrt(expected + 1), (counts, weights)


def test_a_grammar_that_cannot_be_used_is_refused_before_anything_is_written(random: Reasoner) -> None:
    for grammar, cause in {
        'start ::= "a"': "no.* 'root'",
        "root ::= root": "recursion",
        "root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000: "500 parentheses",
    }.items():
        with pytest.raises(ConfigError, match=f"the grammar.*{cause}"):
            random.solve("x", Params(Sampling(grammar=grammar)))


@pytest.mark.parametrize(
    ("grammar", "cause"),
    [
        ('root = "x"', "line 1 of the grammar cannot be read from 'root = \"x\"' on"),
        ('root ::= "a"\n  | "b"', "line 2 of the grammar cannot be read from '| \"b\"' on"),
        ('a_b ::= "x"\nroot ::= a_b', "cannot be read from 'a_b"),
        ('root ::= "x', "cannot be read from '\"x' on"),
        ('root ::= "a" b ::= "c"', "cannot be read from 'b ::= "),
        ('root ::= "\\q"', "cannot be read from '\"\\q\"' on"),
        ('root ::= * "a"', "cannot be read from '* \"a\"' on"),
        ('root ::= "a")', "cannot be read from ')' on"),
        ('root ::= ("a"\n', "not closed: 1"),
        ('root ::= "a"\n\nc ::= root | b', "line 3 of the grammar names b, and there is no such rule"),
    ],
)
def test_what_llama_cpp_would_print_is_found_before(random: Reasoner, grammar: str, cause: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It writes the cause to standard error, which is the program's, and nowhere else."""
    with pytest.raises(ConfigError) as caught:
        random.solve("x", Params(Sampling(grammar=grammar)))
    assert cause in str(caught.value) and caught.value.hint and capfd.readouterr() == ("", "")


def test_what_llama_cpp_takes_is_taken(random: Reasoner) -> None:
    for grammar in (
        'root ::=\n "x" |\r\n ("a" # one\n "b"\n)* [^\\]"] "\\"#\\x41" {2} b-2{0,3}? .\n\nb-2 ::= [a-z]+ ',
        '\n # first\n  root ::= "x"\nroot ::= "y"',
        "root ::= ",
    ):
        random.solve("x", Params(Sampling(grammar=grammar), limits=Limits(tokens=1)))


def test_control_tokens_are_no_text_for_a_grammar(tmp_path: Path) -> None:
    """llama.cpp reads ``<end>`` as five letters, which fit into any string; nothing of it would be in the answer."""
    file = write_script(
        tmp_path / "control.gguf", ['"', "<end>", "x"], {"": '"', '"': "<end>", "<end>": "<end>", "x": '"'}, control=["<end>"]
    )
    with Reasoner.open(trio_of(file, file)) as reasoner:
        result = reasoner.solve("x", params({"type": "string", "minLength": 2, "maxLength": 2}, temperature=0.0), strategy="target")
    assert result.finish_reason == "stop" and len(json.loads(result.text)) == 2


def test_a_vocabulary_that_cannot_go_on_is_said_in_words(random: Reasoner) -> None:
    with pytest.raises(DecodeFailed, match="goes on with the grammar"):
        random.solve("x", Params(Sampling(grammar="root ::= [\\x00]")), strategy="target")


MARKS = ["<think>", "</think>"]
OPENED = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}go:<think>"


def test_a_thought_is_free_and_the_answer_behind_it_follows(tmp_path: Path) -> None:
    then = {"<think>": "Hm", "Hm": "</think>", "</think>": "\n\nno"}
    file = write_script(tmp_path / "thinks.gguf", [*MARKS, "Hm", "\n\nno", "go:"], then, template=OPENED, control=MARKS)
    with Reasoner.open(trio_of(file, file)) as reasoner:
        for strategy in ("target", "rsd", "speculative"):
            asked = params({"enum": ["yes"]}, temperature=0.0, limits=Limits(tokens=60))
            result = reasoner.solve("x", asked, strategy=strategy)  # type: ignore[arg-type]
            assert result.thought == "Hm" and result.text == '"yes"', result


def test_smollm2_answers_in_json(smollm2: Path) -> None:
    with Reasoner.open(trio_of(smollm2, smollm2, threshold=0.6, system="Answer in JSON.")) as reasoner:
        for strategy in ("target", "rsd"):
            made = params(PERSON, temperature=0.0, limits=Limits(tokens=120, step_tokens=12), weighting=Weighting(threshold=0.6))
            result = reasoner.solve("Ann is 31 years old. Give her name and age.", made, strategy=strategy)  # type: ignore[arg-type]
            assert result.finish_reason == "stop"
            check(result.text, PERSON)


def test_a_command_takes_a_schema_or_a_grammar_from_a_file(tmp_path: Path) -> None:
    model, schema, grammar = write_model(tmp_path / "a.gguf"), tmp_path / "schema.json", tmp_path / "yes.gbnf"
    flags = ("solve", "-q", "x", "-md", model, "-m", model, "--reward-kind", "confidence", "-c", "512", "-t", "1", "--trust-file")
    schema.write_text(json.dumps({"enum": ["yes", "no"]}))
    grammar.write_text('root ::= "yes" | "no"\n')
    done = rsd(*flags, "--json-schema-file", schema)
    assert done.returncode == 0 and json.loads(done.stdout) in ("yes", "no"), done.stderr
    assert rsd(*flags, "--grammar-file", grammar).stdout in ("yes\n", "no\n")
    refused(rsd(*flags, "--grammar-file", grammar, "--json-schema-file", schema), 2, "exclude each other")
    refused(rsd("solve", "1+1", "--grammar-file", grammar), 2, "arithmetic")
    (bad := tmp_path / "bad.gbnf").write_text('root = "yes"')
    refused(rsd(*flags, "--grammar-file", bad), 2, "line 1 of the grammar", "NAME ::=")
    schema.write_text('{"not": {}}')
    refused(rsd(*flags, "--json-schema-file", schema), 2, "schema.json", "'not' is not supported")
    shown = {one["name"]: one for one in json.loads(rsd("config", "--json", *flags[3:], "--grammar-file", grammar).stdout)}
    assert shown["grammar-file"] == {"name": "grammar-file", "value": str(grammar), "source": "flag --grammar-file"}
