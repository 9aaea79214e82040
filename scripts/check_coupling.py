"""How often a draft and a target draw the same token where both draw with the same random number.

    python scripts/check_coupling.py DRAFT.gguf TARGET.gguf [--text FILE] [--tokens 64] [--numbers 32] [--threads 0]

Both read the same tokens: those of a text, or those that the target itself writes in answer to a few questions, at temperature
0.7. At each place both draw with the same numbers; the first column is the share drawn alike. The others follow from the
probabilities, for other ways to guess what the target draws:

- the draft draws with numbers of its own
- the draft proposes its most likely token
- both draw with the same number, and the most likely token's part of [0, 1) comes first
- Gumbel sampling with the same numbers, one for each token of the vocabulary (arXiv 2408.07978)
- the best of all ways, 1 − the total variation distance; the ratio test of speculative sampling (arXiv 2211.17192) accepts as many
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsd_local import RoleConfig, Sampling
from rsd_local.prompt import Prompt
from rsd_local.roles import TARGET, Hint, Stream
from rsd_local.runtime import Draws, Engine, Floats, Model, prompt_tokens
from rsd_local.runtime.sampler import Doubles, narrow, weigh_kept

SAMPLINGS = {
    "temperature 0.7": Sampling(temperature=0.7),
    "temperature 1": Sampling(temperature=1.0),
    "temperature 0.7, top-p 0.95": Sampling(temperature=0.7, top_p=0.95),
    "temperature 0.7, min-p 0.05": Sampling(temperature=0.7, min_p=0.05),
    "temperature 0.7, top-k 20": Sampling(temperature=0.7, top_k=20),
}
QUESTIONS = (
    "Write a Python function that merges two sorted lists, and say how it works.",
    "A train leaves at 9:40 and arrives at 13:05, with two stops of 7 minutes. For how long does it move? Go step by step.",
    "Why is the sky blue by day and red in the evening?",
    "Tell a short story about a lighthouse keeper who finds a letter.",
)
HEADINGS = ("sampling", "same number", "own numbers", "draft's most likely", "most likely first", "Gumbel", "best of all")


class Reading(Draws):
    """Draws the tokens of a text, whatever the logits, and keeps these: a hint then has them evaluated in batches."""

    def __init__(self, text: list[int]) -> None:
        super().__init__(Sampling(), Stream(0, TARGET))
        self.rows: list[Floats] = []
        self._text = text

    def draw(self, logits: Floats, context: Sequence[int] = ()) -> int:
        """The text's token behind the context."""
        self.rows.append(logits.copy())
        return self._text[len(context)]


def probabilities(logits: Floats, sampling: Sampling) -> Doubles:
    """The probability (n_vocab,) of each token, as ``Draws`` has it."""
    peak = float(logits.max())
    chances = np.zeros(len(logits))
    if few := narrow(logits, peak, sampling):
        chances[few[0]] = few[1]
    else:
        chances[:] = weigh_kept(logits, peak, sampling).reshape(-1)[: len(logits)]
    chances /= chances.sum()
    return chances


def best_first(chances: Doubles) -> tuple[Doubles, Doubles]:
    """Where each token's part of [0, 1) begins and ends if the most likely token's is the first."""
    best = int(chances.argmax())
    begins = chances.cumsum() - chances
    begins[:best] += chances[best]
    begins[best] = 0
    return begins, begins + chances


def gumbel(one: Doubles, other: Doubles) -> float:
    """The share drawn alike by Gumbel sampling: the sum over tokens i of 1 / Σ_j max(p_j / p_i, q_j / q_i), see arXiv 2408.07978."""
    either = (one > 0) | (other > 0)
    p, q = one[either], other[either]
    order = np.divide(q, p, out=np.full(len(p), np.inf), where=p > 0).argsort()
    p, q = p[order], q[order]
    both = (p > 0) & (q > 0)
    smaller, greater = p.cumsum()[both], (q[::-1].cumsum()[::-1] - q).clip(0)[both]  # of tokens j with a smaller and a greater q_j / p_j
    return float((1 / (smaller / p[both] + greater / q[both])).sum())


def expected(draft: Doubles, target: Doubles) -> list[float]:
    """The shares that follow from the probabilities (shared tokens,), in the order of the headings."""
    (begins, ends), (other_begins, other_ends) = best_first(draft), best_first(target)
    first = (np.minimum(ends, other_ends) - np.maximum(begins, other_begins)).clip(0).sum()
    best = np.minimum(draft, target).sum()
    return [float(draft @ target), float(target[draft.argmax()]), float(first), gumbel(draft, target), float(best)]


def rows(engine: Engine, tokens: list[int], first: int) -> list[Floats]:
    """The logits (n_vocab,) that each token from the ``first`` on is drawn from."""
    sequence, reading = engine.sequence(tokens[:first]), Reading(tokens)
    sequence.generate(reading, len(tokens) - first, hint=Hint(tuple(tokens[first:]))).future.result()
    sequence.close()
    return reading.rows


def answered(engine: Engine, question: str, count: int) -> tuple[list[int], int]:
    """The tokens of a question with its answer, and how many of them are the question's."""
    asked = prompt_tokens(engine.model, Prompt.of(question))
    sequence = engine.sequence(asked)
    answer = sequence.generate(Draws(SAMPLINGS["temperature 0.7"], Stream(0, TARGET)), count).future.result()
    sequence.close()
    return asked + answer.tokens, len(asked)


def alike(pair: tuple[Floats, Floats], sampling: Sampling, stream: Stream, numbers: int) -> float:
    """The share of a stream's numbers for which two rows of logits give the same token."""
    draft, target = ([draws.draw(row) for _ in range(numbers)] for row, draws in ((row, Draws(sampling, stream)) for row in pair))
    return sum(map(int.__eq__, draft, target)) / numbers


def shares(draft: Engine, target: Engine, texts: list[tuple[list[int], int]], numbers: int) -> dict[str, list[float]]:
    """The mean shares for each sampling, in the order of the headings."""
    shared = draft.model.common_tokens(target.model)
    found: dict[str, list[list[float]]] = {name: [] for name in SAMPLINGS}
    for tokens, first in texts:
        for place, pair in enumerate(zip(rows(draft, tokens, first), rows(target, tokens, first), strict=True)):
            for name, sampling in SAMPLINGS.items():
                same = alike(pair, sampling, Stream(0, TARGET, step=place), numbers)
                found[name].append([same, *expected(*(probabilities(row, sampling)[:shared] for row in pair))])
    return {name: np.mean(values, axis=0).tolist() for name, values in found.items()}


def main() -> None:
    """Measures, and prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("draft", type=Path)
    arguments.add_argument("target", type=Path)
    arguments.add_argument("--text", type=Path, help="a file to read instead of the target's answers")
    arguments.add_argument("--tokens", type=int, default=64, help="most tokens of the text, or of each answer")
    arguments.add_argument("--numbers", type=int, default=32, help="random numbers at each place")
    arguments.add_argument("--threads", type=int, default=0, help="0 is the number of physical cores")
    chosen = arguments.parse_args()
    engines = []
    for path in (chosen.draft, chosen.target):
        config = RoleConfig(path, ctx_size=chosen.tokens + 256, threads=chosen.threads)
        engines.append(Engine(Model(config), config))
    draft, target = engines
    if not draft.model.common_tokens(target.model):
        arguments.error("draft and target have different vocabularies")
    if chosen.text:
        texts = [(target.model.tokenize(chosen.text.read_bytes())[: chosen.tokens + 1], 1)]
        if len(texts[0][0]) < 2:
            arguments.error(f"{chosen.text} has fewer than two tokens")
    else:
        texts = [answered(target, question, chosen.tokens) for question in QUESTIONS]
    found = shares(draft, target, texts, chosen.numbers)
    print(f"{sum(len(tokens) - first for tokens, first in texts)} places, {chosen.numbers} numbers at each\n")
    print("| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS))
    for name, values in found.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    for engine in engines:
        engine.model.close()


if __name__ == "__main__":
    main()
