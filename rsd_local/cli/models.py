"""``rsd pull``, ``list``, ``show``, ``verify`` and ``rm``: model files by name."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.options import StrictCommand
from rsd_local.cli.text import printable
from rsd_local.errors import ConfigError

if TYPE_CHECKING:
    from rsd_local.catalogue import Catalogue
    from rsd_local.catalogue.models import ModelEntry

Command = Callable[..., Any]


def _offline(command: Command) -> Command:
    def switch(_ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it when it is imported, which is later

    return click.option("--offline", is_flag=True, expose_value=False, callback=switch, help="Open no socket.")(command)


def _entries(catalogue: Catalogue, name: str) -> dict[str, ModelEntry]:
    """The files that a model's or a trio's name stands for.

    Raises:
        ConfigError: there is no such name.
    """
    if name in catalogue.models:
        return {name: catalogue.models[name]}
    if name not in catalogue.trios:
        raise ConfigError(f"no model and no trio {name!r}", hint="rsd list shows all names")
    used = catalogue.models_of(name).values()
    return {other: entry for other, entry in catalogue.models.items() if entry in used}


@click.command(cls=StrictCommand)
@click.argument("name")
@_offline
def pull(name: str) -> None:
    """Download the files of a trio or a model.

    What is there already is kept, an interrupted download leaves nothing that loads, and each file is checked against its
    SHA-256 before it can be used. Set HF_TOKEN for repositories that ask for an account, and HF_ENDPOINT for a mirror.
    """
    from rsd_local.catalogue import Catalogue
    from rsd_local.catalogue.models import pull as download
    from rsd_local.cli.progress import transfers

    entries = _entries(Catalogue.read(), name)
    with transfers() as watch:
        download(entries, watch)
    for other, entry in entries.items():
        click.echo(printable(f"{other}: {entry.path}"), err=True)


_NOT_PUBLISHED = "{name}: its files come with the package or are your own; there is nothing to compare them with, or to take out"


@click.command("list", cls=StrictCommand)
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@_offline
def list_(as_json: bool) -> None:
    """Show all trios and models, and which are here."""
    from rsd_local.catalogue import Catalogue

    catalogue = Catalogue.read()
    trios = {name: catalogue.state(name) for name in catalogue.trios}
    here = {name: entry.path.exists() for name, entry in catalogue.models.items()}
    if as_json:
        click.echo(json.dumps({"trios": trios, "models": here}))
        return
    wide = max(map(len, [*trios, *here]))
    for name, state in trios.items():
        machine = catalogue.trios[name].get("machine", "")
        click.echo(printable(f"trio   {name:<{wide}}  {'complete' if state == 'complete' else 'not here':<8}  {machine}"))
    for name, entry in catalogue.models.items():
        size = f"{entry.gigabytes:.2f} GB"
        click.echo(printable(f"model  {name:<{wide}}  {'here' if here[name] else 'not here':<8}  {size:>8}  {entry.licence}"))


@click.command(cls=StrictCommand)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@_offline
def show(name: str, as_json: bool) -> None:
    """Show what is known of a trio or a model, and what it takes in memory; its files need not be here."""
    from rsd_local.catalogue import Catalogue
    from rsd_local.cli.showing import model_rows, trio_memory, trio_rows

    catalogue = Catalogue.read()
    entries = _entries(catalogue, name)
    if as_json:
        models = {
            other: dataclasses.asdict(entry) | {"here": str(entry.path) if entry.path.exists() else None}
            for other, entry in entries.items()
        }
        found: dict[str, Any] = {"models": models}
        if name in catalogue.trios:
            found = {"state": catalogue.state(name), "trio": catalogue.trios[name], **found, "memory": trio_memory(catalogue, name)}
        click.echo(json.dumps(found, default=str))
        return
    for title, rows in (
        (f"trio {name}", trio_rows(catalogue, name)),
        *((f"model {one}", model_rows(entry)) for one, entry in entries.items()),
    ):
        if rows:
            wide = max(map(len, rows))
            click.echo(printable("\n".join([title, *(f"  {key:<{wide}}  {value}" for key, value in rows.items())])))


@click.command(cls=StrictCommand)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@_offline
def verify(name: str, as_json: bool) -> None:
    """Read the files of a trio or a model, and compare them with what was published."""
    from rsd_local.catalogue import Catalogue

    entries = _entries(Catalogue.read(), name)
    for other, entry in entries.items():
        entry.verify()
        if not as_json:
            click.echo(printable(f"{other}: as published"))
    if as_json:
        click.echo(json.dumps(dict.fromkeys(entries, "as published")))
    elif not entries:
        click.echo(printable(_NOT_PUBLISHED.format(name=name)), err=True)


@click.command(cls=StrictCommand)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_offline
def rm(name: str, yes: bool) -> None:
    """Take the files of a trio or a model out of the cache.

    A model that another complete trio uses goes too: its files are in the cache once.
    """
    from rsd_local.catalogue import Catalogue

    named = _entries(Catalogue.read(), name)
    if not named:
        click.echo(printable(_NOT_PUBLISHED.format(name=name)), err=True)
        return
    entries = {other: entry for other, entry in named.items() if entry.path.exists()}
    if entries and not yes:
        click.confirm(printable(f"take {', '.join(entries)} out of the cache?"), abort=True, err=True)
    freed = sum(entry.remove() for entry in entries.values())
    click.echo(f"freed {freed / 1e9:.2f} GB", err=True)
