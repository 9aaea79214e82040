"""Trains the abacus trio from nothing: target and draft, their rollouts, the reward model; then exports all three.

    python scripts/train_abacus.py --work DIR [--quick]

Reproducible from --seed up to floating point. Every stage writes a checkpoint each minute and goes on from it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import operator
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from abacus_net import BOS, EOS, ID, STEP_END, TAG, Llama, Shape, decode, encode, export, grown, sample
from torch import Tensor

from rsd_local.abacus.expression import MAX_LITERAL, Expression, parse, render
from rsd_local.abacus.task import LEVELS, draw, right_steps, solution, take_step

Batch = tuple[Tensor, Tensor]  # token ids and labels, both (rows, length); label -100 is not learnt
Rollout = tuple[str, list[str]]  # question and steps
IGNORE = -100
GOOD, BAD, WRONG = ID["+"], ID["-"], ID["<unk>"]


@dataclass(frozen=True, slots=True)
class Stage:
    """How one model is trained."""

    shape: Shape
    steps: int
    rows: int
    rate: float
    apart: bool = False
    """Whether verdicts and language are averaged apart; together a verdict counts as little as any other token."""
    cycles: int = 1
    """How often the rate falls to nothing, each time from the top."""
    slips: float = 0.0
    """The share of solutions in which an operand is copied wrong."""

    def rate_at(self, step: int) -> float:
        """The rate of a step: up for 100 steps, then at the top, then down over the last four fifths of its cycle."""
        length = self.steps // self.cycles
        step %= length
        return self.rate * min((step + 1) / 100, (length - step) / (0.8 * length), 1.0)


STAGES = {
    "target": Stage(Shape(384, 5, 12, 4, 1024), 4_800, 64, 2e-3),
    "draft": Stage(Shape(64, 3, 4, 2, 96), 3_900, 64, 4e-3),
    "reward-base": Stage(Shape(128, 3, 4, 2, 192), 7_000, 64, 2e-3),
    "reward-verdicts": Stage(Shape(128, 5, 4, 2, 192), 24_000, 64, 2e-3, apart=True, cycles=2),
    "reward": Stage(Shape(128, 5, 4, 2, 192), 4_000, 64, 1e-3, apart=True, slips=0.3),
}
ROLLOUTS = {"draft": 120_000, "target": 24_000}
TEMPERATURES = (0.0, 0.7, 1.0, 1.3)
WORK = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def training_question(rng: random.Random) -> Expression:
    """A question of a level, the higher ones more often, or in one of three cases any that lies in the range."""
    if rng.random() < 1 / 3:
        return draw(rng, rng.randint(1, len(LEVELS)), MAX_LITERAL)
    level = rng.choices(list(LEVELS), weights=(1, 2, 3, 4, 5))[0]
    return draw(rng, level, LEVELS[level])


def solutions(seed: int, first: int, rows: int) -> Iterator[Batch]:
    """Endless batches of questions with reference solutions, from batch number ``first`` on."""

    def make(rng: random.Random) -> tuple[list[int], list[int]]:
        expression = training_question(rng)
        prompt = [BOS, *encode(render(expression) + STEP_END)]
        answer = [*encode(STEP_END.join(solution(expression))), EOS]
        return prompt + answer, shifted(prompt + answer, [False] * len(prompt) + [True] * len(answer))

    return batches(seed, first, rows, make)


def verdicts(seed: int, first: int, rows: int, rollouts: list[Rollout], slips: float) -> Iterator[Batch]:
    """Batches of sampled solutions, each up to its first wrong step, with a verdict at each tag.

    What is right is also learnt as language, and from the first wrong token on each position is to say ``<unk>``: where a
    slip is named at once, the tag has only to look for the name.
    """

    def make(rng: random.Random) -> tuple[list[int], list[int]]:
        question, steps = rollouts[rng.randrange(len(rollouts))]
        if slips and rng.random() < slips:
            place = rng.randrange(len(steps))
            steps = [*steps[:place], miscopied(steps[place], question + " ".join(steps[:place]), rng)]
        left: Expression | None = parse(question)
        tokens = [BOS, *encode(question + " ")]
        labels = [IGNORE] * len(tokens)
        for index, step in enumerate(steps):
            written = encode(("\n" if index else "") + step)
            right = 0 if left is None else longest_right(written, index, left)
            labels[-1:] = written[:1] if right and not index else labels[-1:]
            tokens += [*written, ID[TAG]]
            labels += [*written[1:right], *[IGNORE] * (right > 0), *[WRONG] * (len(written) - right)]
            left = None if left is None else take_step(left, step)
            labels.append(BAD if left is None else GOOD)
            if left is None:
                break
        return tokens, labels

    return batches(seed, first, rows, make)


def miscopied(step: str, before: str, rng: random.Random) -> str:
    """A step with one number copied wrong, and worked rightly from there.

    A model that goes on from its own steps seldom makes this slip; a draft that goes on from the target's often does.
    """
    operands, equals, _ = step.partition("=")
    found = list(re.finditer(r"\d+", operands))
    if not found:
        return step
    chosen = rng.choice(found)
    digits, place = chosen.group(), rng.randrange(len(chosen.group()))
    changed = [digits[:place] + str(rng.randrange(10)) + digits[place + 1 :], digits[:place] + digits[place + 1 :] or "0"]
    new = str(int(rng.choice([*changed, rng.choice(re.findall(r"\d+", before) or [digits])])))
    made = operands[: chosen.start()] + new + operands[chosen.end() :]
    terms = re.fullmatch(r"(-?\d+)([-+*])\(?(-?\d+)\)?", made)
    return f"{made}={WORK[terms[2]](int(terms[1]), int(terms[3]))}" if equals and terms else made + step[len(operands) :]


def longest_right(written: list[int], index: int, left: Expression) -> int:
    """How many tokens of a step begin one that is right."""
    wanted = [encode(("\n" if index else "") + step) for step in right_steps(left)]
    return max(sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(written, want, strict=False))) for want in wanted)


def shifted(tokens: list[int], learnt: list[bool]) -> list[int]:
    """What each position is to predict: the next token where that one is learnt."""
    return [token if learn else IGNORE for token, learn in zip(tokens[1:], learnt[1:], strict=True)] + [IGNORE]


def batches(seed: int, first: int, rows: int, make: Callable[[random.Random], tuple[list[int], list[int]]]) -> Iterator[Batch]:
    """Batches of rows alike in length: eight are drawn together, sorted and cut; batch n depends on seed and n only."""
    block = first // 8
    while True:
        rng = random.Random(f"{seed} {block}")
        made = sorted((make(rng) for _ in range(8 * rows)), key=lambda row: len(row[0]))
        cuts = [made[start : start + rows] for start in range(0, 8 * rows, rows)]
        rng.shuffle(cuts)
        for cut in cuts[first - block * 8 :]:
            longest = len(cut[-1][0])
            tokens = torch.tensor([row + [0] * (longest - len(row)) for row, _ in cut])
            yield tokens, torch.tensor([labels + [IGNORE] * (longest - len(labels)) for _, labels in cut])
        block += 1
        first = block * 8


def train(name: str, stage: Stage, make: Callable[[int], Iterator[Batch]], folder: Path, seed: int, base: Llama | None = None) -> Llama:
    """Trains one model from nothing or from a smaller one, or goes on where a checkpoint in ``folder`` left off."""
    torch.manual_seed(seed)
    model = Llama(stage.shape) if base is None else grown(base, stage.shape)
    inner = [weight for key, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in key]
    outer = [weight for key, weight in model.named_parameters() if weight.ndim != 2 or "embed" in key]
    optimizers = [
        torch.optim.Muon(inner, lr=stage.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=stage.rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
    saved, start = folder / f"{name}.pt", 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        start = state["step"]
    began = reported = kept_at = time.monotonic()
    tokens_seen, losses = 0, []
    for step, (tokens, labels) in zip(range(start, stage.steps), make(start), strict=False):
        rate = stage.rate_at(step)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(tokens)
        learnt = labels != IGNORE
        kinds = [learnt & (tokens == ID[TAG]), learnt & (tokens != ID[TAG])] if stage.apart else [learnt]
        loss = sum(F.cross_entropy(logits[kind].float(), labels[kind]) for kind in kinds if kind.any())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        tokens_seen += tokens.numel()
        losses.append(loss.item())
        now = time.monotonic()
        last = step + 1 == stage.steps
        if now - reported > 15 or last:
            print(
                f"{name} {step + 1}/{stage.steps} loss {sum(losses) / len(losses):.4f} {tokens_seen / (now - began):.0f} tok/s", flush=True
            )
            reported, losses = now, []
        if now - kept_at > 60 or last:
            state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step + 1}
            torch.save(state, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").replace(saved)
            kept_at = now
    model.eval()
    return model


def roll_out(name: str, model: Llama, count: int, seed: int) -> Iterator[Rollout]:
    """Sampled solutions of ``count`` questions, the temperatures in turn."""
    rng = random.Random(f"{seed} {name} rollouts")
    asked: dict[int, list[str]] = {}
    for turn in range(count):
        text = render(training_question(rng))
        same = asked.setdefault(len(text), [])
        same.append(text)
        if len(same) == 256 or turn == count - 1:
            prompts = [[BOS, *encode(question + STEP_END)] for question in same]
            for question, ids in zip(same, sample(model, prompts, TEMPERATURES[turn % 4], turn), strict=True):
                yield question, [step for step in decode(ids).split(STEP_END) if step and TAG not in step] or [""]
            asked[len(text)] = []


def rollouts(models: dict[str, Llama], counts: dict[str, int], folder: Path, seed: int) -> list[Rollout]:
    """All rollouts that the reward model learns from, made once and kept in ``folder``."""
    kept = folder / "rollouts.json"
    if not kept.exists():
        made = [row for name, count in counts.items() for row in roll_out(name, models[name], count, seed)]
        kept.with_suffix(".tmp").write_text(json.dumps(made))
        kept.with_suffix(".tmp").replace(kept)
    return [(question, steps) for question, steps in json.loads(kept.read_text())]


def main() -> None:
    """Runs the stages in order and writes the three GGUF files."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--work", type=Path, required=True, help="checkpoints and rollouts; a second run goes on from them")
    arguments.add_argument("--out", type=Path, help="where the GGUF files go; default: the folder --work")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--only", choices=list(STAGES), help="train this model alone, and export nothing")
    arguments.add_argument("--quick", action="store_true", help="a few steps of everything, to try the recipe")
    chosen = arguments.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    stages, counts = STAGES, ROLLOUTS
    if chosen.quick:
        stages = {name: replace(stage, steps=4, rows=8) for name, stage in STAGES.items()}
        counts = dict.fromkeys(ROLLOUTS, 16)
    models = {}
    for name in [chosen.only] if chosen.only else ["target", "draft"]:
        stage = stages[name]
        models[name] = train(name, stage, partial(solutions, chosen.seed, rows=stage.rows), chosen.work, chosen.seed)
    if chosen.only:
        return
    judged = rollouts(models, counts, chosen.work, chosen.seed)
    base = None
    for name in ("reward-base", "reward-verdicts", "reward"):
        make = partial(verdicts, chosen.seed, rows=stages[name].rows, rollouts=judged, slips=stages[name].slips)
        base = models["reward"] = train(name, stages[name], make, chosen.work, chosen.seed, base)
    for name, model in models.items():
        recipe = json.dumps(asdict(stages[name]) | {"seed": chosen.seed})
        about = {
            "name": f"abacus {name}",
            "author": "rsd_local",
            "license": "apache-2.0",
            "description": f"multi-step integer arithmetic, made by scripts/train_abacus.py with {recipe}",
        }
        export(model, (chosen.out or chosen.work) / f"abacus-{name}.gguf", about)


if __name__ == "__main__":
    main()
