"""Text files that people write: read as any editor saves them, and never waited for."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from rsd_local.errors import ConfigError

_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before that of UTF-16, which it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
SAVE_AS = "save it as UTF-8"


def read_text(path: Path, *, hint: str = "check the path") -> str:
    """A file's text, lines ended by ``\\n``, without the byte order mark that some editors begin it with.

    Args:
        path: a regular file; a pipe or a device would have no end.
        hint: what to do where there is no such file.

    Raises:
        ConfigError: it cannot be read, is no regular file, or is not UTF-8; the encoding is named where it is known.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError(f"{path} cannot be read: it is a directory", hint="give a file in it")
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path} cannot be read: it is no regular file", hint="write what comes from it to a file first")
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}", hint=hint) from None
    except ValueError as error:  # a name with a zero byte
        raise ConfigError(f"{path} cannot be read: {error}", hint=hint) from None


def decode(data: bytes, where: str) -> str:
    """The text of bytes that a person's editor wrote; as ``read_text``, ``where`` begins the message."""
    if other := foreign_encoding(data):
        raise ConfigError(f"{where} cannot be read: it is {other}", hint=SAVE_AS)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{where} cannot be read: byte 0x{data[error.start]:02x} in line {line} is not UTF-8", hint=SAVE_AS) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def foreign_encoding(data: bytes) -> str | None:
    """The encoding that the first bytes show where that is not UTF-8: by their mark, or by zeros beside plain letters."""
    for mark, name in _OTHER_MARKS.items():
        if data.startswith(mark):
            return name
    first = data[:4]
    return "UTF-16" if len(first) == 4 and first.count(0) == 2 and (first[0] == first[2] == 0 or first[1] == first[3] == 0) else None
