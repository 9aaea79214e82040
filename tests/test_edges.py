"""The edges of the command line: streams, arguments, names of files, and the first things that people type."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

import rsd_local
from rsd_local.abacus import find_expression
from rsd_local.catalogue import Catalogue, find_trio, trio_file
from rsd_local.catalogue.own import save_threshold
from rsd_local.cli import GROUPS, cli
from rsd_local.cli.command import names_of, read_words
from rsd_local.cli.text import call, quoted
from rsd_local.errors import ConfigError, ModelError, ModelNotFound
from rsd_local.gguf_header import read_header
from rsd_local.reasoner import Reasoner
from rsd_local.text_files import read_text
from rsd_local.toml_settings import read_trio

RSD = [sys.executable, "-c", "from rsd_local.cli import main; main()"]
SHELL = f"rsd() {{ '{sys.executable}' -c 'from rsd_local.cli import main; main()' \"$@\"; }}\n"
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
posix = pytest.mark.skipif(sys.platform == "win32", reason="a shell and devices of POSIX")
MODEL = find_trio("abacus").draft.path
COMMANDS = [name for commands in GROUPS.values() for name in commands]


def rsd(*arguments: object, stdin: bytes | None = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
    words = [one if isinstance(one, bytes) else str(one) for one in arguments]
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run([*RSD, *words], capture_output=True, timeout=120, env=PLAIN | variables, **given)  # type: ignore[call-overload]


def bash(line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["bash", "-c", SHELL + line], capture_output=True, timeout=120, env=PLAIN | variables)


def one_line(done: subprocess.CompletedProcess[bytes], code: int, *words: str, longest: int = 250) -> str:
    said = done.stderr.decode()
    assert done.returncode == code, said
    assert said.startswith("rsd: ") and said.count("\n") == 1 and len(said) <= longest, said
    assert all(word in said for word in words), said
    return said


# Streams


def test_help_is_printed_in_an_encoding_that_lacks_some_of_its_letters() -> None:
    done = rsd("solve", "-h", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0 and "+ - × and".encode("cp1252") in done.stdout and b"delta" in done.stdout
    for command in COMMANDS:
        assert rsd(command, "-h", PYTHONIOENCODING="cp1252").returncode == 0, command


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_an_answer_is_printed_with_stand_ins(encoding: str) -> None:
    code = "import sys\nfrom rsd_local.cli import streams\nstreams.prepare()\nprint('π/2 ≤ −3 é 日')\nprint('δ', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=PLAIN | {"PYTHONIOENCODING": encoding})
    wanted = {"utf-8": "π/2 ≤ −3 é 日", "ascii": "pi/2 <= -3 e ?"}.get(encoding, "pi/2 <= -3 é ?")
    assert (done.returncode, done.stdout) == (0, f"{wanted}\n".encode(encoding)), done.stderr
    assert done.stderr.decode(encoding).strip() in ("δ", "delta")


def test_json_stays_json_in_any_encoding() -> None:
    done = rsd("solve", "2−−3", "--json", PYTHONIOENCODING="cp1252")
    assert json.loads(done.stdout.decode("cp1252"))["answer"] == "5"


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("words", ["-h", "--version", "list", "solve 2+2 -q", "solve 2+2 -q --jsonl", "chat -q"])
def test_a_full_standard_output_is_one_line_and_a_failure(words: str, buffered: str) -> None:
    done = bash(f"echo 2+2 | rsd {words} >/dev/full", **({"PYTHONUNBUFFERED": "1"} if buffered else {}))
    one_line(done, 1, "standard output cannot be written", "space")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_results_are_there_when_they_cannot_be_printed(tmp_path: Path) -> None:
    done = bash(f"rsd bench arithmetic --limit 2 --strategy draft --out '{tmp_path}/out' > /dev/full")
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2


@posix
def test_closed_streams_are_no_tracebacks() -> None:
    one_line(bash("rsd solve 2+2 -q >&-"), 1, "standard output cannot be written")
    for line in ("2>&-", "<&-", "2>/dev/full", "2>&- <&-"):
        done = bash(f"rsd solve 2+2 -q {line}")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"4\n", b""), line
    one_line(bash("rsd solve - <&-"), 2, "the question is empty")
    assert bash("rsd solve 2+2 >&- 2>&- <&-").returncode == 1
    assert bash("rsd nonsense 2>&-").returncode == 2


@posix
def test_a_closed_standard_output_gives_its_number_to_no_other_file(tmp_path: Path) -> None:
    """Whatever prints would write into the next file that is opened."""
    code = "import os, sys; from rsd_local.cli import streams; streams.prepare(); sys.exit(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY))"
    for closed in (">&-", "<&-", "2>&-", ">&- 2>&- <&-"):
        done = bash(f"'{sys.executable}' -c '{code}' '{tmp_path / 'file'}' {closed}")
        assert done.returncode > 2, closed


@posix
def test_a_reader_that_leaves_is_not_spoken_of() -> None:
    for line in ("rsd solve 2+2 --jsonl", "rsd solve -h", "rsd list", "rsd list 2>&1"):
        done = bash(f"{line} | head -1; exit 0")
        assert done.stdout.count(b"\n") == 1 and done.stderr == b"", done.stderr
    assert bash("rsd solve 2+2 -q | true; exit ${PIPESTATUS[0]}").returncode in (0, 1)  # who is first?


def test_standard_input_is_read_as_editors_write_it() -> None:
    for variables in ({}, {"PYTHONIOENCODING": "cp1252"}):
        done = rsd("solve", "-q", stdin=b"\xef\xbb\xbf2+2\r\n", **variables)
        assert done.stdout == b"4\n", done.stderr
        done = rsd("chat", "-q", stdin=b"\xef\xbb\xbf2+2\r\n3+3\r\n", **variables)
        assert done.stdout.split() == [b"4", b"6"], done.stderr
    one_line(rsd("solve", "-q", stdin="2+2\n".encode("utf-16")), 2, "standard input is UTF-16", "UTF-8")
    one_line(rsd("chat", "-q", stdin="2+2\n".encode("utf-16-be")), 1, "standard input is UTF-16", "UTF-8")
    one_line(rsd("solve", "-q", "-", stdin=b"caf\xe9?"), 2, "not an arithmetic expression")


# Files


def test_text_files_are_read_as_editors_write_them(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for data in (b"a\nb\n", b"\xef\xbb\xbfa\r\nb\r\n", b"a\rb\r"):
        file.write_bytes(data)
        assert read_text(file) == "a\nb\n"
    for data, name in (("aé".encode("utf-16"), "UTF-16"), ("ab".encode("utf-16-le"), "UTF-16"), ("a".encode("utf-32"), "UTF-32")):
        file.write_bytes(data)
        with pytest.raises(ConfigError, match=name) as refused:
            read_text(file)
        assert "UTF-8" in refused.value.hint
    file.write_bytes(b"a\nb\ncaf\xe9\n")
    with pytest.raises(ConfigError, match="byte 0xe9 in line 3 is not UTF-8"):
        read_text(file)


def test_every_kind_of_text_file_may_begin_with_a_mark(tmp_path: Path) -> None:
    from rsd_local.bench.datasets import load_dataset
    from rsd_local.catalogue.own import save_threshold
    from rsd_local.programs.test_files import read_test_file
    from rsd_local.rewards.verifier.json_schema import JsonSchema

    def written(name: str, text: str, encoding: str) -> Path:
        (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
        return tmp_path / name

    trio = 'reward_kind = "confidence"\n[draft]\npath = "a.gguf"\n[target]\npath = "b.gguf"\n'
    kinds = {
        "trio.toml": (trio, lambda file: read_trio(file).draft.path.name == "a.gguf"),
        "tuned.toml": (trio, lambda file: save_threshold(str(file), 0.5, "a test") and read_trio(file).threshold == 0.5),
        "data.jsonl": ('{"question": "1+1", "answer": "2"}\n', lambda file: len(load_dataset(str(file))) == 1),
        "tests.py": ("assert f(1) == 2\n", lambda file: len(read_test_file(file).checks) == 1),
        "schema.json": ('{\n"type": "object"}\n', lambda file: JsonSchema(file).check is not None),
    }
    for name, (text, is_read) in kinds.items():
        assert is_read(written(name, text, "utf-8-sig")), name
        with pytest.raises(ConfigError, match="UTF-16"):
            is_read(written(name, text, "utf-16"))


@posix
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    calls: list[list[object]] = [
        ["solve", "x", "--trio"],
        ["fit", "-m", MODEL, "-mr", MODEL, "-md"],
        ["solve", "x", "--reward-kind", "read-out", "--head"],
        ["solve", "x", "--run-code", "--verifier", "python-tests", "--tests"],
        ["bench", "--strategy", "draft", "--out", tmp_path / "out"],
        ["tune", "--best", "--data"],
    ]
    for words in calls:
        done = rsd(*words, pipe)
        assert done.returncode in (1, 2) and b"regular file" in done.stderr, (words, done.stderr)
        assert done.stderr.startswith(b"rsd: ") and done.stderr.count(b"\n") == 1, (words, done.stderr)
    for path, why in ((Path("/dev/zero"), "regular file"), (tmp_path, "directory")):
        with pytest.raises(ConfigError, match=why):
            read_text(path)
        with pytest.raises(ModelError, match=why):
            read_header(path)


@pytest.mark.skipif(sys.platform != "linux", reason="a file system whose names are bytes")
def test_a_file_may_be_called_by_bytes_that_are_no_text(tmp_path: Path, smollm2: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    os.symlink(smollm2, folder + b"/\xe9.gguf")
    with open(folder + b"/trio.toml", "wb") as file:
        role = b'path = "small.gguf"\nctx_size = 400\nthreads = 1\n'
        file.write(b'reward_kind = "confidence"\nthreshold = 0.2\n[draft]\n' + role + b"[target]\n" + role)
    os.symlink(smollm2, folder + b"/small.gguf")
    with open(folder + b"/\xe9.jsonl", "w") as data:
        data.write('{"question": "Name a colour.", "answer": "red"}\n')
    model = folder + b"/\xe9.gguf"
    both = ["-md", model, "-m", model, "--reward-kind", "confidence"]
    done = rsd("solve", "Hi", *both, "--threshold", "0", "--stats", "-n", "4", "-t", "1", "-c", "400")
    assert done.returncode == 0 and "\ufffd.gguf".encode() in done.stderr, done.stderr
    short, trio = ["-n", "4"], ["--trio", folder + b"/trio.toml"]
    assert json.loads(rsd("config", *trio, "--json").stdout)
    out = folder + b"/out"
    for words in (
        ["bench", folder + b"/\xe9.jsonl", "--out", out, "--strategy", "draft", *short, *trio],
        ["report", out],
    ):
        done = rsd(*words)
        assert done.returncode == 0, done.stderr
    save_threshold(os.fsdecode(folder + b"/trio.toml"), 0.5, "measured")
    with open(folder + b"/trio.toml", encoding="utf-8") as written:
        assert "threshold_from" in written.read()
    one_line(rsd("solve", "x", "--trio", b"none\xe9.toml"), 2, "none\ufffd.toml cannot be read: No such file")


def test_a_tilde_of_nobody_is_a_name() -> None:
    one_line(rsd("solve", "x", "-md", "~nobody-at-all/a.gguf", "-m", "b", "-mr", "c"), 1, "no model file ~nobody-at-all")


def test_a_trio_is_a_name_of_the_catalogue_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = 'reward_kind = "confidence"\nthreshold = 0.125\n[draft]\npath = "a.gguf"\n[target]\npath = "a.gguf"\n'
    for name in ("mine", "small", "mine.txt", "mine.toml"):
        (tmp_path / name).write_text(text)
    for name in ("mine", "mine.txt", "mine.toml", "./small", str(tmp_path / "small")):
        assert find_trio(name).threshold == 0.125, name
    assert trio_file("small") is None, "what lies in the folder changes no name of the catalogue"
    assert trio_file(".\\small") is not None and trio_file("C:\\models\\small") is not None
    with pytest.raises(ConfigError, match="no trio 'yours'"):
        find_trio("yours")
    with pytest.raises(ConfigError, match="No such file"):
        find_trio("./yours")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="no trio 'folder'"):
        find_trio("folder")


# Arguments


def words_of(command: str, arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    ctx = click.Context(cli, info_name="rsd")
    found = cli.get_command(ctx, command)
    assert found is not None
    read = read_words(names_of(found.get_params(click.Context(found, ctx, command))), arguments)
    return read.options, read.values, read.unknown


def test_values_are_values_whatever_they_begin_with() -> None:
    for given, (options, values, unknown) in {
        ("-x + 3",): ([], ["-x + 3"], []),
        ("-n + 3",): ([], ["-n + 3"], []),  # -n is an option, but not with that
        ("-3+5",): ([], ["-3+5"], []),
        ("-(3+5)", "-sin(x)", "-π", "--5", "-x+3=5"): ([], ["-(3+5)", "-sin(x)", "-π", "--5", "-x+3=5"], []),
        ("q", "--system", "-be brief"): (["--system", "-be brief"], ["q"], []),
        ("q", "--system", "-q brief"): (["--system", "-q brief"], ["q"], []),
        ("q", "--stop", "--"): (["--stop", "--"], ["q"], []),
        ("--system=-q", "q"): (["--system", "-q"], ["q"], []),
        ("q", "-n20", "-ngl99", "-t4", "-c4096"): (["-n", "20", "-ngl", "99", "-t", "4", "-c", "4096"], ["q"], []),
        ("q", "-n=20", "--temp", "-1"): (["-n", "20", "--temp", "-1"], ["q"], []),
        ("--", "-q", "--trio"): ([], ["-q", "--trio"], []),
        ("q", "-mx", "f.gguf"): ([], ["q", "f.gguf"], ["-mx"]),
        ("q", "--treshold=1"): ([], ["q"], ["--treshold=1"]),
        ("-x",): ([], [], ["-x"]),
    }.items():
        assert words_of("solve", given) == (options, values, unknown), given


def test_calls_with_a_minus_are_answered() -> None:
    for words, answer in (
        (["-3+5"], b"2\n"),
        (["-(3+5)"], b"-8\n"),
        (["2+2", "-n20"], b"4\n"),
        (["2+2", "--stop", "-be brief"], b"4\n"),
        (["-t1", "--", "-3+1"], b"-2\n"),
    ):
        done = rsd("solve", "-q", *words)
        assert (done.returncode, done.stdout) == (0, answer), done.stderr
    done = rsd("solve", "-q", "2+2", "--system", "-be brief")
    assert done.stdout == b"4\n" and b"takes no system prompt" in done.stderr
    one_line(rsd("solve", "-x + 3"), 2, "not an arithmetic expression: '-x + 3'")


def test_values_that_are_missing_are_missed() -> None:
    one_line(rsd("solve", "2+2", "--system"), 2, "--system needs a value")
    one_line(rsd("solve", "2+2", "--system", "-q"), 2, "--system needs a value", "--system=-q")
    one_line(rsd("solve", "-x"), 2, "no such option: -x", "behind --")
    one_line(rsd("solve", "2+2", "-n2x"), 2, "no such option: -n2x", "did you mean -n?")


# What is typed first


def test_first_calls_are_told_the_next_one() -> None:
    for words, code, *expected in (
        (["2+2"], 2, "rsd solve 2+2"),
        (["-3+5"], 2, "rsd solve -3+5"),
        (["what", "is", "2+2"], 2, 'rsd solve "what is 2+2"'),
        (["slove", "2+2"], 2, "did you mean: rsd solve 2+2"),
        (["help", "slove"], 2, "did you mean: rsd solve"),
        (["download", "small"], 2, "did you mean: rsd pull small"),
        (["version"], 2, "did you mean: rsd --version"),
        (["solve"], 2, 'rsd solve "(37+48)*6-129"'),
        (["solve", "What", "is", "it?"], 2, 'rsd solve "What is it?"'),
        (["solve", "What is 2+2?"], 2, "without the words: rsd solve 2+2"),
        (["solve", "hello"], 2, "abacus solves + − × over integers", "rsd pull small, then --trio small"),
        (["solve", "x" * 500], 2, "--trio small"),
        (["solve", "999*999"], 2, "both factors of 999*999 are too large", "a factor up to 12"),
        (["solve", "1234567890*2"], 2, "1234567890 is too large"),
        (["solve", f"{'9' * 900}*2"], 2, "a number of 900 digits is too large"),
        (["solve", "--draft", "x.gguf", "--target", "y.gguf", "3+4"], 2, "no reward model is named", "--reward-kind judge"),
    ):
        one_line(rsd(*words), code, *expected, longest=250)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("What is 2+2?", "2+2"), ("Compute (3+4)*2.", "(3+4)*2"), ("3+4, please", "3+4"), ("What is 3 × 4 = ?", "3 * 4"),
        ("2.5*4", None), ("1.5+2", None), ("10/2+3", None), ("2^3+1", None), ("[3+4]*2", None), ("1,000-1", None),
        ("5 + 3 apples + 2", None), ("10 - 2 - x", None), ("√(3+4)", None), ("3+4 %", None), ("no numbers", None),
    ],
)  # fmt: skip
def test_a_part_of_a_sum_is_not_offered_in_its_place(text: str, part: str | None) -> None:
    assert find_expression(text) == part


def test_the_answer_alone_is_said_to_be_cut() -> None:
    done = rsd("solve", "-q", "3+4*2", "-n", "5")
    assert done.returncode == 0 and done.stdout == b"4*2=8\n" and done.stderr == b"stopped at --max-tokens; the solution may be cut\n"
    assert rsd("solve", "-q", "3+4*2").stderr == b""


def test_a_flag_that_resembles_another_by_its_dashes_alone_is_not_taken_for_it() -> None:
    for name, near in (
        ("--nonsense", None),
        ("--output", None),
        ("--model", None),
        ("--tempratur", "--temp"),
        ("--treshold", "--threshold"),
    ):
        said = rsd("solve", "2+2", name).stderr.decode()
        assert (f"did you mean {near}?" in said) if near else ("did you mean" not in said), said


def test_what_comes_with_the_package_is_neither_fetched_nor_compared_nor_taken_out() -> None:
    for command, nothing in (("verify", "compare them with"), ("pull", "download"), ("rm", "take out")):
        done = rsd(command, "abacus")
        assert (done.returncode, done.stdout) == (0, b"") and f"there is nothing to {nothing}" in done.stderr.decode()


def test_a_refused_question_names_a_trio_that_is_here(tmp_path: Path) -> None:
    for name in ("small", "model.gguf"):
        (tmp_path / name).write_text("")
    (tmp_path / "rsd").mkdir()
    role = f"path = {json.dumps(str(tmp_path / 'model.gguf'))}"
    mine = f'[trio.mine]\nreward_kind = "confidence"\ndraft.{role}\ntarget.{role}\n'
    (tmp_path / "rsd" / "models.toml").write_text(mine)
    done = rsd("solve", "What is love?", XDG_CONFIG_HOME=str(tmp_path))
    one_line(done, 2, 'rsd solve --trio mine "What is love?"')


@posix
def test_a_question_may_come_by_a_pipe() -> None:
    assert bash("echo 2+2 | rsd solve -q").stdout == b"4\n"
    assert bash("echo 2+2 | rsd solve -q -").stdout == b"4\n"
    one_line(rsd("solve", stdin=None), 2, "Missing argument", "rsd solve")


def test_rsd_alone_and_help_are_help() -> None:
    alone = rsd()
    assert alone.returncode == 0 and alone.stderr == b"" and alone.stdout.count(b"\n") > 20
    assert rsd("-h").stdout == rsd("--help").stdout == rsd("help").stdout == alone.stdout
    for command in COMMANDS:
        assert f"  {command} ".encode() in alone.stdout
    assert rsd("help", "solve").stdout == rsd("solve", "-h").stdout


@pytest.mark.parametrize("width", [80, 120, 60])
def test_help_fits_the_terminal(width: int) -> None:
    whole = click.Context(cli, info_name="rsd", terminal_width=None)
    for name in ["", *COMMANDS]:
        command = cli.get_command(whole, name) if name else cli
        assert command is not None
        context = click.Context(command, whole, name, terminal_width=min(width, 80) - 2) if name else click.Context(cli, info_name="rsd")
        text = command.get_help(context)
        if width >= 80:
            assert max(map(len, text.splitlines())) <= 80, name
        assert not re.search(r"\w-$", text, re.MULTILINE), f"{name}: a name is broken at its hyphen"
        assert not re.search(r"\w- \w", text), f"{name}: a name is broken in the source"
        assert not re.search(r"\[default:$", text, re.MULTILINE), f"{name}: a default is broken"


def test_the_listing_says_what_each_commands_own_help_says() -> None:
    ctx = click.Context(cli, info_name="rsd")
    for commands in GROUPS.values():
        for name, (_, summary) in commands.items():
            command = cli.get_command(ctx, name)
            assert command is not None and command.help, name
            assert summary.split()[0] == command.help.split()[0], f"{name}: another verb"


@posix
def test_help_in_a_terminal_is_as_it_is_in_a_pipe() -> None:
    import pty

    reader, writer = pty.openpty()
    subprocess.run([*RSD], stdin=writer, stdout=writer, stderr=writer, env=PLAIN | {"COLUMNS": "80", "TERM": "xterm"}, timeout=60)
    os.close(writer)
    seen = b""
    try:
        while part := os.read(reader, 65536):
            seen += part
    except OSError:
        pass  # the other end is closed
    os.close(reader)
    assert seen.replace(b"\r\n", b"\n") == rsd().stdout


def test_help_takes_little_and_loads_nothing_heavy() -> None:
    code = "import sys; from rsd_local.cli import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=PLAIN, check=True)
    loaded = {name.split(".")[0] for name in done.stderr.decode().split()}
    assert not loaded & {"numpy", "llama_cpp", "jinja2", "huggingface_hub", "rich", "safetensors", "tomlkit", "psutil", "platformdirs"}
    own = {name for name in done.stderr.decode().split() if name.startswith("rsd_local")}
    assert own <= {"rsd_local", *(f"rsd_local.{name}" for name in ("cli", "errors", "text_files", "cli.command", "cli.streams"))}


# Names


def test_lazy_names_are_listed_and_there() -> None:
    assert set(rsd_local.__all__) <= set(dir(rsd_local))
    code = "import rsd_local, sys; print(*dir(rsd_local)); print('numpy' in sys.modules, 'rsd_local.config' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Reasoner" in done.stdout.split() and done.stdout.splitlines()[1] == "False False"
    with pytest.raises(AttributeError, match="no attribute 'Resoner'"):
        rsd_local.Resoner  # noqa: B018


def test_a_reasoner_opens_by_name_or_file(tmp_path: Path) -> None:
    with Reasoner.open("abacus") as reasoner:
        assert reasoner.solve("2+2").answer == "4"
        models = reasoner.config
    role = "".join(f"[{name}]\npath = {json.dumps(str(getattr(models, name).path))}\n" for name in ("draft", "target", "reward"))
    file = tmp_path / "own.toml"
    file.write_text(f'task = "arithmetic"\nsystem = ""\nreward_kind = "tag-logits"\nlayout = "math-shepherd"\n{role}')
    for given in (file, str(file)):
        with Reasoner.open(given) as reasoner:
            assert reasoner.solve("2+3").answer == "5"
    with pytest.raises(ConfigError, match="no trio 'abacsu'"):
        Reasoner.open("abacsu")
    with pytest.raises(ModelNotFound) as missing:
        Reasoner.open("small")
    assert missing.value.hint.startswith("rsd pull small")


def test_calls_are_shown_as_they_can_be_typed() -> None:
    assert quoted("2+2") == "2+2" and quoted("2*2") == '"2*2"' and quoted("what's it?") == '"what\'s it?"'
    assert quoted("$x") == "'$x'" and quoted("") == '""'
    assert call("solve", "y" * 100) == 'rsd solve "…"'


# Other systems

_WINDOWS = """
import asyncio, concurrent.futures, ctypes, importlib, multiprocessing.connection, multiprocessing.shared_memory, os, pkgutil, select
import selectors, shutil, signal, socket, subprocess, sys, tempfile
import click, filelock, huggingface_hub.file_download, jinja2
import llama_cpp, numpy, platformdirs, psutil, rich.console, rich.live, rich.progress, safetensors, tomlkit
try:
    import prometheus_client, starlette.applications, starlette.middleware.cors, uvicorn.protocols.http.h11_impl, uvicorn.server
    left_out = ()
except ImportError:  # without the extra
    left_out = ("rsd_local.server",)
for name in ("fcntl", "pwd", "grp", "resource", "termios", "readline", "tty", "pty", "syslog"):
    sys.modules[name] = None
for name in ("fork", "forkpty", "getuid", "getgid", "geteuid", "getegid", "setsid", "killpg", "getpgid", "sched_getaffinity", "mkfifo",
             "sched_setaffinity", "pidfd_open", "uname", "getloadavg", "statvfs", "sysconf", "memfd_create", "wait4", "chown"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("poll", "epoll", "kqueue"):
    if hasattr(select, name):
        delattr(select, name)
kept = ("SIGINT", "SIGTERM", "SIGABRT", "SIGFPE", "SIGILL", "SIGSEGV", "SIGBREAK", "SIG_DFL", "SIG_IGN")
for name in dir(signal):
    if name.startswith("SIG") and name not in kept or name in ("alarm", "setitimer", "pthread_sigmask"):
        delattr(signal, name)
sys.platform = "win32"
import rsd_local
for module in pkgutil.walk_packages(rsd_local.__path__, "rsd_local."):
    if not module.name.startswith((*left_out, "rsd_local._pyinstaller.hook")):  # which only PyInstaller loads
        importlib.import_module(module.name)
from rsd_local.cli import main
main(sys.argv[1:])
"""


def test_nothing_that_only_posix_has_is_needed() -> None:
    """All modules are imported, and commands run, where the modules, functions and signals of POSIX are not there."""
    for words, wanted in ((["solve", "2+2", "-q"], b"4\n"), (["list"], b"abacus"), (["fit"], b"draft"), (["chat", "-q"], b"6\n")):
        done = subprocess.run([sys.executable, "-c", _WINDOWS, *words], input=b"3+3\n", capture_output=True, env=PLAIN, timeout=120)
        assert done.returncode == 0 and wanted in done.stdout, done.stderr.decode()


def test_the_catalogue_has_names_that_are_no_paths() -> None:
    for name in (*Catalogue.read().trios, *Catalogue.read().models):
        assert not set(name) & set("/\\") and not name.endswith(".toml")
