"""``rsd chat`` through a pipe: what goes in, what comes out, and in which order."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import RSD, rsd
from tiny import chain, write_script

import rsd_local
from rsd_local.cli.chat import commands
from rsd_local.cli.chat.lines import Lines
from rsd_local.cli.chat.session import ends_with
from rsd_local.cli.chat.transcript import markdown, save
from rsd_local.cli.chat.trios import PLAIN_PROMPT, chat_trio
from rsd_local.config import SYSTEM_PROMPT, Limits, Params, RoleConfig, Search, Trio, Weighting
from rsd_local.errors import ConfigError, QuestionRefused
from rsd_local.events import Result, TextWritten
from rsd_local.reasoner import Reasoner

_BARS = ("FLOPs, paper convention", "steps, target share")
WORDS = ["Red is warm.\n\n", "Blue is cold.\n\n", "So \\boxed{7}.\n\n", "That is all."]


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of models that say WORDS whatever they are asked."""
    model = str(write_script(tmp_path_factory.mktemp("talker") / "talker.gguf", WORDS, chain(*WORDS)))
    return ["-md", model, "-m", model, "--reward-kind", "confidence", "-t", "1", "-c", "400"]


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What the first refusal said, without what to do about it."""
    said = next(line for line in done.stderr.splitlines() if line.startswith("rsd: "))
    return next(line for line in done.stdout.splitlines() if line.startswith("error: ") and line[7:] in said)[7:]


def test_lines_from_a_pipe_are_answered_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "talk.md"
    lines = [
        "(37+48)*6-129",
        "/stats",
        "who are you?",
        "",
        "/threshold 0.25",
        "/threshold much",
        "2+3",
        f"/save {file}",
        f"/save {file}",
        "/sing",
    ]
    done = rsd("chat", stdin="\n".join(lines) + "\n")
    assert done.returncode == 1 and done.stdout == "381\nerror: " + refused(done) + "\n5\n"
    assert all(part in done.stderr for part in _BARS) and "threshold 0.25" in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("rsd: ")]
    assert [re.split("[:;]", line)[1].strip() for line in said] == [
        "not an arithmetic expression",
        "/threshold much",
        f"{file} is there already",
        "no such command",
    ]
    assert file.read_text().startswith("# Conversation with trio abacus\n\n## Question 1\n\n> (37+48)*6-129\n\n37+48=85\n")
    assert file.read_text().count("## ") == 2 and [entry.name for entry in tmp_path.iterdir()] == ["talk.md"]


def test_another_trio_starts_anew(tmp_path: Path, smollm2: Path) -> None:
    file = tmp_path / "small.toml"
    role = f'path = "{smollm2}"\nctx_size = 512\nthreads = 1\n'
    file.write_text(f'threshold = 0.25\nreward_kind = "confidence"\n[draft]\n{role}[target]\n{role}')
    done = rsd("chat", "-n", "12", stdin=f"2+3\n/trio {file}\nName a colour.\n/trio nobody\n/clear\n/stats\n/quit\n7+7\n")
    assert done.returncode == 1 and done.stdout.startswith("5\n") and len(done.stdout.splitlines()) >= 2
    assert f"trio {file}, threshold 0.25" in done.stderr and "'nobody'" in done.stderr and "there is no answer yet" in done.stderr
    assert "14" not in done.stdout


def test_a_trio_that_cannot_be_opened_leaves_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, but no more of it")
    file = tmp_path / "bad.toml"
    file.write_text('threshold = 0.25\nreward_kind = "confidence"\ndraft.path = "bad.gguf"\ntarget.path = "bad.gguf"\n')
    done = rsd("chat", stdin=f"2+3\n/threshold 0.5\n/trio {file}\n/threshold\n3+4\n")
    assert done.returncode == 1 and done.stdout == "5\n7\n"
    assert (
        "bad.gguf" in done.stderr
        and "the conversation goes on with trio abacus" in done.stderr
        and done.stderr.count("\nthreshold 0.5\n") == 2
    )
    assert "Traceback" not in done.stderr


def test_bytes_that_are_no_text_are_no_crash() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([*RSD, "chat", "-q"], input=b"\xff\xff\n2+3\n", capture_output=True, env=environment, timeout=60)
    answers = done.stdout.splitlines()
    assert done.returncode == 1 and answers[0].startswith(b"error: ") and answers[1:] == [b"5"] and b"Traceback" not in done.stderr


@pytest.mark.parametrize("strategy", ["target", "speculative", "majority", "beam"])
def test_every_strategy_holds_a_conversation(strategy: str) -> None:
    done = rsd("chat", "--strategy", strategy, "-q", stdin="2+3\n4*5\n")
    assert done.returncode == 0 and done.stdout.split() == ["5", "20"]


def test_mistyped_flags_are_refused() -> None:
    assert rsd("chat", "--strategy", "beams", stdin="").returncode == 2
    assert rsd("chat", "-mx", stdin="").returncode == 2
    assert rsd("chat", stdin="").returncode == 0


def test_each_question_has_one_answer_or_one_error_in_its_place() -> None:
    hard = b"\xef\xbb\xbf2+2\r\nhello\n\n3+3\0\n   5+5   \n" + b"1+" * 300_000 + b"1\n\xf0\x9f\x90\x99\n7+1"
    done = subprocess.run([*RSD, "chat", "-q"], input=hard, capture_output=True, timeout=120)
    answers = [line.split(b":")[0] for line in done.stdout.splitlines()]
    assert answers == [b"4", b"error", b"error", b"10", b"error", b"error", b"8"] and done.returncode == 1
    assert b"Traceback" not in done.stderr and done.stderr.count(b"rsd: ") == 4
    assert max(map(len, done.stderr.splitlines())) < 500, "a refusal repeats all of the question"


def test_only_accepted_text_and_no_box_of_an_ordinary_answer_reach_a_pipe(talker: list[str]) -> None:
    plain = rsd("chat", *talker, "--threshold", "1", "--weighting", "constant", "--probability", "0", stdin="Colours?\n")
    assert plain.returncode == 0 and plain.stdout == "".join(WORDS) + "\n"
    assert "\x1b" not in plain.stderr and plain.stderr.count("Red is warm.") == 1 and "> Colours?" in plain.stderr
    boxed = rsd("chat", *talker, "-q", "--system", SYSTEM_PROMPT, stdin="Colours?\n")
    assert boxed.stdout == "7\n" and boxed.stderr == ""


def test_several_lines_can_be_one_question(talker: list[str], tmp_path: Path) -> None:
    file = tmp_path / "talk.md"
    lines = [
        '"""',
        "One",
        "",
        "two \\\\",
        '/stats"""',
        "three\\",
        "four",
        '"""five"""',
        "/etc/hosts is what?",
        " /save it",
        f"/save {file}",
    ]
    done = rsd("chat", *talker, "-q", "-c", "4000", stdin="\n".join(lines) + "\n")
    assert done.returncode == 0 and done.stdout.count("Red is warm.") == 5
    quoted = re.findall(r"^> ?(.*)$|^##", file.read_text(), re.MULTILINE)
    asked = [text.strip("\n") for text in "\n".join(quoted).split("\n\n")]
    assert "".join(asked) == "".join(["One", "two \\\\\n/stats", "three\nfour", "five", "/etc/hosts is what?", "/save it"])


def test_an_open_quotation_is_refused() -> None:
    done = rsd("chat", "-q", stdin='2+3\n"""\n4+5\n')
    assert (
        done.returncode == 1 and done.stdout.splitlines()[0] == "5" and done.stdout.splitlines()[1].startswith('error: the text behind """')
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_crash(closed: str, tmp_path: Path) -> None:
    call = f"exec 3>{tmp_path}/code; {sys.executable} -c 'from rsd_local.cli import main; main()' chat {closed}; echo $? >&3"
    done = subprocess.run(["sh", "-c", call], input=b"2+3\n", capture_output=True, timeout=60)
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "code").read_text().strip() in "01"


def test_a_reader_that_goes_away_ends_the_chat() -> None:
    call = f"(echo 2+3; sleep 1; echo 3+3; echo 4+4) | {sys.executable} -c 'from rsd_local.cli import main; main()' chat -q | head -1"
    done = subprocess.run(["sh", "-c", call], capture_output=True, timeout=60)
    assert done.stdout == b"5\n" and done.stderr == b""


class Unreadable(io.StringIO):
    """Standard input that fails each time."""

    def readline(self, size: int | None = -1, /) -> str:
        raise OSError(5, "Input/output error")


def test_input_that_cannot_be_read_ends_the_chat() -> None:
    lines = Lines(Unreadable())
    with pytest.raises(QuestionRefused, match="Input/output error"):
        lines.read()
    assert lines.read() is None


def test_names_of_files_keep_their_blanks_and_backslashes(tmp_path: Path) -> None:
    lines = ["2+3", r"/save C:\tmp\talk.md", "/save my notes.md", '/save "a b.md"', "/save it's.md", "/save nowhere/x.md", "/save"]
    (tmp_path / "my trio.toml").write_text("nonsense")
    typed = "\n".join([*lines, "/trio my trio.toml", "4+5"])
    here = os.environ | {"PYTHONPATH": str(Path(rsd_local.__file__).parent.parent)}
    done = subprocess.run([*RSD, "chat"], input=typed, capture_output=True, text=True, cwd=tmp_path, env=here, timeout=60)
    names = {"my trio.toml", "my notes.md", "a b.md", "it's.md", r"C:\tmp\talk.md"}
    assert {entry.name for entry in tmp_path.iterdir()} == names and done.stdout == "5\n9\n" and done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("rsd: ")]
    assert ["nowhere/x.md" in said[0], "/save needs a file" in said[1], "my trio.toml is no TOML" in said[2], len(said)] == [
        True,
        True,
        True,
        3,
    ]


def test_a_missing_model_does_not_close_the_trio_that_is_open(tmp_path: Path) -> None:
    """Nor one that is damaged: the conversation goes on, with what was said."""
    for name in ("gone", "bad"):
        (tmp_path / f"{name}.toml").write_text(f'reward_kind = "confidence"\ndraft.path = "{name}.gguf"\ntarget.path = "{name}.gguf"\n')
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, but no more of it")
    file = tmp_path / "talk.md"
    done = rsd("chat", stdin=f"2+3\n/trio {tmp_path}/gone.toml\n/trio {tmp_path}/bad.toml\n3+4\n/save {file}\n")
    assert done.returncode == 1 and done.stdout == "5\n7\n" and done.stderr.count("rsd: ") == 2
    assert "gone.gguf" in done.stderr and "bad.gguf" in done.stderr and file.read_text().count("## Question") == 2


def test_a_conversation_that_outgrows_its_context_says_what_it_forgets(talker: list[str]) -> None:
    questions = "".join(f"Question number {number}, what colours are there?\n" for number in range(6))
    dropping, refusing = (rsd("chat", *talker, "--history", rule, stdin=questions) for rule in ("drop", "error"))
    forgot = [line for line in dropping.stderr.splitlines() if line.startswith("the context is full: the ")]
    assert dropping.returncode == 0 and dropping.stdout.count("Red is warm.") == 6 and len(forgot) >= 2
    assert all(line.endswith(" forgotten") and len(line) < 80 for line in forgot)
    assert refusing.returncode == 1 and "--history drop" in refusing.stderr and "forgotten" not in refusing.stderr
    assert 0 < refusing.stdout.count("Red is warm.") < 6 and refusing.stdout.count("error: ") == 6 - refusing.stdout.count("Red is warm.")


def flags(**changed: object) -> dict[str, object]:
    from rsd_local.cli.chat import chat

    context = chat.make_context("chat", [])
    return dict(context.params) | changed


def test_only_trios_for_mathematics_are_asked_for_a_boxed_answer(talker: list[str], tmp_path: Path) -> None:
    model = Path(talker[1])
    own = flags(draft=model, target=model, reward_kind="confidence")
    assert chat_trio(own).system == PLAIN_PROMPT and chat_trio(own).delimiter == "paragraph"
    assert chat_trio(own | {"system": ""}).system == "" and chat_trio(own | {"system": SYSTEM_PROMPT}).system == SYSTEM_PROMPT
    assert chat_trio(flags(draft=model, target=model, reward=model, reward_kind="tag-logits")).system == SYSTEM_PROMPT
    assert chat_trio(flags()).system == ""  # abacus
    for keys, system in (("", PLAIN_PROMPT), ('task = "math"', SYSTEM_PROMPT), ('system = "Say."', "Say."), ('system = ""', "")):
        file = tmp_path / f"{abs(hash(keys))}.toml"
        file.write_text(f"{keys}\nreward_kind = 'confidence'\ndraft.path = '{model}'\ntarget.path = '{model}'\n")
        assert chat_trio(flags(trio=str(file))).system == system


def test_trios_of_the_catalogue_for_mathematics_say_so() -> None:
    from rsd_local.catalogue import Catalogue

    catalogue = Catalogue.read()
    tasks = {name: catalogue.trio(name).task for name in ("abacus", "coder", "small", "math", "llama", "math-shepherd")}
    assert tasks == {"abacus": "arithmetic", "coder": "any", "small": "math", "math": "math", "llama": "math", "math-shepherd": "math"}


def test_a_command_is_read_with_its_argument_as_it_stands() -> None:
    assert commands.parse(r"/save C:\new\talk.md") == ("/save", r"C:\new\talk.md")
    assert commands.parse("/save   my notes.md ") == ("/save", "my notes.md")
    assert commands.parse("/save '  a.md'") == ("/save", "  a.md")
    assert commands.parse('/save a "b".md') == ("/save", 'a "b".md')
    assert commands.parse("/trio") == ("/trio", "") and commands.parse("/exit") == ("/quit", "")
    for wrong, hint in (("/sav x", "did you mean /save?"), ("/xyzzy", "/help"), ("/quit now", "blank"), ("/save", "talk.md")):
        with pytest.raises(ConfigError) as refused:
            commands.parse(wrong)
        assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("typed", "entries"),
    [
        ("/help\n", [("/help", True)]),
        (" /help\n", [("/help", False)]),
        ("/etc/hosts?\n/\n/2\n", [("/etc/hosts?", False), ("/", False), ("/2", False)]),
        ("a\\\nb\\\nc\n", [("a\nb\nc", False)]),
        ("a\\\\\nb\n", [("a\\\\", False), ("b", False)]),
        ("a\\\n", [("a", False)]),
        ('"""a\n /x\n"""\n', [("a\n /x", False)]),
        ('"""/help"""\n"""\n"""\n', [("/help", False), ("", False)]),
        ("\ufeff2+2\n\ufeffx\n", [("2+2", False), ("\ufeffx", False)]),
    ],
)
def test_entries_are_questions_commands_and_texts_of_several_lines(typed: str, entries: list[tuple[str, bool]]) -> None:
    lines = Lines(io.StringIO(typed))
    read = []
    while (entry := lines.read()) is not None:
        read.append((entry.text, entry.command))
    assert read == entries
    assert Lines(None).read() is None


def test_an_answer_is_repeated_only_where_the_text_does_not_end_with_it() -> None:
    assert all(ends_with(text, "7") for text in ("\\boxed{7}", "It is $\\boxed{7}$.\n\n", "\\boxed{7}, so **7**."))
    assert not any(ends_with(text, "7") for text in ("\\boxed{7}\n\nI hope that helps.", "\\boxed{7} = 17", ""))


def answered(text: str, reason: str = "stop") -> Result:
    return Result(None, text, reason, (), {})  # type: ignore[arg-type]


def test_a_saved_conversation_is_readable_markdown() -> None:
    said = [("Two\nlines # no heading", answered("Yes.\n\n```python\nprint(1)\n\n")), ("x\x1b[2J", answered("Cut\n", "length"))]
    text = markdown("Talk", said)
    assert text == (
        "# Talk\n\n## Question 1\n\n> Two\n> lines # no heading\n\nYes.\n\n```python\nprint(1)\n```\n\n"
        "## Question 2\n\n> x\ufffd[2J\n\nCut\n\n*The answer ends here: length.*\n"
    )
    whole = "````\n```\n````"
    assert markdown("Talk", [("q", answered(whole))]).endswith(f"> q\n\n{whole}\n"), "a block that is closed gets no further end"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "talk.md"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(ConfigError, match="No space left"):
            save(file, "text")
    assert list(tmp_path.iterdir()) == []
    save(file, "text \ud800")
    assert file.read_text() == "text ?" and [entry.name for entry in tmp_path.iterdir()] == ["talk.md"]
    with pytest.raises(ConfigError, match="there already"):
        save(file, "other")
    for wrong in ("nul\0.md", "x" * 300, "."):
        with pytest.raises(ConfigError):
            save(tmp_path / wrong, "text")
    assert file.read_text() == "text ?" and len(list(tmp_path.iterdir())) == 1


def test_text_says_which_try_at_its_step_it_belongs_to(tmp_path: Path) -> None:
    """Or a reader would take a second try for the rest of the first."""
    model = RoleConfig(write_script(tmp_path / "m.gguf", WORDS, chain(*WORDS)), ctx_size=512, threads=1, trusted=True)
    never = Weighting(threshold=1.0, redrafts=2)
    params = Params(weighting=never, limits=Limits(tokens=20, steps=2), search=Search(retries=2, fallback="off"))
    with Reasoner.open(Trio(model, model, model, reward_kind="judge", system="")) as opened:
        texts: dict[tuple[int, str, int], str] = {}
        for event in opened.run("Colours?", params):
            if isinstance(event, TextWritten):
                key = event.index, event.author, event.attempt
                texts[key] = texts.get(key, "") + event.text
    assert texts == {(step, who, attempt): WORDS[step] for step in (0, 1) for who in ("draft", "target") for attempt in (0, 1, 2)}
