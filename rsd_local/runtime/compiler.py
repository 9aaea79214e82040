"""Which compilers made a library, as its ELF section ``.comment`` says, and whether they compile AMX soundly."""

from __future__ import annotations

import re
import struct
from pathlib import Path

_MOST = 1 << 16  # bytes of a section that is read; .comment has a line for each compiler
# _tile_loadconfig was mended after 13.2 (https://gcc.gnu.org/PR114098); older branches got the fix too, but which of their
# releases have it depends on who packed them, so they count as unsound.
_FIRST_SOUND = (13, 3)


def amx_is_sound(library: Path) -> bool:
    """Whether every compiler that is named in a library is a GCC that loads AMX's tile configuration whole.

    Args:
        library: an ELF file. Any other file, and one that names another compiler or none, gives False: nothing is known of it.
    """
    try:
        comment = section(library, b".comment")
    except (OSError, ValueError, struct.error):
        return False
    lines = [line.decode("utf-8", "replace") for line in comment.split(b"\0") if line]
    return bool(lines) and all(_version(line) >= _FIRST_SOUND for line in lines)


def section(path: Path, name: bytes) -> bytes:
    """A section of an ELF file of 64 bits, little endian; empty where it has none of that name.

    Layout: "ELF-64 Object File Format", version 1.5, figures 2 and 7.

    Raises:
        ValueError: it is no such file.
        struct.error: it ends too early.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01":
            raise ValueError("no ELF file of 64 bits, little endian")
        (table,) = struct.unpack_from("<Q", head, 40)
        size, count, names = struct.unpack_from("<HHH", head, 58)

        def row(number: int) -> tuple[int, int, int]:
            file.seek(table + number * size)
            at, offset, length = struct.unpack("<I20xQQ24x", file.read(64))
            return at, offset, length

        def text(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(min(length, _MOST))

        _, offset, length = row(names)
        strings = text(offset, length)
        for number in range(count):
            at, offset, length = row(number)
            if strings[at : strings.find(b"\0", at)] == name:
                return text(offset, length)
    return b""


def _version(line: str) -> tuple[int, int]:
    """GCC's version in its line: the last number of two or three parts; (0, 0) for another compiler."""
    found = re.findall(r"(?<![\w.+-])(\d+)\.(\d+)\.\d+", line) if line.startswith("GCC:") else []
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)


def loaded_kernels() -> list[Path]:
    """The libraries with ggml's kernels for CPUs that this process has loaded; none where the system has no list of them."""
    try:
        lines = Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    paths = {Path(line.split(maxsplit=5)[5]) for line in lines if "/" in line}
    return sorted(path for path in paths if path.name.startswith("libggml-cpu"))
