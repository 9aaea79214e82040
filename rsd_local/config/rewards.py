"""One reward: how a step is scored, and from which number on it stands."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsd_local.config.checks import from_home, require, require_choice
from rsd_local.config.remote import AnyRole, RemoteRole, require_model

RewardKind = Literal[
    "tag-logits", "judge", "digit", "confidence", "likelihood", "likelihood-least", "likelihood-running", "contrast", "read-out",
    "value-head", "prm", "verifier",
]  # fmt: skip
TagLayout = Literal["math-shepherd", "rlhflow", "granite"]

Checker = Any  # a Check or a Verifier of rewards.verifier, which lies above
NEEDS_MODEL = ("tag-logits", "value-head", "prm")
TAKES_MODEL = (*NEEDS_MODEL, "judge", "digit")
NEEDS_HEAD = ("value-head", "read-out")
VERIFIERS = ("python-tests", "python-compiles", "arithmetic", "json-schema", "pytest:PATH", "regex:PATTERN", "command:CMD")
"""The forms that a verifier's name can have."""
_UNSURE = (0.2, 0.8)  # the band of a reward whose own nobody has measured
MOST_REWARDS = 4


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """One reward, alone or as a stage of a cascade.

    Attributes:
        kind: how a step is scored.
        model: the model that reads steps, here or on a server; None for kinds that need none, and where ``judge`` and ``digit`` use
            the target's weights, or its server.
        layout: the text that a tag-logits model was trained on.
        head: the file of a value-head or read-out.
        verifier: what checks a step, one of ``VERIFIERS``, or from Python a ``rewards.verifier.Check`` or ``Verifier``.
        tests: a Python file that python-tests runs in place of the examples in the prompt.
        schema: the JSON schema of json-schema.
        code_file: the file that pytest:PATH writes the code to.
        lower, upper: below ``lower`` a step is rejected, from ``upper`` on it stands, and between them the next reward is asked. Of the
            last reward ``upper`` is its threshold. None: 1 and 1 of a verifier, 0.2 and 0.8 of another that is not the last one,
            and of the last one the run's own threshold.
    """

    kind: RewardKind
    model: AnyRole | None = None
    layout: TagLayout = "math-shepherd"
    head: Path | None = None
    verifier: str | Checker = ""
    tests: Path | None = None
    schema: Path | None = None
    code_file: str = "solution.py"
    lower: float | None = None
    upper: float | None = None

    def __post_init__(self) -> None:
        for name in ("head", "tests", "schema"):
            given = getattr(self, name)
            object.__setattr__(self, name, given and from_home(given))
        kind = self.kind
        if self.model is not None:
            require_model(self.model, "reward")
        require_choice(kind, RewardKind, "reward_kind")
        require_choice(self.layout, TagLayout, "layout")
        fix = f"name its {'server' if kind == 'prm' else 'GGUF file'} (--reward)"
        require(self.model is not None or kind not in NEEDS_MODEL, f"reward kind {kind} needs a reward model", fix)
        away = kind != "prm" or isinstance(self.model, RemoteRole)
        require(away, "reward kind prm is a model on a server, which answers /pooling", "give its address, or --reward-kind value-head")
        require(self.model is None or kind in TAKES_MODEL, f"reward kind {kind} takes no reward model", "leave --reward away")
        needs_head = kind in NEEDS_HEAD
        require(self.head is not None or not needs_head, f"reward kind {kind} needs a head", "name its safetensors file (--head)")
        require(self.head is None or needs_head, f"reward kind {kind} takes no head", "leave --head away, or choose read-out or value-head")
        self._check_verifier()
        for name in ("lower", "upper"):
            value = getattr(self, name)
            require(value is None or 0.0 <= value <= 1.0, f"{name} {value} is outside 0 to 1")
        if self.lower is not None:
            require(self.upper is not None and self.lower <= self.upper, f"lower {self.lower} is not at most upper {self.upper}")

    def _check_verifier(self) -> None:
        name = self.verifier
        if self.kind != "verifier":
            require(not name, f"reward kind {self.kind} takes no verifier", "leave --verifier away, or choose --reward-kind verifier")
            return
        require(isinstance(name, str) or callable(getattr(name, "check", name)), f"verifier {name!r} is no name and nothing to call")
        require(bool(name), "reward kind verifier needs a verifier", f"--verifier, one of: {', '.join(VERIFIERS)}")
        if isinstance(name, str):
            form, colon, rest = name.partition(":")
            known = {one.partition(":")[0]: ":" in one for one in VERIFIERS}
            near = difflib.get_close_matches(form, known, 1)
            require(
                form in known, f"verifier {name!r} is unknown", f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(VERIFIERS)}"
            )
            require(
                known[form] == bool(colon) and bool(rest.strip()) == bool(colon),
                f"verifier {name!r} is not of the form {form}{':…' if known[form] else ''}",
            )
            require(self.schema is not None or form != "json-schema", "verifier json-schema needs a schema", "name its file (--schema)")
        for key, owner in (("tests", "python-tests"), ("schema", "json-schema")):
            require(getattr(self, key) is None or name == owner, f"verifier {name} takes no {key}", f"{key} is for {owner}")

    @property
    def name(self) -> str:
        """What its scores are said to be by."""
        if self.kind != "verifier":
            return self.kind
        if isinstance(self.verifier, str):
            return self.verifier.partition(":")[0]
        return getattr(self.verifier, "__name__", "") or type(self.verifier).__name__

    @property
    def runs_code(self) -> bool:
        """Whether it starts a program: one that a model wrote, or one that a setting names."""
        return isinstance(self.verifier, str) and self.name in ("python-tests", "pytest", "command")

    def band(self, *, last: bool) -> tuple[float, float] | None:
        """``lower`` and ``upper``, None where the run's threshold decides."""
        if last:
            return None
        if self.upper is not None:
            return (self.upper if self.lower is None else self.lower), self.upper
        return (1.0, 1.0) if self.kind == "verifier" else _UNSURE
