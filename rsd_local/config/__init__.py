"""Settings: frozen dataclasses that validate themselves."""

from rsd_local.config.checks import from_home, require, require_choice, require_writable
from rsd_local.config.ollama import is_ollama
from rsd_local.config.params import (
    Aggregate,
    Fallback,
    Limits,
    Params,
    Sampling,
    Search,
    StopAfter,
    Strategy,
    TemplateValue,
    Thinking,
    ThinkMode,
    Unchecked,
    Ways,
    Weighting,
    WeightingKind,
    default_temperature,
    sequences_needed,
)
from rsd_local.config.remote import AnyRole, OnFailure, RemoteRole, is_url
from rsd_local.config.rewards import NEEDS_HEAD, NEEDS_MODEL, TAKES_MODEL, VERIFIERS, RewardConfig, RewardKind, TagLayout
from rsd_local.config.roles import CacheType, FlashAttention, RoleConfig
from rsd_local.config.trio import ROLES, SYSTEM_PROMPT, OnVerifierError, SandboxLevel, Trio
from rsd_local.config.tuned import TunedFigures

__all__ = [
    "NEEDS_HEAD",
    "NEEDS_MODEL",
    "ROLES",
    "SYSTEM_PROMPT",
    "TAKES_MODEL",
    "VERIFIERS",
    "Aggregate",
    "AnyRole",
    "CacheType",
    "Fallback",
    "FlashAttention",
    "Limits",
    "OnFailure",
    "OnVerifierError",
    "Params",
    "RemoteRole",
    "RewardConfig",
    "RewardKind",
    "RoleConfig",
    "Sampling",
    "SandboxLevel",
    "Search",
    "StopAfter",
    "Strategy",
    "TagLayout",
    "TemplateValue",
    "ThinkMode",
    "Thinking",
    "Trio",
    "TunedFigures",
    "Unchecked",
    "Ways",
    "Weighting",
    "WeightingKind",
    "default_temperature",
    "from_home",
    "is_ollama",
    "is_url",
    "require",
    "require_choice",
    "require_writable",
    "sequences_needed",
]
