"""abacus: the task, the models that ship, and the trio on its questions."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import refused, rsd

from rsd_local import Limits, Params, Reasoner, Sampling, Search, Weighting
from rsd_local.abacus import canonical
from rsd_local.abacus.expression import (
    MAX_FACTOR,
    MAX_LITERAL,
    MAX_RESULT,
    Expression,
    Operation,
    literals,
    operations,
    parse,
    render,
    value,
)
from rsd_local.abacus.task import LEVELS, check, draw, questions, solution, take_step
from rsd_local.catalogue import find_trio
from rsd_local.errors import QuestionRefused
from rsd_local.prompt import Prompt
from rsd_local.roles import Reward
from rsd_local.runtime import Model
from rsd_local.steps import Step

SCRIPTS = Path(__file__).parent.parent / "scripts"
ASKED = list(itertools.islice(questions(77), 60))


def expressions() -> st.SearchStrategy[Expression]:
    return st.builds(lambda seed, count: draw(random.Random(seed), count, MAX_LITERAL), st.integers(0, 10**9), st.integers(1, 5))


@settings(deadline=None, derandomize=True)
@given(expressions())
def test_an_expression_reads_back_as_it_was_written(expression: Expression) -> None:
    text = render(expression)
    assert parse(text) == expression and canonical(text) == text
    assert value(expression) == eval(text)  # noqa: S307, only digits and signs
    assert value(parse(text.replace("*", " × ").replace("-", " − ") + " = ?")) == value(expression)


@settings(deadline=None, derandomize=True)
@given(expressions())
def test_the_reference_solution_is_right_and_any_changed_result_is_wrong(expression: Expression) -> None:
    steps = solution(expression)
    text = render(expression)
    assert check(text, steps) == [True] * len(steps)
    for place, step in enumerate(steps):
        at = step.rindex("=" if place < len(steps) - 1 else "{") + 1
        wrong = step[:at] + str(int(step[at:].rstrip("}")) + 1) + "}" * step.endswith("}")
        assert check(text, [*steps[:place], wrong, *steps[place + 1 :]]) == [True] * place + [False] * (len(steps) - place)


def test_every_order_of_work_that_is_possible_is_right() -> None:
    left = take_step(parse("(2+3)*(10-4)"), "10-4=6")
    assert left == Operation("*", Operation("+", 2, 3), 6)
    assert take_step(left, "2+3=5\n\n") == Operation("*", 5, 6)
    for wrong in ("3+10=13", "2+3=6", "5*6=30", "2+3", "2+3=5=5", "", "\\boxed{30}", "２+3=5"):
        assert take_step(parse("(2+3)*(10-4)"), wrong) is None
    assert take_step(30, "\\boxed{30}") == 30 and take_step(30, "\\boxed{31}") is None


@pytest.mark.parametrize(
    ("spelling", "meant"),
    [
        ("(37+48)*6-129", "(37+48)*6-129"),
        (" ( 37 + 48 ) × 6 − 129 = ?", "(37+48)*6-129"),
        ("((2))+((3*4))", "2+3*4"),
        ("-5+3", "-5+3"),
        ("3*-5", "3*(-5)"),
        ("-(3+4)*2", "(0-(3+4))*2"),
        ("2-(3-4)", "2-(3-4)"),
        ("(2-3)-4", "2-3-4"),
        ("7·8=", "7*8"),
    ],
)
def test_the_usual_spellings_are_read(spelling: str, meant: str) -> None:
    assert canonical(spelling) == meant
    assert value(parse(spelling)) == eval(meant)  # noqa: S307


@pytest.mark.parametrize(
    "question",
    [
        "",
        "5",
        "hello",
        "1/2",
        "2^3",
        "1+",
        "(1+2",
        "1+2)",
        "()",
        "1 2",
        "1000+1",
        "999*12+2",
        "13*13",
        "1+1+1+1+1+1+1",
        "(" * 5000,
        "9" * 400 + "+1",
    ],
)
def test_what_abacus_cannot_do_is_refused_with_what_it_can(question: str) -> None:
    with pytest.raises(QuestionRefused, match="abacus solves") as refusal:
        canonical(question)
    assert "rsd pull" in refusal.value.hint and "--trio" in refusal.value.hint


def test_questions_are_seeded_and_lie_in_the_trained_range() -> None:
    assert list(itertools.islice(questions(77), 60)) == ASKED
    assert [question.level for question in ASKED[:5]] == list(LEVELS)
    assert list(itertools.islice(questions(78), 60)) != ASKED
    for question in itertools.islice(questions(5), 500):
        worked = list(operations(parse(question.text)))
        assert len(worked) == question.level
        assert all(abs(number) <= LEVELS[question.level] for number in literals(parse(question.text)))
        assert all(min(abs(a), abs(b)) <= MAX_FACTOR for sign, a, b in worked if sign == "*")
        assert abs(int(question.answer)) <= MAX_RESULT


@pytest.fixture(scope="module")
def reasoner():
    from dataclasses import replace

    with Reasoner.open(replace(find_trio("abacus"), parallel=4, width=5)) as opened:
        yield opened


def test_the_shipped_files_are_small_and_say_where_they_come_from() -> None:
    trio = find_trio("abacus")
    paths = [trio.draft.path, trio.target.path, trio.reward.path]
    assert sum(path.stat().st_size for path in paths) <= 12e6
    for role, path in zip(("draft", "target", "reward"), paths, strict=True):
        from rsd_local import RoleConfig

        model = Model(RoleConfig(path))
        assert model.metadata("general.name") == f"abacus {role}"
        assert model.metadata("general.license") == "apache-2.0"
        recipe = json.loads((model.metadata("general.description") or "").partition("with ")[2])
        assert recipe["seed"] == 1 and recipe["steps"] > 1000
        model.close()


def test_the_trio_is_right_where_its_draft_is_wrong(reasoner: Reasoner) -> None:
    """The effect itself: on the same questions RSD beats the draft and costs a fraction of the target."""
    params = Params(weighting=Weighting(threshold=reasoner.config.threshold))
    right, flops = {}, {}
    for strategy in ("draft", "target", "rsd"):
        results = [reasoner.solve(question.text, params, strategy=strategy) for question in ASKED]  # type: ignore[arg-type]
        right[strategy] = sum(result.answer == question.answer for question, result in zip(ASKED, results, strict=True))
        flops[strategy] = sum(result.paper_flops for result in results)
    assert right["draft"] <= 0.75 * len(ASKED) < 0.85 * len(ASKED) <= right["target"]
    assert right["rsd"] >= right["target"] - 2
    assert 2 * flops["rsd"] < flops["target"]


def step_of(text: str) -> Step:
    return Step([], text.encode(), "delimiter")


def value_of(reward: Reward, text: str) -> float:
    value = reward.start_score(step_of(text)).result().value
    assert value is not None
    return value


def test_the_reward_tells_right_steps_from_wrong_ones(reasoner: Reasoner) -> None:
    scored: dict[bool, list[float]] = {True: [], False: []}
    for question in ASKED:
        first, *_ = solution(parse(question.text))
        head, _, result = first.rpartition("=")
        for step, right in ((first, True), (f"{head}={int(result) + 10}", False)):
            reward = reasoner.trio.reward(Prompt.of(question.text))
            scored[right].append(value_of(reward, step))
            reward.close()
    better = sum(good > bad for good in scored[True] for bad in scored[False]) / (len(ASKED) ** 2)
    assert better > 0.95


def test_a_score_from_the_cache_is_the_score_of_a_fresh_reading(reasoner: Reasoner) -> None:
    """Quantized weights round by the batch's shape, so scores are close and not equal; what a slip does is far larger."""
    apart, slipped = [], []
    for question in ASKED[:20]:
        steps = solution(parse(question.text))
        cached = reasoner.trio.reward(Prompt.of(question.text))
        for place, step in enumerate(steps):
            value_of(cached, "1+1=3")
            cached.forget()
            score = value_of(cached, step)
            for earlier, differences in ((steps[:place], apart), (steps[: place - 1], slipped)):
                fresh = reasoner.trio.reward(Prompt.of(question.text))
                for accepted in earlier:
                    fresh.read(step_of(accepted))
                differences.append(abs(score - value_of(fresh, step)))
                fresh.close()
        cached.close()
    assert sum(apart) / len(apart) < 0.02
    assert sum(slipped) / len(slipped) > 5 * sum(apart) / len(apart)


def test_speculation_writes_the_targets_solutions(reasoner: Reasoner) -> None:
    """The weights are quantized, so batches of other shapes may turn a near tie; more than one of thirty would be a fault."""
    same = 0
    for question in ASKED[:30]:
        target, drafted = (reasoner.solve(question.text, strategy=name) for name in ("target", "speculative"))  # type: ignore[arg-type]
        same += drafted.text == target.text
        assert drafted.counters["target"].decode_calls < target.counters["target"].decode_calls
    assert same >= 29


def test_more_candidates_need_the_target_less(reasoner: Reasoner) -> None:
    shares = []
    for candidates in (1, 4):
        params = Params(
            Sampling(temperature=0.7, seed=1), Weighting(threshold=reasoner.config.threshold), Limits(), Search(candidates=candidates)
        )
        steps = [step for question in ASKED for step in reasoner.solve(question.text, params).steps]
        shares.append(sum(step.author == "target" for step in steps) / len(steps))
    assert shares[1] < shares[0]


def test_rsd_solve_works_on_a_fresh_machine_and_says_what_it_cannot() -> None:
    done = rsd("solve", "(37+48)*6-129")
    assert (done.returncode, done.stdout) == (0, "381\n"), done.stderr
    assert "37+48=85" in done.stderr and "[1]" in done.stderr
    assert rsd("solve", "-3+5", "--quiet").stdout == "2\n", "an expression may begin with a minus"
    refused(rsd("solve", "What is love?"), 2, "not an arithmetic expression", "abacus solves", "rsd pull small", "--trio small")
    refused(rsd("solve", "999*999"), 2, "outside the range of abacus")


def test_training_uses_llama_cpps_tokens() -> None:
    """The tokenizer of the training script, which needs torch only to train, against the shipped file's."""
    pytest.importorskip("torch", reason="pip install -e '.[train]'")
    from rsd_local import RoleConfig

    code = "import sys, json; sys.path.insert(0, sys.argv[1]); from abacus_net import encode; print(json.dumps(encode(sys.argv[2])))"
    text = "(37+48)*6-129\n\n37+48=85\n\n\\boxed{381} ки\n1+1=2 x"
    done = subprocess.run([sys.executable, "-c", code, SCRIPTS, text], capture_output=True, text=True, check=True)
    model = Model(RoleConfig(find_trio("abacus").draft.path))
    assert json.loads(done.stdout) == model.tokenize(text)
    model.close()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install -e '.[train]'")
def test_the_recipe_runs_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPTS / "train_abacus.py", "--work", tmp_path, "--quick"]
    subprocess.run(command, check=True, timeout=300)
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.gguf")}
    assert len(sizes) == 3
    (tmp_path / "draft.pt").unlink()
    subprocess.run(command, check=True, timeout=300)
    assert {path.name: path.stat().st_size for path in tmp_path.glob("*.gguf")} == sizes
