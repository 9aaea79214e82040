"""One role's model on another machine: a server that speaks HTTP."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from rsd_local.config.checks import from_home, require, require_choice
from rsd_local.config.roles import RoleConfig

Api = Literal["auto", "llama-server", "vllm", "sglang", "openai"]
OnFailure = Literal["error", "draft"]
_URL = re.compile(r"https?:/", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_url(path: str | Path) -> bool:
    """Whether a setting that may name a file names a server."""
    return _URL.match(str(path)) is not None


@dataclass(frozen=True, slots=True)
class RemoteRole:
    """One role's model on a server, and how it is reached.

    Attributes:
        url: where the server is, such as ``http://desk:8080``; a ``/v1`` at its end is left out.
        model: which of the server's models, where it has several.
        api: what the server speaks; ``auto`` asks it. ``openai`` is any server with OpenAI's API, which takes and gives text alone.
        api_key_env: the variable that holds the key; empty for none.
        api_key_file: a file whose first line is the key.
        connect_timeout: seconds until a connection must stand, for each address of the host; so long a server that is loading or full
            is asked again, too.
        read_timeout: seconds that may pass without a byte of an answer.
        parameters: billions of weights that a token meets, for FLOPs; 0 takes what the server says.
    """

    url: str
    model: str = ""
    api: Api = "auto"
    api_key_env: str = ""
    api_key_file: Path | None = None
    connect_timeout: float = 5.0
    read_timeout: float = 120.0
    parameters: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _checked(str(self.url)))
        object.__setattr__(self, "api_key_file", None if self.api_key_file is None else from_home(self.api_key_file))
        require_choice(self.api, Api, "api")
        require(not (self.api_key_env and self.api_key_file), "api_key_env beside api_key_file", "give one of them")
        fine = not self.api_key_env or _VARIABLE.fullmatch(self.api_key_env) is not None
        require(fine, "api_key_env is no name of a variable", "give the variable's name, not the key")
        for name in ("connect_timeout", "read_timeout"):
            value = float(getattr(self, name))
            object.__setattr__(self, name, value)
            require(0 < value <= 86_400, f"{name} {value} is outside 0 to 86,400 seconds, 0 left out")
        object.__setattr__(self, "parameters", float(self.parameters))
        require(0 <= self.parameters < math.inf, f"parameters {self.parameters} is no number of billions")

    @property
    def name(self) -> str:
        """For people: the model, or where it is."""
        return self.model or urlsplit(self.url).netloc


def _checked(url: str) -> str:
    """An address without what is not needed.

    Raises:
        ConfigError: it is none, or holds a name or a password.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - read to see whether it is a number
    except ValueError:
        parts = urlsplit("")
    require("@" not in parts.netloc, "a url with a name or password", "name the key's variable or file (api_key_env, api_key_file)")
    fine = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
    require(fine, f"url {url!r} is no address of a server", "such as http://desk:8080")
    path = parts.path.rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path.removesuffix("/v1"), "", ""))


AnyRole = RoleConfig | RemoteRole
"""A model here, or on a server."""


def require_model(value: object, role: str) -> None:
    """Raises ConfigError where ``value``, given for a role, is no ``AnyRole``, such as a path alone."""
    require(isinstance(value, AnyRole), f"{role} {value!r} is no model", "give RoleConfig(path), or RemoteRole(url)")
