"""``rsd pair``: which of the user's own files go together as draft and target."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsd_local.cli.options import StrictCommand
from rsd_local.cli.pair_words import HEADING, NAME, as_object, pair_lines, shortened
from rsd_local.cli.text import json_line, printable, quoted, say
from rsd_local.cli.words import gigabytes
from rsd_local.config import require
from rsd_local.errors import ConfigError, ModelNotFound

if TYPE_CHECKING:
    from rsd_local.catalogue.folders import ModelFolders
    from rsd_local.fit.pairs import Candidates, Left, Pair

_SHOWN = 8
_MANY = 20  # files from which on progress is shown
_CACHED = 100_000_000
"""Bytes of weights up to which they can stay in a CPU's caches; then memory is not what bounds the speed."""
_EXAMPLE = "mine.toml"
_TUNE = ("--data", "questions.jsonl", "--best")
_OTHERWISE = (
    "Models of different vocabularies can be tried too, for steps travel as text: rsd solve -md SMALL -m LARGE --reward-kind judge. "
    "rsd list has pairs to download."
)
_LEGEND = (
    "ratio: the target's weights to the draft's. memory: of both, with their contexts; {free} are free. at best: times as fast as the "
    "target alone, where {accepted:.0%} of the drafted steps are accepted."
)
_EXPERTS = " weights A/B: of a mixture of experts, A of B meet a token, and A counts for the ratio."


@click.command(cls=StrictCommand)
@click.argument("folders", metavar="[DIR]...", nargs=-1, type=Path)
@click.option("--write", "file", type=Path, metavar="FILE", help="Write a trio's TOML file of the best pair.")
@click.option("--pair", "number", type=int, metavar="N", help="Write pair N of the table instead. Default: 1.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--all", "all_", is_flag=True, help="Show all pairs, not the best for each target alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def pair(folders: tuple[Path, ...], file: Path | None, number: int | None, force: bool, all_: bool, as_json: bool) -> int:
    """Find a draft and a target among your own files.

    Looks through the GGUF files in each DIR and says which go together: by vocabulary, size, memory and speed, best first,
    and why the others do not. Without DIR it looks where LM Studio, Ollama, the hub's tools and llama.cpp keep models. Only
    headers are read. Ends with 1 where no two files go together.
    """
    require(file is not None or (number is None and not force), "--pair and --force are for --write", f"give --write {_EXAMPLE} too")
    if file is not None and not force and file.exists():
        raise ConfigError(f"{file} is there already", hint="--force writes over it")
    from rsd_local.fit import make_plan
    from rsd_local.fit.pairs import find_pairs
    from rsd_local.runtime.devices import devices

    found, plan = _files(folders), make_plan({}, devices())
    models = _read(found, on_gpu=plan.gpu_free > 0)
    free = plan.cpu_free + (0 if _one_memory() else plan.gpu_free)
    pairs, left = find_pairs(models, free, _bandwidth(models, on_gpu=plan.gpu_free > 0))
    place = {id(one): number for number, one in enumerate(found.files)}
    left = sorted([*left, *models.left], key=lambda one: place[id(one.file)])
    if file is not None:
        _write(file, number or 1, pairs, force=force)
    if as_json:
        click.echo(json_line(as_object(found, pairs, left, free, str(file) if file else None)))
    else:
        _show(found, pairs, left, free, all_=all_)
        _say_next(folders, file, pairs)
    return 0 if pairs else 1


def _files(folders: Sequence[Path]) -> ModelFolders:
    from rsd_local.catalogue.folders import find_models, is_there, usual_folders

    places = list(folders) or usual_folders()
    found = find_models(place for place in places if folders or is_there(place))
    if not found.files:
        looked = ", ".join(map(str, places))
        problems = f" ({'; '.join(found.problems)})" if found.problems else ""
        raise ModelNotFound(f"no GGUF file in {looked}{problems}", hint="give the folder of yours: rsd pair DIR")
    return found


def _read(found: ModelFolders, *, on_gpu: bool) -> Candidates:
    """Reads all headers."""
    from rsd_local.cli.progress import counting
    from rsd_local.fit.pairs import Candidates

    models = Candidates(on_gpu=on_gpu)
    if len(found.files) < _MANY:
        for file in found.files:
            models.read(file)
        return models
    with counting("headers") as watch:
        for place, file in enumerate(found.files, 1):
            models.read(file)
            watch(place, len(found.files))
    return models


def _bandwidth(models: Candidates, *, on_gpu: bool) -> float:
    """Bytes a second that memory gives, where it bounds the speed of one of the models: on the CPU, and of weights that are many."""
    from rsd_local import machine
    from rsd_local.fit.speed import memory_bandwidth

    bound = not on_gpu and any(model.footprint.read > _CACHED for model in models.models)
    return memory_bandwidth(machine.threads()) if bound else math.inf


def _one_memory() -> bool:
    """Whether the GPU's memory is the machine's, as on Apple silicon: then it counts once."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _write(file: Path, number: int, pairs: Sequence[Pair], *, force: bool) -> None:
    """Writes a pair as a trio's file."""
    from rsd_local.catalogue.new_trio import write_trio

    require(bool(pairs), "no two of the files go together, so nothing is written", "rsd pair without --write says why")
    require(1 <= number <= len(pairs), f"--pair {number} is none of the {len(pairs)} pairs", "rsd pair --all shows them")
    chosen = pairs[number - 1]
    write_trio(file, chosen.draft.file.setting, chosen.target.file.setting, force=force)


def _show(found: ModelFolders, pairs: Sequence[Pair], left: Sequence[Left], free: int, *, all_: bool) -> None:
    """The table of pairs, and what is in none."""
    from rsd_local.fit.pairs import ACCEPTED

    targets = len({id(pair.target) for pair in pairs})
    shown = pairs if all_ else pairs[: min(targets, _SHOWN)]
    if pairs:
        click.echo(HEADING)
    for number, pair in enumerate(shown, 1):
        click.echo(printable("\n".join(pair_lines(number, pair))))
        for note in pair.notes:
            say(note, " " * 12)
    rows = [(one.file.name, one.reason) for one in left]
    if rows:
        click.echo("\nIn no pair:" if pairs else "No two of these files go together:")
    wide = min(NAME - 1, max((len(name) for name, _ in rows), default=0))
    for name, reason in rows:
        say(" ".join(reason.split()), f"  {shortened(name, wide):<{wide}}  ")
    if pairs:
        click.echo()
        experts = any(one.active < one.weights for pair in shown for _, one in pair.roles)
        say(_LEGEND.format(free=gigabytes(free), accepted=ACCEPTED) + _EXPERTS * experts)
    if len(pairs) > len(shown):
        names = {id(one) for pair in shown for _, one in pair.roles}
        others = len({id(one) for pair in pairs for _, one in pair.roles} - names)
        inside = f", {_counted(others, 'more file')} in them" if others else ""
        click.echo(f"{_counted(len(pairs) - len(shown), 'more pair')}{inside}: --all")
    for problem in found.problems:
        say(problem, "left out: ", err=True)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _say_next(folders: Sequence[Path], file: Path | None, pairs: Sequence[Pair]) -> None:
    """The next command to type."""
    if not pairs:
        say(_OTHERWISE, err=True)
        return
    if file is None:
        click.echo(printable(f"next: {_typed('pair', *map(str, folders), '--write', _EXAMPLE)}"), err=True)
        return
    named = str(file) if file.suffix == ".toml" or file.name != str(file) else f"./{file}"
    commands = (("fit", named), ("solve", "--trio", named, "What is 17 times 23?"), ("tune", "--trio", named, *_TUNE))
    click.echo(printable("\n".join([f"wrote {file}; next:", *(f"  {_typed(*words)}" for words in commands)])), err=True)


def _typed(*words: str) -> str:
    return " ".join(["rsd", *map(quoted, words)])
