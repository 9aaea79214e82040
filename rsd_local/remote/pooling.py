"""A process reward model on vLLM, head and all: its ``/pooling`` gives two numbers for each step.

Used are ``/v1/models`` (``id``, ``max_model_len``), ``/version`` and ``/pooling`` with ``model``, ``messages``, ``task`` and
``encoding_format``; of its answer ``data[0].data``, one row for each step's tag where the model is pooled by ``STEP``, and
``usage.prompt_tokens``. Read in vLLM's documents of 2026: https://docs.vllm.ai/en/latest/models/pooling_models/ ("Pooling API",
"Reward Usage") and ``vllm/entrypoints/pooling/pooling/protocol.py``. No vLLM was there to try it with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rsd_local.config import RemoteRole
from rsd_local.errors import BadAnswer, RemoteError, RemoteRefused
from rsd_local.remote.answers import Answers, is_count
from rsd_local.remote.api import Facts
from rsd_local.remote.transport import Call, Transport

_START = "start vLLM with a process reward model, such as vllm serve Qwen/Qwen2.5-Math-PRM-7B"
_STEP = 'its pooling has to be STEP, at the tag that ends a step: --pooler-config \'{"pooling_type": "STEP", "step_tag_id": …}\''
_LARGEST = 1e6  # of its numbers, which are shares, or logits

Rows = list[list[float]]
Message = dict[str, str]


class PoolingEngine:
    """A model that answers ``/pooling``.

    Args:
        config: where it is.
        name: of its role.

    Attributes:
        tag: what stands behind each step, of Qwen2.5-Math-PRM.
        facts: what the server says of itself; its context is 0 where it does not say.
        parameters: weights that a token meets, as they are stated; 0 where they are not.

    Raises:
        ConfigError: the key cannot be read.
        RemoteError: the server cannot be reached, or has no such model.
    """

    tag = "<extra_0>"

    def __init__(self, config: RemoteRole, name: str) -> None:
        self.config, self.name = config, name
        self._transport = Transport(config)
        self._answers = Answers(self._transport, "vLLM")
        try:
            self.facts = self._asked()
        except BaseException:
            self._transport.close()
            raise
        self.parameters = round(config.parameters * 1e9)

    @property
    def context(self) -> int:
        """Tokens that one question may take; 0 where it is not known."""
        return self.facts.context

    def about(self) -> str:
        """For people."""
        size = f", {self.parameters / 1e9:.3g} B parameters" if self.parameters else ""
        room = f", context {self.context}" if self.context else ""
        return f"{self.facts.model} on {self.config.url} ({self.facts.build}){size}{room}"

    def rows(self, messages: Sequence[Message], steps: int, call: Call) -> tuple[Rows, int]:
        """What the model says at the end of each step.

        Args:
            messages: the conversation, whose last message holds the steps with their tags.
            steps: how many.
            call: the request, to end it.

        Returns:
            A row of numbers for each step, NaN where the model gave none; and how many tokens were evaluated.

        Raises:
            ContextFull, RemoteError: what went wrong.
        """
        body = {"model": self._model, "messages": list(messages), "task": "token_classify", "encoding_format": "float"}
        try:
            found = self._transport.ask("/pooling", body, call)
        except RemoteRefused as error:
            raise RemoteRefused(str(error), hint=_START) from None
        try:
            if not isinstance(listed := found["data"][0]["data"], list):
                raise TypeError
            rows = [[self._number(one) for one in row] for row in listed]
            tokens = self._answers.number(found["usage"]["prompt_tokens"], "prompt_tokens")
        except (KeyError, IndexError, TypeError):
            raise self._answers.garbage("what /pooling answers are no rows of numbers") from None
        if len(rows) != steps:
            raise BadAnswer(f"{self.config.url} gives {len(rows)} rows for {steps} steps", hint=_STEP)
        return rows, tokens

    def ping(self) -> None:
        """A request without work."""
        self._listed()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _listed(self) -> list[dict[str, Any]]:
        try:
            found = self._transport.ask("/v1/models")
            return [one for one in found["data"] if isinstance(one, dict)]
        except (KeyError, TypeError):
            raise self._transport.faults.garbage("what /v1/models answers is no list of models") from None

    def _asked(self) -> Facts:
        named, listed = self.config.model, self._listed()
        found = next((one for one in listed if named in (one.get("id"), one.get("root"))), None if named else next(iter(listed), None))
        if found is None:
            raise RemoteRefused(f"{self.config.url} has no model {named!r}" if named else f"{self.config.url} has no model", hint=_START)
        self._model = self._answers.text(found.get("id"), "/v1/models") or named
        room = found.get("max_model_len")
        try:
            version = f"vLLM {self._answers.label(self._answers.ask('/version')['version'])}"
        except (RemoteError, KeyError):
            version = "version unknown"
        return Facts("vllm", self._answers.label(self._model), room if is_count(room) else 0, build=version)

    def _number(self, found: object) -> float:
        return math.nan if found is None else self._answers.real(found, "a number of a step", -_LARGEST, _LARGEST)
