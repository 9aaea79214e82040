"""Standard input, output and error as they are found: of any encoding, full, closed, or read by nobody."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import sys
import unicodedata
from typing import Any, TextIO

from rsd_local.errors import ConfigError
from rsd_local.text_files import foreign_encoding

_STAND_INS = {
    **dict.fromkeys("−–—‐‑─━╸╺", "-"),
    **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("·•∙⋅", "*"),
    **dict.fromkeys("‘’′", "'"),
    **dict.fromkeys("“”″", '"'),
}
_STAND_INS |= {"×": "x", "÷": "/", "…": "...", "→": "->", "←": "<-", "⇒": "=>", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "±": "+-"}
_STAND_INS |= {"√": "sqrt", "∞": "infinity", "∈": "in", "∑": "sum", "∫": "integral", "°": "deg", "✓": "yes", "✗": "no", "\ufffd": "?"}
_GREEK = "GREEK SMALL LETTER "
_INPUT = "rsd-input-"


def start_log(handler: logging.Handler, level: int) -> None:
    """Log by a handler, in place of the bare warnings that ``prepare`` lets through.

    Args:
        handler: of all records.
        level: from which on there are records.
    """
    if logging.lastResort is not None:
        logging.root.removeHandler(logging.lastResort)
    logging.basicConfig(handlers=[handler], level=level)


def prepare() -> None:
    """Makes the standard streams usable, before anything is read or printed; a second call changes nothing.

    A closed one gets its number back, or the next file that is opened would have it, and be written into by whatever
    prints. What standard output cannot encode is printed as a stand-in. Standard error never fails.
    """
    _fill_closed()
    if not logging.root.handlers and logging.lastResort is not None:
        logging.root.addHandler(logging.lastResort)  # warnings: the package itself is silent, for it may be a part of any program
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr, lenient=True)
    if isinstance(sys.stdin, io.TextIOWrapper):
        if sys.stdin.isatty():
            sys.stdin.reconfigure(errors="replace")  # input() needs a codec that Python itself knows
        elif not sys.stdin.encoding.startswith(_INPUT):
            with contextlib.suppress(io.UnsupportedOperation):  # a program that calls main() has read from it
                sys.stdin.reconfigure(encoding=_INPUT + sys.stdin.encoding)


def _guarded(stream: TextIO, *, lenient: bool = False) -> TextIO:
    """The stream with stand-ins and, where it is no terminal, with ``_Output`` below it."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream  # of a test, or of a program that calls main()
    if isinstance(getattr(stream.buffer, "raw", None), _Output):
        return stream
    if not stream.isatty():
        with contextlib.suppress(OSError, ValueError):
            raw = _Output(stream.fileno(), lenient=lenient)
            return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "rsd-stand-in", line_buffering=True)
    stream.reconfigure(errors="rsd-stand-in")
    return stream


def _fill_closed() -> None:
    """Opens the numbers of closed streams: to read gives nothing, and to write to standard output fails, as it should."""
    for number, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(opened := os.open(os.devnull, flags), number)
            if opened != number:
                os.close(opened)
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


class _Output(io.FileIO):
    """Remembers what went wrong; a lenient one goes on as if nothing had: no message is worth the answer."""

    def __init__(self, number: int, *, lenient: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self.lenient = lenient
        self.failed: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Writes, or raises."""
        try:
            return super().write(data)
        except OSError as error:
            self.failed = error
            if self.lenient:
                return memoryview(data).nbytes
            raise


def lost_output() -> str | None:
    """Why standard output cannot be written, None where it can; afterwards nothing more is tried with it."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failed = raw.failed if isinstance(raw, _Output) else None
    if failed is not None:
        _discard(sys.stdout)
    return None if failed is None else failed.strerror or str(failed)


def _discard(stream: TextIO) -> None:
    """Lets what waits in a stream's buffer go nowhere, or the interpreter would try it again at its end, and say so."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def is_unicode(stream: TextIO) -> bool:
    """Whether a stream can show any text."""
    return codecs.lookup(stream.encoding or "ascii").name.startswith("utf-")


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """The codec error handler ``rsd-stand-in``: what an encoding lacks, in letters of ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    if character in _STAND_INS:
        return _STAND_INS[character]
    name = unicodedata.name(character, "")
    if name.startswith(_GREEK):
        return name.removeprefix(_GREEK).split()[0].lower()
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


class _InputDecoder(codecs.IncrementalDecoder):
    """Standard input in the encoding of the terminal, but UTF-8 where it begins with the mark of UTF-8.

    Bytes that are no text become U+FFFD; they are the models' to refuse or to answer.
    """

    encoding = "utf-8"

    def __init__(self, errors: str = "strict") -> None:
        super().__init__(errors)
        self._decoder: codecs.IncrementalDecoder | None = None
        self._first = b""

    def decode(self, input: bytes, final: bool = False) -> str:  # type: ignore[override]
        """The text of the next bytes."""
        if self._decoder is None:
            self._first += input
            if len(self._first) < len(codecs.BOM_UTF8) and codecs.BOM_UTF8.startswith(self._first) and not final:
                return ""  # the mark may be on its way
            if b"\0" in self._first and (other := foreign_encoding(self._first)):  # a mark alone may be bytes that are no text
                raise ConfigError(f"standard input is {other}", hint="send UTF-8")
            input, marked = self._first.removeprefix(codecs.BOM_UTF8), self._first.startswith(codecs.BOM_UTF8)
            self._decoder = codecs.getincrementaldecoder("utf-8" if marked else self.encoding)("replace")
        return self._decoder.decode(input, final)


def _find(name: str) -> codecs.CodecInfo | None:
    """The codec ``rsd-input-ENCODING``."""
    if not name.replace("_", "-").startswith(_INPUT):
        return None
    known = codecs.lookup(name[len(_INPUT) :])
    decoder: type[_InputDecoder] = type("InputDecoder", (_InputDecoder,), {"encoding": known.name})
    encoders = known.streamreader, known.streamwriter, known.incrementalencoder
    return codecs.CodecInfo(known.encode, known.decode, *encoders, decoder, name=name)


codecs.register_error("rsd-stand-in", _stand_in)
codecs.register(_find)
