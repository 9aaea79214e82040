"""What the tests of the bench share: the models they run on, and a solver that needs none."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from rsd_local.bench.results import Results, configuration
from rsd_local.bench.runner import run
from rsd_local.bench.strategies import read_strategies
from rsd_local.config import Params, RoleConfig, Strategy, Trio
from rsd_local.errors import Cancelled
from rsd_local.evaluation.grading import Grader
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.journal import Config
from rsd_local.events import CancelToken, Counters, Result, StepDone

_SKILL = {"rsd": 0.8, "target": 0.85, "draft": 0.5, "majority": 0.65, "best-of-n": 0.7}
_COST = {"rsd": 30, "target": 100, "draft": 10, "majority": 80, "best-of-n": 90}


def trio_of_files(folder: Path, parallel: int = 2, *, reuse: bool = False) -> Trio:
    """A trio whose files are there and nothing more, for what never opens them."""
    roles = {}
    for role in ("draft", "target", "reward"):
        path = folder / f"{role}.gguf"
        path.write_bytes(role.encode())
        roles[role] = RoleConfig(path)
    return Trio(**roles, parallel=parallel, reuse=reuse)


def sums(count: int) -> list[Item]:
    """Easy questions with plain answers."""
    return [Item(f"sum-{number}", f"{number}+{number}", str(2 * number), "number") for number in range(count)]


class FakeSolver:
    """Answers sums, right or wrong by a draw that only the question and the strategy decide."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Strategy, int]] = []

    def solve(
        self, prompt: str, params: Params | None = None, *, strategy: Strategy | None = None, cancel: CancelToken | None = None
    ) -> Result:
        """A made-up result."""
        assert params is not None and cancel is not None and strategy is not None
        if cancel.cancelled:
            raise Cancelled("cancelled")
        self.asked.append((prompt, strategy, params.sampling.seed))
        chance = random.Random(hashlib.sha256(f"{prompt} {strategy}".encode()).hexdigest())
        right = chance.random() < _SKILL[strategy]
        number = int(prompt.partition("+")[0])
        answer = str(2 * number if right else 2 * number + 1)
        steps = []
        for index in range(chance.randint(2, 7)):
            author = {"target": "target", "rsd": chance.choice(("draft", "draft", "target"))}.get(strategy, "draft")
            reward = None if strategy in ("target", "draft") else min(1.0, max(0.0, chance.gauss(0.8 if right else 0.4, 0.2)))
            steps.append(StepDone(index, author, "…\n\n", reward, chance.randint(5, 40), 0.01))  # type: ignore[arg-type]
        tokens = sum(step.tokens for step in steps)
        counters = {
            "draft": Counters(parameters=10**8, generated_tokens=tokens, evaluated_tokens=10 * _COST[strategy], seconds=0.1),
            "target": Counters(parameters=10**9, generated_tokens=tokens, evaluated_tokens=_COST[strategy], kept_tokens=6, seconds=0.1),
        }
        return Result(answer, "…", "stop", tuple(steps), counters)  # type: ignore[arg-type]


def run_fake(
    folder: Path, specs: list[str], items: list[Item], solver: FakeSolver | None = None, *, resume: bool = False, reuse: bool = False
) -> Config:
    """A bench with the fake solver; returns its configuration."""
    models = folder.parent / f"{folder.name}-models"
    models.mkdir(exist_ok=True)
    trio = trio_of_files(models, reuse=reuse)
    plans = read_strategies(specs, Params())
    config = configuration(trio, "sums", None, None, 0, items, plans)
    with Results.open(folder, config, resume) as results, Grader() as grader:
        run(
            solver or FakeSolver(),
            items,
            plans,
            results,
            grader,
            seed=0,
            parallel=trio.parallel,
            cancel=CancelToken(),
            watch=lambda tally: None,
        )
    return config
