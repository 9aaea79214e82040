"""``rsd chat`` in a terminal: what is seen while an answer is written, keys, and pasted texts."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest
from test_cli import RSD
from tiny import chain, write_script

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals on Windows")
termios, fcntl = pytest.importorskip("termios"), pytest.importorskip("fcntl")

WORDS = ["Red is warm.\n\n", "Blue is cold.\n\n", "So \\boxed{7}.\n\n", "That is all.", "Green is ", "neither.\n\n"]
_CODES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])")


class Terminal:
    """A chat in a terminal of 80 columns."""

    def __init__(self, *flags: str, columns: int = 80, command: tuple[str, ...] = (), **variables: str) -> None:
        self.controller, terminal = pty.openpty()
        environment = {name: text for name, text in os.environ.items() if name not in ("NO_COLOR", "INPUTRC")}
        environment |= {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "24"} | variables
        self.process = subprocess.Popen(
            [*(command or RSD), "chat", *flags],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C sends its signal
        )
        os.close(terminal)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.controller, text.encode())

    def until(self, words: str, start: int = 0, seconds: float = 60) -> int:
        """Waits for words; where what comes behind them begins."""
        deadline = time.monotonic() + seconds
        while words not in self.seen[start:]:
            ready, _, _ = select.select([self.controller], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{words!r} did not come: {self.seen[start:]!r}"
            with contextlib.suppress(OSError):
                self.seen += os.read(self.controller, 4096).decode("utf-8", "replace")
        return self.seen.index(words, start) + len(words)

    def ask(self, text: str) -> str:
        """Types a line and returns all that is shown up to the next prompt, control codes and all."""
        start = len(self.seen)
        self.type(text + "\r")
        echoed = self.until("\n", start)
        end = self.until("> ", echoed)
        return self.seen[echoed:end]

    def __enter__(self) -> Terminal:
        self.until("> ")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.controller)

    def leave(self) -> int:
        self.type("\x04")
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            ready, _, _ = select.select([self.controller], [], [], 0.2)
            if ready:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.controller, 4096).decode("utf-8", "replace")
        assert "Traceback" not in self.seen
        return self.process.wait(timeout=1)


def plain(text: str) -> str:
    return _CODES.sub("", text).replace("\r", "")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Flags of a draft and a target that begin with different steps and go on alike."""
    folder = tmp_path_factory.mktemp("pair")
    draft = write_script(folder / "draft.gguf", WORDS, chain(*WORDS[:4]))
    target = write_script(folder / "target.gguf", WORDS, chain(*WORDS[4:]) | {WORDS[5]: WORDS[1], WORDS[1]: WORDS[2], WORDS[2]: WORDS[3]})
    yield ["-md", str(draft), "-m", str(target), "--reward-kind", "confidence", "-t", "1", "-c", "400", "--weighting", "constant"]


def test_a_step_is_dim_until_it_is_accepted_and_a_rejected_one_is_crossed_out(pair: list[str]) -> None:
    with Terminal(*pair, "--probability", "1") as chat:
        shown = chat.ask("Colours?")
        assert "\x1b[2mRed is warm." in shown, "not seen while it was only drafted"
        lines = plain(shown)
        assert "[1] draft" in lines and "rejected" not in lines and lines.rindex("Blue is cold.") > lines.rindex("Red is warm.")
        assert "\nRed is warm.\r\n" in shown, "accepted, it is as any other text"
        chat.ask("/threshold")
        assert chat.leave() == 0
    with Terminal(*pair, "--probability", "0") as chat:
        shown = chat.ask("Colours?")
        rejected = next(line for line in shown.split("\n") if "rejected" in line)
        assert plain(rejected).strip().endswith("[1] draft, rejected: Red is warm.") and re.search(r"\x1b\[[0-9;]*9[;m]", rejected)
        assert "Green is neither." in plain(shown) and "[1] target" in plain(shown)
        assert chat.leave() == 0


def test_an_answer_line_stands_only_below_a_text_that_does_not_end_with_it(pair: list[str]) -> None:
    system = ("--system", "Put it in \\boxed{}.")
    with Terminal(*pair, "--probability", "1", *system) as chat:
        assert "answer: 7" in plain(chat.ask("Colours?"))
    with Terminal(*pair, "--probability", "1", *system, "--max-steps", "3") as chat:
        assert "answer:" not in plain(chat.ask("Colours?"))
    with Terminal(*pair, "--probability", "1") as chat:
        assert "answer:" not in plain(chat.ask("Colours?"))
    with Terminal() as chat:
        shown = plain(chat.ask("(37+48)*6-129"))
        assert "\\boxed{381}" in shown and "answer" not in shown and "integer arithmetic" in plain(chat.seen)


def test_quiet_shows_the_answer_alone(pair: list[str]) -> None:
    with Terminal(*pair, "-q") as chat:
        assert "/help" not in chat.seen
        shown = chat.ask("Colours?")
        assert "[1]" not in shown and "\x1b[2m" not in shown and "Blue is cold." in shown


def readline_takes_pastes() -> bool:
    try:
        import readline
    except ImportError:
        return False
    return "libedit" not in (readline.__doc__ or "")


@pytest.mark.skipif(not readline_takes_pastes(), reason="Python has no GNU readline here")
def test_a_pasted_text_is_one_question() -> None:
    with Terminal() as chat:
        chat.type("\x1b[200~2+\r3\r+4\x1b[201~")
        time.sleep(0.3)
        assert "[1]" not in chat.seen, "it was sent before Enter was pressed"
        shown = plain(chat.ask(""))
        assert "[3] draft 1.00" in shown and "\\boxed{9}" in shown and "rsd:" not in chat.seen
        assert chat.leave() == 0


def test_ctrl_c_at_the_prompt_clears_what_was_typed() -> None:
    with Terminal() as chat:
        for typed in ("1+1", "1+\\\r", '"""\r1+1\r'):
            before = len(chat.seen)
            chat.type(typed)
            before = chat.until(typed.rstrip("\r").rpartition("\r")[2], before)
            time.sleep(0.2)  # until the line is taken
            chat.type("\x03")
            chat.until("> ", chat.until("\n", before))
        chat.type("2+3\r")
        chat.until("> ", chat.until("[2] draft 1.00"))
        assert "\\boxed{2}" not in chat.seen and "rsd: " not in chat.seen
        assert chat.leave() == 0


def test_without_readline_a_chat_works() -> None:
    hidden = "import sys; sys.modules['readline'] = None; from rsd_local.cli import main; main()"
    with Terminal(command=(sys.executable, "-c", hidden)) as chat:
        assert "\\boxed{5}" in plain(chat.ask("2+3"))
        assert "[1] draft" in plain(chat.ask("1+\\\r2"))
        assert chat.leave() == 0


def test_answers_can_go_to_a_file_while_somebody_types(tmp_path: Path) -> None:
    """The prompts do not go there too."""
    controller, terminal = pty.openpty()
    file = tmp_path / "answers"
    with file.open("w") as out:
        process = subprocess.Popen([*RSD, "chat"], stdin=terminal, stdout=out, stderr=terminal, start_new_session=True)
    os.close(terminal)
    os.write(controller, b"2+3\n4+5\n\x04")
    seen = b""
    while process.poll() is None:
        if select.select([controller], [], [], 0.2)[0]:
            with contextlib.suppress(OSError):
                seen += os.read(controller, 4096)
    os.close(controller)
    assert process.returncode == 0 and file.read_text() == "5\n9\n" and b"> " in seen and b"[1] draft" in seen


def test_a_terminal_that_cannot_move_its_cursor_gets_accepted_steps_alone(pair: list[str]) -> None:
    with Terminal(*pair, "--probability", "0", TERM="dumb") as chat:
        shown = chat.ask("Colours?")
        assert "Green is neither." in shown and "rejected" not in shown and "\x1b[1A" not in shown


def test_an_interrupt_stops_the_answer_and_keeps_the_conversation(smollm2: Path) -> None:
    flags = ["-md", str(smollm2), "-m", str(smollm2), "--reward-kind", "judge", "-c", "1024", "-n", "600", "--threshold", "0", "-t", "1"]
    with Terminal(*flags, "--delimiter", "tokens:12", "--repeats", "0") as chat:
        chat.type("Tell a long story of a king, with many parts.\r")
        at = chat.until("s\r\n", chat.until("[1] draft "))
        chat.type("\x03")
        at = chat.until("stopped", at)
        chat.until("> ", at)
        assert "finished: cancelled" in plain(chat.ask("/stats"))
        start = len(chat.seen)
        chat.type("Tell a longer one, of a queen.\r")
        at = chat.until("[1] draft", start)
        chat.type("typed meanwhile")
        time.sleep(0.5)
        chat.type("\x03")
        at = chat.until("stopped", at)
        assert "typed meanwhile" not in chat.seen[start:at], "it would move what is drawn"
        chat.until("> ", at)
        chat.type("\x15")
        assert chat.leave() == 0
        assert "\x1b[2m" in chat.seen  # a draft was shown dim
