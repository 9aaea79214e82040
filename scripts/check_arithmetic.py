"""What the arithmetic verifier reads in solutions, and how often it calls an equation wrong.

    python scripts/check_arithmetic.py SOLUTIONS.jsonl [--show 50] [--seed 0]
    python scripts/check_arithmetic.py SOLUTIONS.jsonl --draft MODEL.gguf --data QUESTIONS.jsonl [--limit 60] [--tokens 512] [--threads 0]

Each line of SOLUTIONS is a JSON object with ``steps``, a list of texts, or with ``text``, which is then cut at blank lines: the
``rollouts.jsonl`` of ``rsd train-reward`` is such a file. With --draft, MODEL first answers the questions that the file does not have
yet, greedily, and appends them; nothing comes from a network.

Printed are how many steps had an equation that could be checked, how many equations were right and wrong, and --show of them for
reading by hand, drawn with a seed. Half of these are wrong ones, where there are as many, for these are what a reward acts on.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from rsd_local import Limits, Params, Reasoner, RoleConfig, Sampling, Trio
from rsd_local.bench.datasets import load_dataset
from rsd_local.cli.progress import counting
from rsd_local.evaluation.questions import question_pool
from rsd_local.events import CancelToken
from rsd_local.rewards.verifier.arithmetic import Equation, equations


def solutions(file: Path) -> list[dict[str, Any]]:
    """The lines of a file; none where it is not there."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def answer(file: Path, model: Path, data: Path, limit: int, tokens: int, threads: int) -> None:
    """Lets a model answer questions, and appends each to the file as soon as it is there."""
    there = {row.get("id") for row in solutions(file)}
    waiting = [item for item in load_dataset(str(data), limit, labelled=False) if item.id not in there]
    role = RoleConfig(model, ctx_size=tokens + 512, threads=threads)
    trio = Trio(draft=role, target=role, reward_kind="confidence", strategy="draft", parallel=4)
    params, cancel = Params(Sampling(0.0), limits=Limits(tokens=tokens)), CancelToken()
    with (
        Reasoner.open(trio) as reasoner,
        counting("answers") as watch,
        question_pool(trio.parallel, cancel) as pool,
        file.open("a", encoding="utf-8") as out,
    ):
        running = {pool.submit(reasoner.solve, item.question, params, cancel=cancel): item for item in waiting}
        for number, future in enumerate(as_completed(running), 1):
            item, result = running[future], future.result()
            row = {"id": item.id, "question": item.question, "steps": [step.text for step in result.steps], "text": result.text}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
            watch(number, len(waiting))


def steps_of(row: dict[str, Any]) -> list[str]:
    """The steps of a line, those of white space alone left out."""
    steps = row["steps"] if isinstance(row.get("steps"), list) else str(row.get("text", "")).split("\n\n")
    return [step for step in steps if step.strip()]


def sample(found: list[Equation], count: int, seed: int) -> list[Equation]:
    """Up to ``count`` equations, half of them wrong ones where there are as many."""
    draw = random.Random(seed)
    wrong = [one for one in found if one.holds is False]
    right = [one for one in found if one.holds]
    few = min(len(wrong), max(count // 2, count - len(right)))
    return draw.sample(wrong, few) + draw.sample(right, min(len(right), count - few))


def lines(shown: list[Equation]) -> Iterator[str]:
    """Each equation with its verdict and what was read on both sides."""
    for number, one in enumerate(shown, 1):
        verdict = "right" if one.holds else "WRONG"
        yield f"{number:3} {verdict}  {' '.join(one.text.split())}    [{one.left} and {one.right}]"


def main() -> None:
    """Reads, counts, and prints."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("solutions", type=Path)
    arguments.add_argument("--draft", type=Path, help="a model that answers --data first")
    arguments.add_argument("--data", type=Path, help="questions, a JSONL file as rsd bench reads it")
    arguments.add_argument("--limit", type=int, default=60, help="how many questions, drawn with a seed")
    arguments.add_argument("--tokens", type=int, default=512, help="most tokens of an answer")
    arguments.add_argument("--threads", type=int, default=0, help="0 is the number of physical cores")
    arguments.add_argument("--show", type=int, default=50, help="equations to show")
    arguments.add_argument("--seed", type=int, default=0, help="of the choice of those")
    chosen = arguments.parse_args()
    if (chosen.draft is None) != (chosen.data is None):
        arguments.error("--draft and --data belong together")
    if chosen.draft:
        answer(chosen.solutions, chosen.draft, chosen.data, chosen.limit, chosen.tokens, chosen.threads)
    rows = solutions(chosen.solutions)
    if not rows:
        arguments.error(f"{chosen.solutions} has no solutions")
    read = [equations(step) for row in rows for step in steps_of(row)]
    found = [one for step in read for one in step if one.holds is not None]
    checked = [step for step in read if any(one.holds is not None for one in step)]
    failed = [step for step in checked if any(one.holds is False for one in step)]
    print(f"{len(rows)} solutions, {len(read)} steps")
    print(f"{len(checked)} steps could be checked ({len(checked) / max(1, len(read)):.0%}), {len(failed)} of them are wrong")
    print(f"{len(found)} equations, {sum(one.holds is False for one in found)} of them are wrong\n")
    print("\n".join(lines(sample(found, chosen.show, chosen.seed))))


if __name__ == "__main__":
    main()
