"""Trying a model file in a child process before it is loaded here.

llama.cpp ends the process where a file breaks what it takes for granted: at load, at tokenizing, or at the first batch, and
no list of checks keeps up with it. So a file that was not seen before is first loaded by a child process, which tokenizes a
few texts and decodes four rows: only the child can be ended by it. What went well is remembered in the user's cache. A LoRA adapter
is tried with its base model, which went well before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import platformdirs
from llama_cpp import llama_cpp as C

from rsd_local.errors import BadAdapter, ModelError, ModelNotFound, NotAModel
from rsd_local.gguf_header import Header
from rsd_local.runtime import llama
from rsd_local.runtime.vocabulary import Vocabulary

log = logging.getLogger("rsd_local.rehearsal")

LEAST_SECONDS, BYTES_PER_SECOND = 60.0, 10e6  # of a slow machine with a slow disk
MOST_REPACKED = 2 << 30  # bytes
OWN_MODELS = Path(__file__).parents[1] / "abacus" / "models"
_HINT = "choose another file, or try a newer llama-cpp-python; --trust-file leaves this check out"
_OTHER_FILE = "download it again, or choose another GGUF file"
_OTHER_ADAPTER = "give another adapter, or another base model"
_DOING = {"load": "loads it", "adapter": "loads it", "tokenize": "tokenizes text with it", "decode": "decodes with it"}
_LAST_WORDS = re.compile(r"^\S*?([^/\\\s]+:\d+: .+)$|^\s*what\(\):\s+(.+)$", re.MULTILINE)
"""What ggml prints before it ends the process, or the C++ library of an exception that nobody caught."""

_one_at_a_time = threading.Lock()
_went_well: set[Rehearsed] = set()


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a rehearsal holds for; a file is tried again after any change.

    Attributes:
        path: of the file, absolute.
        parts: size in bytes and time of change in nanoseconds, of each file where a model is split into several.
        header: SHA-256 of the header.
        llama: version of llama-cpp-python, and the CPU's features that its library uses, which decide the kernels.
        repacked: whether weights are laid out anew for the CPU, which has kernels of its own. That takes some seconds and as
            many bytes again for each gigabyte, so larger files are tried as they are.
        adapter: the same of a LoRA adapter that is tried with it, None without one.
        mtp: whether its multi-token head is tried, None where not.
    """

    path: str
    parts: tuple[tuple[int, int], ...]
    header: str
    llama: str
    repacked: bool
    adapter: Rehearsed | None = None
    mtp: bool | None = None

    @classmethod
    def of(cls, path: Path, header: Header, adapter: Header | None = None, *, mtp: bool | None = None) -> Rehearsed:
        """The file as it is now, and that of an adapter on it."""
        states = [part.stat() for part in header.files]
        parts = tuple((state.st_size, state.st_mtime_ns) for state in states)
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(header.end)).hexdigest()
        library = f"{llama_cpp.__version__} {C.llama_print_system_info().decode('utf-8', 'replace')}"
        repacked = llama.repacks_safely() and sum(size for size, _ in parts) <= MOST_REPACKED
        beside = None if adapter is None else cls.of(adapter.files[0], adapter)
        return cls(str(path.resolve()), parts, digest, library, repacked, beside, mtp)

    @property
    def limit(self) -> float:
        """Seconds after which the child is taken to have no end."""
        return LEAST_SECONDS + self.size / BYTES_PER_SECOND

    @property
    def size(self) -> int:
        """Bytes of all parts, and of the adapter."""
        return sum(size for size, _ in self.parts) + (self.adapter.size if self.adapter else 0)


def rehearse(path: Path, header: Header, *, trusted: bool = False, adapter: Header | None = None) -> None:
    """Try a file in a child process, unless that went well before with the same file and library.

    Args:
        path: the file.
        header: the file's.
        trusted: whether to skip it, as for the models of this package.
        adapter: of a LoRA adapter that is tried on the model.

    Raises:
        ModelNotFound: the file cannot be read.
        NotAModel: llama.cpp refused the file, ended the child, or did not come to an end.
        BadAdapter: the same with the adapter.
    """
    own = adapter is None and OWN_MODELS.resolve() in path.resolve().parents
    if trusted or own or not _can_start_python():
        return
    with _one_at_a_time:  # two children may need more memory than there is
        try:
            now = Rehearsed.of(path, header, adapter)
        except OSError as error:
            raise ModelNotFound(f"{path} cannot be read: {error}") from None
        if now in _went_well or _is_remembered(now):
            _went_well.add(now)
            return
        repeated = None if adapter else Vocabulary.read(path, header).repeated()
        if repeated is not None:
            raise NotAModel(f"{path} cannot be used: two of its tokens have the text {repeated[:80]!r}", hint=_OTHER_FILE)
        _note(now, _try(path, now, adapter))


def head_works(path: Path, header: Header) -> bool:
    """Whether a child process could use the multi-token head of a file whose other parts went well before.

    llama.cpp ends the process with heads of some kinds, and nothing is lost without one: so no head is used that was not tried.
    """
    if not _can_start_python():
        return False
    with _one_at_a_time:
        try:
            now = Rehearsed.of(path, header, mtp=True)
            if now in _went_well or _is_remembered(now):
                _went_well.add(now)
                return True
            return _note(now, _try(path, now, None))
        except (OSError, NotAModel) as error:
            log.warning("the multi-token head is left out: %s", error)
            return False


def _note(now: Rehearsed, well: bool) -> bool:
    """Remembers what went well."""
    if well:
        _went_well.add(now)
        _remember(now)
    return well


def _refused(path: Path, adapter: Header | None, why: str, hint: str) -> ModelError:
    """The error for what was tried: with an adapter it is the adapter's, for the model went well before."""
    if adapter is None:
        return NotAModel(f"{path} {why}", hint=hint)
    return BadAdapter(f"{adapter.files[0]} {why} (on {path.name})", hint=_OTHER_ADAPTER)


def _try(path: Path, now: Rehearsed, adapter: Header | None) -> bool:
    """Runs the child; False where it could not find out, for reasons of its own or of the machine."""
    words = [sys.executable, "-P", "-m", "rsd_local.runtime.rehearsal_child", str(path.absolute())]
    words += [str(int(number)) for number in (now.repacked, now.limit + 10, now.size)]
    words += [str(adapter.files[0].absolute())] if adapter else ["--mtp"] if now.mtp else []
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),  # it finds what is found here
        "PYTHONIOENCODING": "utf-8",
        "GGML_NO_BACKTRACE": "1",
        "OMP_WAIT_POLICY": "passive",  # on busy cores a few rows took ten times as long without
    }
    # In a group of its own the child does not get the terminal's Ctrl-C, which ends it from here.
    group: dict[str, Any] = {"process_group": 0}
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    log.info("trying %s in a child process", path)
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=now.limit, **group)
        code, output, said = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, output, said = None, late.stdout or b"", b""
    except OSError as error:
        log.warning("no child process for %s: %s", path, error)
        return False
    lines = [line.partition(" ") for line in output.decode("utf-8", "replace").splitlines()]
    state, _, reason = next((line for line in reversed(lines) if line[0] in (*_DOING, "done", "refused", "unsure")), ("", "", ""))
    if state == "refused":
        raise _refused(path, adapter, f"cannot be loaded: {reason}", _OTHER_FILE)
    if state in _DOING:
        why = f"did not end within {now.limit:.0f} s" if code is None else f"ended the process: {last_words(code, said)}"
        raise _refused(path, adapter, f"cannot be used: while llama.cpp {_DOING[state]}, it {why}", _HINT)
    if state != "done":
        log.warning("%s could not be tried in a child process: %s", path, reason or f"exit code {code}")
    return state == "done"


def last_words(code: int, said: bytes) -> str:
    """Why a process ended, in one line."""
    found = list(_LAST_WORDS.finditer(said.decode("utf-8", "replace")))
    if found:
        return (found[-1][1] or found[-1][2])[:300]
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"exit code {code:#x}"


def _can_start_python() -> bool:
    """Whether this process is a Python that can be started again: not a program that embeds one, nor an application made of one."""
    name = Path(sys.executable or "").stem.lower()
    return bool(name.startswith(("python", "pypy")) and not hasattr(sys, "frozen"))


def _file(now: Rehearsed) -> Path:
    paths = now.path + (f"\n{now.adapter.path}" if now.adapter else "\n--mtp" if now.mtp else "")
    name = hashlib.sha256(paths.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return platformdirs.user_cache_path("rsd") / "rehearsed" / f"{name}.json"


def _as_text(now: Rehearsed) -> str:
    return json.dumps({name: value for name, value in asdict(now).items() if value is not None})


def _is_remembered(now: Rehearsed) -> bool:
    try:
        return _file(now).read_text(encoding="utf-8") == _as_text(now)
    except (OSError, ValueError):
        return False


def _remember(now: Rehearsed) -> None:
    """Writes it whole or not at all; a cache that cannot be written is no error."""
    file = _file(now)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as unfinished:
            unfinished.write(_as_text(now))
        os.replace(unfinished.name, file)
