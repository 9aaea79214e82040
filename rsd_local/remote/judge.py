"""How likely each of a few tokens is behind a prompt, as llama-server tells it: what a judge is asked for, and a model with tags.

llama-server's ``n_probs`` with ``post_sampling_probs`` = false names the likeliest tokens of the whole vocabulary, and the ones that are
asked for need not be among them. So they are lifted above all others by one and the same ``logit_bias``, and the probabilities are
those behind a sampler that keeps just them: their shares of each other stay what they are. The fields are those of
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md, ``/completion``.
"""

from __future__ import annotations

from collections.abc import Sequence

from rsd_local.errors import BadAnswer
from rsd_local.remote.api import Timing
from rsd_local.remote.llama_server import LlamaServer
from rsd_local.remote.transport import Call

_LIFT = 100.0  # nats: more than any model's logits are apart


def answer_shares(
    server: LlamaServer, tokens: Sequence[int], answers: Sequence[int], slot: int, call: Call, *, reuse: bool = True
) -> tuple[list[float], Timing]:
    """How likely each of some tokens comes next, among them alone.

    Args:
        server: that is asked.
        tokens: the prompt.
        answers: the tokens.
        slot: whose cache is used; −1 for any.
        call: the request, to end it.
        reuse: whether what the slot's cache has of the prompt may stay.

    Returns:
        The shares, which add up to 1, NaN where the model gave no numbers; and what the request took.

    Raises:
        RemoteError, ContextFull: what went wrong.
    """
    found = server.completion(
        {
            "prompt": list(tokens), "n_predict": 1, "id_slot": slot, "cache_prompt": reuse, "n_probs": len(answers),
            "post_sampling_probs": True, "logit_bias": [[token, _LIFT] for token in answers], "temperature": 1.0, "top_k": len(answers),
            "samplers": ["top_k", "temperature"], "response_fields": ["completion_probabilities", "timings"],
        },
        call,
    )  # fmt: skip
    try:
        ranked = found["completion_probabilities"][0]["top_probs"]
        shares = {server.answers.token(one["id"]): server.answers.share(one["prob"], "prob") for one in ranked}
    except (KeyError, IndexError, TypeError):
        raise BadAnswer(f"{server.url} tells no probabilities", hint="is it an older llama-server? `n_probs` is needed") from None
    if not set(shares) <= set(answers):
        raise BadAnswer(f"{server.url} takes no logit_bias, so it cannot be a judge", hint="a llama-server can")
    return [shares.get(token, 0.0) for token in answers], server.timing(found)
