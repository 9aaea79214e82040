"""``rsd pull``, ``list``, ``show``, ``verify`` and ``rm``: model files by name."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.options import StrictCommand
from rsd_local.cli.text import printable, say
from rsd_local.errors import Cancelled, ConfigError, NotAModel, RSDError

if TYPE_CHECKING:
    from rsd_local.catalogue import Catalogue
    from rsd_local.catalogue.models import ModelEntry

Command = Callable[..., Any]


def _offline(command: Command) -> Command:
    def switch(_ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            os.environ["HF_HUB_OFFLINE"] = "1"  # also for huggingface_hub, which reads it when it is imported, later

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

    What is there already is kept, and each file is checked before it can be used: against the SHA-256 that the hub says, and the
    one in models.toml where there is one. Of a model in several parts all are fetched. An interrupted download leaves nothing that
    loads, and goes on the next time. Set HF_TOKEN, or run hf auth login, for repositories that ask for an
    account, and HF_ENDPOINT for a mirror.
    """
    from rsd_local.catalogue import Catalogue
    from rsd_local.catalogue.models import pull as download
    from rsd_local.cli.progress import transfers
    from rsd_local.cli.showing import model_remarks, sha256_in_words

    entries = _entries(Catalogue.read(), name)
    if not entries:
        click.echo(printable(_NOT_PUBLISHED.format("download", name=name)), err=True)
    try:
        with transfers() as watch:
            download(entries, watch)
    except KeyboardInterrupt:
        raise Cancelled("interrupted", hint=f"rsd pull {name} goes on from there") from None
    for other, entry in entries.items():
        for path in entry.paths:
            click.echo(printable(f"{other}: {path}"), err=True)
        say("; ".join([*model_remarks(entry), sha256_in_words(entry)]), f"{other}: ", err=True)


_NOT_PUBLISHED = "{name}: its files come with the package or are your own, so there is nothing to {}"


@click.command("list", cls=StrictCommand)
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@_offline
def list_(as_json: bool) -> None:
    """Show all trios and models, and which are here."""
    from rsd_local.catalogue import Catalogue
    from rsd_local.cli.listing import print_incomplete, print_models, print_trios

    catalogue = Catalogue.read()
    trios = {name: catalogue.state(name) for name in catalogue.trios}
    models = {name: entry.state for name, entry in catalogue.models.items()}
    if as_json:
        click.echo(json.dumps({"trios": trios, "models": {name: state == "here" for name, state in models.items()}}))
        return
    print_trios(catalogue, trios)
    print_models(catalogue, models)
    print_incomplete(trios)
    click.echo()
    say("rsd show NAME tells more of one, rsd fit NAME whether it fits this machine, rsd pull NAME fetches it.")


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
            click.echo(printable(title))
            for key, value in rows.items():
                say(value, f"  {key:<{wide}}  ")


@click.command(cls=StrictCommand)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@_offline
def verify(name: str, as_json: bool) -> None:
    """Read the files of a trio or a model, and compare them with what was published.

    Each is the same, differs, or unknown: then neither models.toml nor the cache says what was published, and the hub could
    not be asked. Ends with 0 only where all are the same.
    """
    from rsd_local.catalogue import Catalogue

    entries = _entries(Catalogue.read(), name)
    verdicts = {other: entry.check() for other, entry in entries.items()}
    if as_json:
        click.echo(json.dumps({other: verdict.state for other, verdict in verdicts.items()}))
    else:
        for other, verdict in verdicts.items():
            if verdict.state == "same":
                click.echo(printable(f"{other}: same as published"))
    wrong = {other: verdict for other, verdict in verdicts.items() if verdict.state != "same"}
    if wrong:
        kind = NotAModel if any(verdict.state == "differs" for verdict in wrong.values()) else RSDError
        fixes = dict.fromkeys(verdict.fix for verdict in wrong.values() if verdict.fix)
        raise kind("; ".join(f"{other}: {verdict.state}: {verdict.why}" for other, verdict in wrong.items()), hint="; ".join(fixes))
    if not entries and not as_json:
        click.echo(printable(_NOT_PUBLISHED.format("compare them with", name=name)), err=True)


@click.command(cls=StrictCommand)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_offline
def rm(name: str, yes: bool) -> None:
    """Take the files of a trio or a model out of the cache.

    So goes what interrupted downloads left there. A model that another complete trio uses goes too: its files are in the cache once.
    """
    from rsd_local.catalogue import Catalogue

    named = _entries(Catalogue.read(), name)
    if not named:
        click.echo(printable(_NOT_PUBLISHED.format("take out", name=name)), err=True)
        return
    here = [other for other, entry in named.items() if entry.state != "not here"]
    if here and not yes:
        click.confirm(printable(f"take {', '.join(here)} out of the cache?"), abort=True, err=True)
    freed = sum(entry.remove() for entry in named.values())
    click.echo(f"freed {freed / 1e9:.2f} GB" if freed else printable(f"nothing of {name} is in the cache"), err=True)
