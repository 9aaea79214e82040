"""The competitors that are llama-server, each model in a server of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from speed.server import Server
from speed.turn import Result, Turn, question, rejects


def target(turn: Turn) -> Result:
    """One server, a slot for each stream."""
    with Server(turn, turn.target, turn.streams) as server, ThreadPoolExecutor(turn.streams) as pool:
        prompts = [server.prompt(question(stream)) for stream in range(turn.streams)]

        def ask(count: int) -> list[list[int]]:
            return list(pool.map(lambda slot: server.complete(prompts[slot], count, slot), range(turn.streams)))

        ask(2)
        began = time.perf_counter()
        written = ask(turn.tokens)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "tokens": sum(map(len, written)), "build": server.build}


def embeddings(turn: Turn) -> Result:
    """RSD by re-prompting with the reward out of ``--embeddings``: the state of each step's last token, and a linear head on it.

    llama-server keeps no cache for embeddings, so that the reward model reads question and steps anew for each step.
    """
    with Server(turn, turn.reward, embeddings=True) as reward:
        width = len(reward.state(reward.tokenize("1")))
        head = np.random.default_rng(0).standard_normal(width) / width
        return _reprompt(turn, reward, lambda tokens: float(head @ np.asarray(reward.state(tokens))))


def completion(turn: Turn) -> Result:
    """RSD by re-prompting with the reward as one token's probability behind the step, for which llama-server keeps its cache."""

    def score(tokens: list[int]) -> float:
        return float(reward.complete(tokens, 1, probabilities=2)[0])

    with Server(turn, turn.reward) as reward:
        return _reprompt(turn, reward, score)


def _reprompt(turn: Turn, reward: Server, score: Callable[[list[int]], float]) -> Result:
    """For each step a request to the draft, one to the reward, and where the schedule rejects one to the target."""
    with Server(turn, turn.draft) as draft, Server(turn, turn.target) as target:
        tokens, separator = draft.prompt(question(0)), reward.tokenize("\n\n")
        graded = reward.tokenize(question(0) + "\n", special=True)
        for server in (draft, target):
            server.complete(tokens, 2)
        score(graded)
        answers: list[float] = []
        began = time.perf_counter()
        done = index = 0
        while done < turn.tokens:
            count = min(turn.step, turn.tokens - done)
            step = draft.complete(tokens, count)
            score(graded + step + separator)
            if rejects(index, turn.accepted):
                step = target.complete(tokens, count)
            tokens, graded = tokens + step, graded + step + separator
            done, index = done + count, index + 1
            answers.append(time.perf_counter() - began)
        return {"seconds": answers[-1], "tokens": done, "build": target.build, "steps": answers}
