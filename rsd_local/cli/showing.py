"""What ``rsd show`` says of a trio and of a model file, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsd_local.cli.words import gigabytes, in_words
from rsd_local.errors import RSDError

if TYPE_CHECKING:
    from rsd_local.catalogue import Catalogue
    from rsd_local.catalogue.models import ModelEntry
    from rsd_local.gguf_header import Header


_UNKNOWN = "unknown"
_THINKING = {
    "none": "it does not think before it answers",
    "switchable": "it can think before it answers (--think on or off)",
    "always": "it always thinks before it answers",
    "unknown": _UNKNOWN,
}
_LAYERS = {
    True: "a hybrid: some are recurrent, and go back to a saved state only",
    False: "attention in all",
    None: _UNKNOWN,
}


def trio_rows(catalogue: Catalogue, name: str) -> dict[str, str]:
    """A trio's settings as its file has them, what it takes in memory, and whether its files are here; nothing for a model's name."""
    if name not in catalogue.trios:
        return {}
    rows = dict[str, str]()
    said = ("machine", "about", "expect")
    for key, value in sorted(catalogue.trios[name].items(), key=lambda row: row[0] not in said):
        rows |= {f"{key}.{inner}": in_words(one) for inner, one in value.items()} if isinstance(value, dict) else {key: in_words(value)}
    memory = trio_memory(catalogue, name)
    if memory is not None:
        least = "at least" if shapeless(catalogue, name) else "about"
        rows["memory"] = f"{least} {gigabytes(memory)} for one question at a time (rsd fit {name})"
    state = catalogue.state(name)
    if state != "complete" and catalogue.models_of(name) and "rsd pull" not in state:
        state += f"; rsd pull {name} fetches what is missing"
    return rows | {"state": state}


def trio_memory(catalogue: Catalogue, name: str) -> int | None:
    """Bytes that a trio takes in memory without a GPU; None where a file of its own is not here, or is damaged."""
    from rsd_local.capacities import capacities
    from rsd_local.fit import make_plan, published_headers

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

    here = entry.state == "here"
    size = f"{gigabytes(entry.gigabytes * 1e9)} file"
    if entry.path.suffix == ".gguf":
        try:
            header = read_header(entry.path) if here else published_header(entry)
            size = f"{gigabytes(header.size)} file, {_memory(header, entry, here=here)}"
        except RSDError as error:
            size += f"; {error}"
    parts = f", and {len(entry.files) - 1} more: it is in {len(entry.files)} parts" if len(entry.files) > 1 else ""
    rows = {"repo": entry.repo, "file": entry.file + parts, "revision": entry.revision or "the main branch", "size": size}
    rows["licence"] = entry.licence or _UNKNOWN
    rows["context"] = _UNKNOWN if entry.context is None else f"trained for {entry.context:,} tokens"
    rows["thinking"] = _THINKING[entry.thinking]
    if entry.active is not None:
        rows["experts"] = f"a mixture: a token uses {entry.active:g} billion of the parameters"
    rows["layers"] = _LAYERS[entry.hybrid]
    rows["MTP"] = _heads(entry.mtp)
    rows["sha256"] = " ".join([*filter(None, entry.hashes), sha256_in_words(entry)])
    return rows | {"here": str(entry.path) if here else entry.missing() if entry.state == "incomplete" else "no"}


def _heads(count: int | None) -> str:
    if count is None:
        return _UNKNOWN
    return f"{count} head{'s' if count > 1 else ''} for further tokens in the file, not used here" if count else "none in the file"


def model_remarks(entry: ModelEntry) -> list[str]:
    """A model's licence, whether it thinks, and the parameters that a token uses of a mixture of experts, each in a word or two."""
    thinks = {"switchable": "can think", "always": "thinks"}.get(entry.thinking, "")
    active = "" if entry.active is None else f"{entry.active:g}B active"
    return [entry.licence or "licence unknown", *filter(None, [thinks, active])]


def model_notes(entry: ModelEntry) -> list[str]:
    """What else sets a model apart: parts, experts, recurrent layers, heads for further tokens, and what is pinned or listed of it."""
    notes = [f"{len(entry.files)} parts"] if len(entry.files) > 1 else []
    notes += [f"{entry.active:g}B active"] if entry.active is not None else []
    notes += ["hybrid"] if entry.hybrid else []
    notes += ["MTP head"] if entry.mtp else []
    return notes + [text for text, known in (("no SHA-256 listed", any(entry.hashes)), ("no commit pinned", entry.revision)) if not known]


def sha256_in_words(entry: ModelEntry) -> str:
    """What is known of a model's SHA-256: whether one is listed, and whether it was compared with a file that is here."""
    if not any(entry.hashes):
        return "SHA-256 not listed: a download is compared with the hub's own"
    if entry.compared:
        return "SHA-256 as listed publicly, and as the hub has it: the file that is here was compared"
    return "SHA-256 as listed publicly, not compared yet"


def shapeless(catalogue: Catalogue, name: str) -> list[str]:
    """The names of a trio's models that are not here and of which the catalogue has no shape: what their contexts take is not known."""
    used = catalogue.models_of(name).values() if name in catalogue.trios else ()
    lost = [entry for entry in used if entry.shape is None and entry.state != "here" and entry.path.suffix == ".gguf"]
    return [other for other, entry in catalogue.models.items() if entry in lost]


def _memory(header: Header, entry: ModelEntry, *, here: bool) -> str:
    from rsd_local.config import RoleConfig
    from rsd_local.fit import RoleCapacity
    from rsd_local.fit.memory import Footprint

    need = Footprint.of(header, RoleCapacity(RoleConfig(entry.path), 1), on_gpu=False)
    if not here and entry.shape is None:
        return f"about {gigabytes(need.weights)} in memory besides its context"
    return f"about {gigabytes(need.weights + need.cache + need.compute)} in memory with a context of {need.context:,}"
