"""What the abacus trio does on questions that it was never trained on, greedy, levels 1 to 5 in equal shares.

python scripts/eval_abacus.py [--seed 2026] [--limit 1000] [--trio abacus] [--json] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from make_docs import placed

from rsd_local import Params, Reasoner, Result, Sampling, Weighting
from rsd_local.abacus.task import LEVELS, Question, check, questions
from rsd_local.catalogue import find_trio
from rsd_local.config import Strategy
from rsd_local.evaluation.stats import area_under_curve, wilson
from rsd_local.prompt import Prompt
from rsd_local.steps import Step

AT_ONCE = 16
SAMPLING = Sampling(temperature=1.0)


def run_all(reasoner: Reasoner, asked: list[Question], strategy: Strategy, params: Params) -> list[Result]:
    """One result for each question, sixteen at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda question: reasoner.solve(question.text, params, strategy=strategy), asked))


def accuracy(asked: list[Question], results: list[Result]) -> float:
    """The share of right answers."""
    return statistics.mean(result.answer == question.answer for question, result in zip(asked, results, strict=True))


def sampled_steps(reasoner: Reasoner, asked: list[Question]) -> tuple[list[float], list[bool]]:
    """Rewards and labels of steps that draft and target sample at temperature 1, up to each solution's first wrong one."""
    scores: list[float] = []
    labels: list[bool] = []

    def judge(question: Question, steps: list[str]) -> list[tuple[float, bool]]:
        reward = reasoner.trio.reward(Prompt.of(question.text))
        judged = []
        for step, verdict in zip(steps, check(question.text, steps), strict=True):
            score = reward.start_score(Step([], step.encode(), "delimiter")).result()
            judged.append((math.nan if score.value is None else score.value, verdict))
            if not verdict:
                break
        reward.close()
        return judged

    roles: list[Strategy] = ["draft", "target"]
    for role in roles:
        params = [Params(replace(SAMPLING, seed=number)) for number in range(len(asked))]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = list(pool.map(lambda q, p, r=role: reasoner.solve(q.text, p, strategy=r), asked, params))
            steps = [[step.text for step in result.steps if step.text.strip()] for result in results]
            for judged in pool.map(judge, asked, steps):
                scores += [score for score, _ in judged]
                labels += [label for _, label in judged]
    return scores, labels


def seconds_of_one_question(trio: str) -> float:
    """The median of five runs of ``rsd solve``, from the process' start to its end."""
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        call = [sys.executable, "-c", "from rsd_local.cli import main; main()", "solve", "(37+48)*6-129", "--trio", trio, "--quiet"]
        subprocess.run(call, check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def evaluate(trio: str, seed: int, limit: int) -> dict[str, Any]:
    """All figures."""
    asked = list(itertools.islice(questions(seed), limit))
    config = replace(find_trio(trio), parallel=AT_ONCE, reuse=False)
    with Reasoner.open(config) as reasoner:
        greedy = Params(weighting=Weighting(threshold=config.threshold))
        strategies: list[Strategy] = ["draft", "target", "rsd"]
        results = {strategy: run_all(reasoner, asked, strategy, greedy) for strategy in strategies}
        scores, labels = sampled_steps(reasoner, asked)
        parameters = {role: engine.model.n_params for role, engine in reasoner.engines().items()}
    figures: dict[str, Any] = {f"{strategy}_accuracy": accuracy(asked, rows) for strategy, rows in results.items()}
    for count in ("paper", "full"):
        spent = {strategy: sum(getattr(row, f"{count}_flops") for row in rows) for strategy, rows in results.items()}
        figures[f"{count}_flops_ratio"] = spent["target"] / spent["rsd"]
    steps = [step for row in results["rsd"] for step in row.steps]
    figures |= {
        "reward_auc": area_under_curve(scores, labels),
        "reward_steps": len(labels),
        "reward_wrong_steps": labels.count(False),
        "target_share": statistics.mean(step.author == "target" for step in steps),
        "seconds_of_one_question": seconds_of_one_question(trio),
        "threshold": config.threshold,
        "questions": limit,
        "seed": seed,
        "parameters": parameters,
        "levels": {
            level: {
                strategy: accuracy(*zip(*[pair for pair in zip(asked, rows, strict=True) if pair[0].level == level], strict=True))  # type: ignore[arg-type]
                for strategy, rows in results.items()
            }
            for level in LEVELS
            if any(question.level == level for question in asked)
        },
    }
    return figures


def as_markdown(figures: dict[str, Any]) -> str:
    """The tables, with the command that prints them."""
    count = figures["questions"]

    def share(name: str) -> str:
        low, high = wilson(round(figures[name] * count), count)
        return f"{figures[name]:.1%} ({low:.1%} to {high:.1%})"

    command = f"python scripts/eval_abacus.py --seed {figures['seed']} --limit {count}"
    rows = [
        ("draft alone, answers right", "35 to 70 %", share("draft_accuracy")),
        ("target alone, answers right", "at least 92 %", share("target_accuracy")),
        (f"RSD at threshold {figures['threshold']}, answers right", "at least the target's", share("rsd_accuracy")),
        (
            f"reward model, area under the ROC curve ({figures['reward_steps']:,} sampled steps, {figures['reward_wrong_steps']:,} wrong)",
            "at least 0.97",
            f"{figures['reward_auc']:.4f}",
        ),
        ("FLOPs against the target alone, paper convention", "at least 3.0 times fewer", f"{figures['paper_flops_ratio']:.2f} times fewer"),
        ("same, full count with prompts and catch-up", "", f"{figures['full_flops_ratio']:.2f} times fewer"),
        ("steps that the target wrote in RSD", "", f"{figures['target_share']:.1%}"),
        ("`rsd solve` on one question, process start to end", "under 2 s", f"{figures['seconds_of_one_question']:.2f} s"),
    ]
    lines = [f"`{command}`, intervals of 95 % in parentheses:", "", "| figure | bar | reached |", "|---|---|---|"]
    lines += [f"| {name} | {bar} | {reached} |" for name, bar, reached in rows]
    lines += ["", "| level | draft | target | RSD |", "|---|---|---|---|"]
    lines += [f"| {level} | {of['draft']:.1%} | {of['target']:.1%} | {of['rsd']:.1%} |" for level, of in figures["levels"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Evaluates and prints."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seed", type=int, default=2026)
    arguments.add_argument("--limit", type=int, default=1000)
    arguments.add_argument("--trio", default="abacus", help="a trio's name or TOML file")
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--markdown", type=Path, help="put the tables into this file, at their mark")
    chosen = arguments.parse_args()
    figures = evaluate(chosen.trio, chosen.seed, chosen.limit)
    if chosen.markdown:
        text = placed(chosen.markdown.read_text(encoding="utf-8"), "abacus figures", as_markdown(figures))
        chosen.markdown.write_text(text, encoding="utf-8")
    print(json.dumps(figures) if chosen.json else as_markdown(figures))


if __name__ == "__main__":
    main()
