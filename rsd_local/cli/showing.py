"""What ``rsd show`` says of a trio and of a model file, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsd_local.cli.words import gigabytes, in_words
from rsd_local.errors import RSDError

if TYPE_CHECKING:
    from rsd_local.catalogue import Catalogue
    from rsd_local.catalogue.models import ModelEntry
    from rsd_local.gguf_header import Header


def trio_rows(catalogue: Catalogue, name: str) -> dict[str, str]:
    """A trio's settings as its file has them, what it takes in memory, and whether its files are here; nothing for a model's name."""
    if name not in catalogue.trios:
        return {}
    rows = dict[str, str]()
    for key, value in catalogue.trios[name].items():
        rows |= {f"{key}.{inner}": in_words(one) for inner, one in value.items()} if isinstance(value, dict) else {key: in_words(value)}
    memory = trio_memory(catalogue, name)
    if memory is not None:
        rows["memory"] = f"about {gigabytes(memory)} for one question at a time (rsd fit {name})"
    state = catalogue.state(name)
    if state != "complete" and catalogue.models_of(name) and "rsd pull" not in state:
        state += f"; rsd pull {name} fetches what is missing"
    return rows | {"state": state}


def trio_memory(catalogue: Catalogue, name: str) -> int | None:
    """Bytes that a trio takes in memory without a GPU; None where a file of its own is not here, or is damaged."""
    from rsd_local.fit import make_plan, published_headers
    from rsd_local.open_trio import capacities

    try:
        trio = catalogue.trio(name)
        roles = capacities(trio, (None,) * len(trio.stages))
        return make_plan(roles, [], published_headers(catalogue.models_of(name).values())).on_cpu
    except RSDError:
        return None


def model_rows(entry: ModelEntry) -> dict[str, str]:
    """A model file's figures."""
    from rsd_local.fit.published import published_header
    from rsd_local.gguf_header import read_header

    here = entry.path.exists()
    size = f"{gigabytes(entry.gigabytes * 1e9)} file"
    if entry.path.suffix == ".gguf":
        try:
            header = read_header(entry.path) if here else published_header(entry)
            size = f"{gigabytes(header.size)} file, {_memory(header, entry, here=here)}"
        except RSDError as error:
            size += f"; {error}"
    rows = {"repo": entry.repo, "file": entry.file, "size": size, "licence": entry.licence}
    rows["context"] = f"trained for {entry.context:,} tokens"
    if entry.sha256:
        rows["sha256"] = entry.sha256
    return rows | {"here": str(entry.path) if here else "no"}


def _memory(header: Header, entry: ModelEntry, *, here: bool) -> str:
    from rsd_local.config import RoleConfig
    from rsd_local.fit import RoleCapacity
    from rsd_local.fit.memory import Footprint

    need = Footprint.of(header, RoleCapacity(RoleConfig(entry.path), 1), on_gpu=False)
    if not here and entry.shape is None:
        return f"about {gigabytes(need.weights)} in memory besides its context"
    return f"about {gigabytes(need.weights + need.cache + need.compute)} in memory with a context of {need.context:,}"
