"""Strategies as they are written: every field of the settings has a key, and a slip is named."""

from __future__ import annotations

import dataclasses

import pytest

from rsd_local.bench.strategies import read_strategies, read_strategy
from rsd_local.config import Limits, Params, Search, Weighting
from rsd_local.errors import ConfigError

BASE = Params(weighting=Weighting(threshold=0.6), limits=Limits(tokens=300))


def test_what_a_spec_does_not_say_is_as_the_command_line_has_it() -> None:
    plan = read_strategy("rsd", BASE)
    assert (plan.label, plan.strategy, plan.params) == ("rsd", "rsd", BASE)


def test_keys_reach_every_group_of_settings() -> None:
    plan = read_strategy("rsd:weighting=constant,probability=0.6,temperature=0.5,top_k=20,steps=7,candidates=3,fallback=off", BASE)
    params = plan.params
    assert (params.weighting.kind, params.weighting.probability, params.weighting.threshold) == ("constant", 0.6, 0.6)
    assert (params.sampling.temperature, params.sampling.top_k) == (0.5, 20)
    assert (params.limits.steps, params.limits.tokens) == (7, 300)
    assert (params.search.candidates, params.search.fallback) == (3, "off")


def test_every_size_of_the_search_can_be_written() -> None:
    for field in dataclasses.fields(Search):
        if field.name == "ways":  # those of one answer, which auto goes again
            continue
        value = {"aggregate": "min", "fallback": "on"}.get(field.name, "2")
        made = read_strategy(f"rsd:{field.name}={value}", BASE).params.search
        assert str(getattr(made, field.name)) == value


@pytest.mark.parametrize(
    ("spec", "temperature"),
    [
        ("rsd", 0.0),
        ("target", 0.0),
        ("majority", 0.7),
        ("best-of-n:samples=2", 0.7),
        ("beam", 0.7),
        ("rsd:candidates=4", 0.7),
        ("majority:temperature=1", 1.0),
    ],
)
def test_a_strategy_that_samples_has_a_temperature(spec: str, temperature: float) -> None:
    assert read_strategy(spec, BASE).params.sampling.temperature == temperature


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("rds", "strategy 'rds' is unknown", "rsd"),
        ("rsd:tempreature=1", "unknown key 'tempreature'", "did you mean 'temperature'? known: temperature, top_k, "),
        ("rsd:temp=1", "unknown key 'temp'", "did you mean 'temperature'? known: "),
        ("rsd:seed=4", "unknown key 'seed'", ""),
        ("rsd:temperature", "'temperature' has no value", "temperature=…"),
        ("rsd:steps=many", "steps = 'many' is not of the right kind", ""),
        ("rsd:steps=0", "strategy 'rsd:steps=0': a limit of 0 steps is below 1", ""),
        ("rsd:weighting=stp", "weighting 'stp' is unknown", "step"),
        ("majority:temperature=0", "every try is the same", ""),
    ],
)
def test_a_slip_is_refused_by_name(spec: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_strategy(spec, BASE)
    assert message in str(caught.value) and hint in caught.value.hint


def test_a_bench_has_a_strategy_and_each_once() -> None:
    with pytest.raises(ConfigError, match="no strategy"):
        read_strategies([], BASE)
    with pytest.raises(ConfigError, match="twice"):
        read_strategies(["rsd", "target", "rsd"], BASE)
