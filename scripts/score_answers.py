"""How the examples in the questions judge the answers of a bench, against the hidden tests.

    python scripts/score_answers.py QUESTIONS.jsonl FOLDER [--strategy draft]

QUESTIONS is what ``rsd bench`` was given (rows of HumanEval or MBPP), FOLDER what it wrote. Each answer's code is run once more against
the examples in its question, as ``python-tests`` does it, in the sandbox; nothing is asked of a model. So calling this is to allow
running code that a model wrote.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from rsd_local.bench.datasets import load_dataset
from rsd_local.bench.results import Results, Row
from rsd_local.bench.tables import markdown
from rsd_local.prompt import Prompt
from rsd_local.rewards.verifier.python_tests import PythonTests
from rsd_local.sandbox import Sandbox


@click.command()
@click.argument("questions")
@click.argument("folder", type=Path)
@click.option("--strategy", default="draft", show_default=True, help="Whose answers.")
def main(questions: str, folder: Path, strategy: str) -> None:
    """Scores the answers of a bench by the examples in their questions."""
    items = {item.id: item for item in load_dataset(questions)}
    verifier = PythonTests(Sandbox.find())

    def verdict(row: Row) -> str:
        prompt = Prompt.of(items[row["id"]].question)
        if not verifier.checks(prompt):
            return "no example could be read"
        score = verifier.check(prompt, (), f"```python\n{row['answer'] or 'pass'}\n```\n", None)
        return "all pass" if score == 1.0 else "one fails"

    rows = [row for row in Results.read(folder) if row["strategy"] == strategy and row["error"] is None]
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(verdict, rows))
    right = Counter(verdict for verdict, row in zip(verdicts, rows, strict=True) if row["correct"])
    lines = [(name, f"{count}", f"{right[name]}") for name, count in sorted(Counter(verdicts).items())]
    click.echo(markdown(("examples", "answers", "right by the hidden tests"), lines))


if __name__ == "__main__":
    main()
