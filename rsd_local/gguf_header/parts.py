"""The files of a model: one, or several that llama.cpp finds by the name of the first (``gguf-split``)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from rsd_local.errors import ModelNotFound, NotAModel
from rsd_local.gguf_header.header import Header, Refused
from rsd_local.gguf_header.reader import KnownTexts, read_part
from rsd_local.gguf_header.rules import check_values

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_AGAIN = "download all parts again, into one folder and under their own names"


def part_names(name: str) -> tuple[str, ...]:
    """The names of all parts that a file's name speaks of, in order; the name alone where it speaks of none.

    Nothing is read, so this also answers for files that are not here yet, and for paths in a repository.

    Args:
        name: of any part, such as ``model-00001-of-00003.gguf``.
    """
    found = _NAME.fullmatch(name)
    if found is None or not 1 <= int(found["number"]) <= int(found["count"]):
        return (name,)
    return tuple(f"{found['stem']}-{number:05}-of-{found['count']}.gguf" for number in range(1, int(found["count"]) + 1))


def parts(path: Path) -> tuple[Path, ...]:
    """The files of a model, in order: the file alone, or all parts where its header says that it was split.

    Args:
        path: the model's file; of a split one, the first part.

    Raises:
        ModelNotFound: a part is missing or cannot be read; the message names it.
        NotAModel: the file is no GGUF file, is a later part, or its name and its header disagree about the parts.
    """
    return _parts(path, read_part(path))


def read_header(path: Path, known: KnownTexts | None = None) -> Header:
    """Read a model's header, of all its parts, and check the values that llama.cpp would end the process on.

    Metadata, arrays and ``end`` are those of the first part; ``tensors``, ``size`` and ``files`` are those of all.

    Args:
        path: the model's file; of a split one, the first part.
        known: what files read before have in common with it, where several are read.

    Raises:
        ModelNotFound: there is no such file, it cannot be read, or a part is missing.
        NotAModel: it is no GGUF file, breaks a rule of the format, or has a value that no model has; the message says which.
    """
    header = read_part(path, known)
    for number, part in enumerate(_parts(path, header)[1:], 1):
        header = _joined(header, path, read_part(part), part, number)
    try:
        check_values(header)
        _check_promised(header)
    except Refused as why:
        raise NotAModel(f"{path} is not a GGUF file that can be used: {why}", hint="download it again, or choose another file") from None
    return header


def _parts(path: Path, header: Header) -> tuple[Path, ...]:
    """The same, with the header of the file that was named."""
    count, number = header.metadata.get("split.count", 0), header.metadata.get("split.no", 0)
    if not isinstance(count, int) or isinstance(count, bool) or count <= 1:  # 0 and 1 are one file to llama.cpp too
        return (path,)
    names = part_names(path.name)
    if len(names) != count:
        raise NotAModel(
            f"{path} is one of {count} parts, and its name does not say so: the others are looked for by name",
            hint=f"name it NAME-00001-of-{count:05}.gguf, and the others alike",
        )
    if path.name != names[0]:
        raise NotAModel(f"{path} is part {names.index(path.name) + 1} of {count} of a model", hint=f"give the first part, {names[0]}")
    if number != 0:
        raise NotAModel(f"{path} is another part of its model than its name says: split.no is {number}, not 0", hint=_AGAIN)
    found = tuple(path.with_name(name) for name in names)
    for part in found:
        if not part.exists():
            raise ModelNotFound(f"{path.name} is one of {count} parts, and {part.name} is not beside it in {path.parent}", hint=_AGAIN)
    return found


def _joined(header: Header, path: Path, other: Header, part: Path, number: int) -> Header:
    """A header with the tensors of another part."""
    said = other.metadata.get("split.no"), other.metadata.get("split.count")
    if said != (number, header.metadata["split.count"]):
        raise NotAModel(f"{part} is not the part of {path.name} that its name says", hint=_AGAIN)
    known = {tensor.name for tensor in header.tensors}
    twice = next((tensor.name for tensor in other.tensors if tensor.name in known), None)
    if twice is not None:
        raise NotAModel(f"{part} is not a part of {path.name}: both have the tensor {twice!r}", hint=_AGAIN)
    return replace(header, tensors=header.tensors + other.tensors, size=header.size + other.size, files=header.files + other.files)


def _check_promised(header: Header) -> None:
    promised = header.metadata.get("split.tensors.count")
    if isinstance(header.metadata.get("split.count"), int) and isinstance(promised, int) and promised != len(header.tensors):
        raise Refused(f"its parts have {len(header.tensors)} tensors, and split.tensors.count is {promised}")
