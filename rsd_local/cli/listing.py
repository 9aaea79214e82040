"""What ``rsd list`` prints: trios by the machine that they are for, and models by whether they are here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rsd_local.cli.showing import model_remarks
from rsd_local.cli.text import printable, say
from rsd_local.cli.words import gigabytes

if TYPE_CHECKING:
    from rsd_local.catalogue import Catalogue

_MODELS = {"here": "Models that are here:", "incomplete": "Models that are here in part:", "not here": "Models that are not here:"}


def print_trios(catalogue: Catalogue, states: dict[str, str]) -> None:
    """Each machine with the trios for it: their state, what they are, and what gain to expect.

    Args:
        catalogue: all that is known by name.
        states: ``Catalogue.state`` of each trio.
    """
    groups = dict[str, list[str]]()
    for name, table in catalogue.trios.items():
        groups.setdefault(str(table.get("machine", "")) or "of no named machine", []).append(name)
    say("Trios (draft for target), by the memory that they were put together for: of the GPU, or of a machine without one.")
    for machine, names in groups.items():
        click.echo()
        say(machine)
        for name in names:
            table, shown = catalogue.trios[name], _state(states[name])
            size = 0 if shown == "complete" else catalogue.to_pull(name)
            say(shown + (f", {gigabytes(size)} to fetch" if size else ""), f"  {name}: ")
            for text in (table.get("about"), table.get("expect")):
                if text:
                    say(str(text), "      ")


def print_models(catalogue: Catalogue, states: dict[str, str]) -> None:
    """Each model with its size, its licence, and whether it thinks or is a mixture of experts.

    Args:
        catalogue: all that is known by name.
        states: ``ModelEntry.state`` of each model.
    """
    wide = max(map(len, states), default=0)
    for state, title in _MODELS.items():
        names = [name for name, found in states.items() if found == state]
        if names:
            click.echo(f"\n{title}")
        for name in names:
            entry = catalogue.models[name]
            size = f"{entry.gigabytes:.2f} GB"
            say(", ".join(model_remarks(entry)), f"  {name:<{wide}}  {size:>8}  ")


def print_incomplete(states: dict[str, str]) -> None:
    """What is missing of trios that are here in part."""
    for name, state in states.items():
        if "incomplete: " in state:
            click.echo(printable(f"{name} is {state}"))


def _state(state: str) -> str:
    if state == "complete" or state.endswith(" missing"):
        return "complete" if state == "complete" else "not here"
    return "incomplete" if "incomplete: " in state else "its table is not right"
