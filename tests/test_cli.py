"""The command line as its users meet it: what goes where, and how every failure ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import write_model

RSD = [sys.executable, "-c", "from rsd_local.cli import main; main()"]


def rsd(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RSD, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("cli")
    paths = [write_model(folder / f"{name}.gguf", seed=seed) for seed, name in enumerate(("draft", "target", "reward"))]
    return ["--draft", paths[0], "--target", paths[1], "--reward", paths[2], "-n", "60", "-c", "400", "-t", "1"]


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One line on standard error that names cause and mend; nothing on standard output."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("rsd: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    call = "import sys; from rsd_local.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code = call + "print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "solve" in done.stdout
    for heavy in ("numpy", "llama_cpp", "rich", "jinja2", "huggingface_hub"):
        assert f"'{heavy}'" not in done.stderr


def test_json_is_one_object_with_all_that_is_promised(flags: list[object]) -> None:
    done = rsd("solve", "What is it?", *flags[:-2], "--json")  # with as many threads as there are cores
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert {"answer", "text", "finish_reason", "steps", "counters", "flops"} <= set(made)
    assert {"author", "text", "reward", "tokens", "seconds"} <= set(made["steps"][0])
    wanted = {"prompt_tokens", "cached_tokens", "generated_tokens", "discarded_tokens", "decode_calls", "seconds", "waiting_seconds"}
    for role in ("draft", "target", "reward"):
        assert wanted <= set(made["counters"][role])
    assert set(made["flops"]) == {"paper", "full"} and made["flops"]["full"] > made["flops"]["paper"] > 0


def test_jsonl_is_an_event_a_line(flags: list[object]) -> None:
    lines = [json.loads(line) for line in rsd("solve", "What is it?", *flags, "--jsonl").stdout.splitlines()]
    assert [line["event"] for line in lines] == ["drafted", "step"] * (len(lines) // 2) + ["finished"]
    assert lines[-1]["finish_reason"]


def test_the_answer_goes_to_standard_output_and_the_rest_to_standard_error(flags: list[object]) -> None:
    done = rsd("solve", "-", *flags, "--stats", stdin="What is it?\n")
    assert "[1]" in done.stderr and "GPU offload in this build" in done.stderr
    assert "role prompt cached written dropped rows batches seconds waiting".split() in [line.split() for line in done.stderr.splitlines()]
    assert "…" not in done.stderr, "a heading or a figure is cut"
    assert "[1]" not in done.stdout
    quiet = rsd("solve", "What is it?", *flags, "--quiet")
    said = ["stopped at --max-tokens; the solution may be cut", "no \\boxed answer: here is the whole text"]
    assert quiet.stdout == done.stdout and quiet.stderr.splitlines() == said, "what is wrong with the answer, and nothing else"


def test_control_characters_never_reach_the_terminal(flags: list[object]) -> None:
    """Random models write every byte there is."""
    for seed in range(3):
        done = rsd("solve", "What is it?", *flags, "--temp", "2", "--seed", seed)
        assert not set(done.stdout + done.stderr) & {chr(code) for code in range(32) if chr(code) not in "\n\t"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["solve"], ["Missing argument"]),
        (["solve", ""], ["empty"]),
        (["slove", "x"], ["No such command"]),
        (["solve", "x", "--treshold", "0.5"], ["no such option: --treshold", "--threshold"]),
        (["solve", "x", "-mx", "f.gguf"], ["no such option: -mx"]),
        (["solve", "x", "--threshold", "1.5"], ["threshold 1.5 is outside 0 to 1"]),
        (["solve", "x", "--threshold", "high"], ["threshold"]),
        (["solve", "x", "--json", "--jsonl"], ["exclude each other"]),
        (["solve", "x", "--draft", "a.gguf"], ["no target and no reward model"]),
        (["solve", "x", "--trio", "nonesuch"], ["no trio 'nonesuch'"]),
        (["solve", "x", "-c", "expert=5"], ["'expert' is no role"]),
        (["solve", "x", "-t", "many"], ["'many' is no number"]),
        (["solve", "x", "--temp", "-1"], ["temperature -1.0 is outside"]),
    ],
)
def test_a_wrong_call_exits_with_2_and_one_line(flags: list[object], arguments: list[str], words: list[str]) -> None:
    named = flags if "--threshold" in arguments or "-c" in arguments or "-t" in arguments or "--temp" in arguments else []
    refused(rsd(*arguments, *named), 2, *words)


def test_files_that_are_no_models_exit_with_1_and_one_line(flags: list[object], tmp_path: Path) -> None:
    text, cut = tmp_path / "text.gguf", tmp_path / "cut.gguf"
    text.write_text("not a model")
    cut.write_bytes(Path(str(flags[1])).read_bytes()[:20_000])
    for path, words in ((tmp_path / "none.gguf", "no model file"), (text, "is not a GGUF file"), (cut, "lies outside the file")):
        refused(rsd("solve", "x", *flags, "--draft", path), 1, words, str(path))
    plain = write_model(tmp_path / "plain.gguf", template=None)
    refused(rsd("solve", "x", *flags, "--draft", plain), 1, "has no chat template", "instruct")
    refused(rsd("solve", "x " * 500, *flags), 1, "draft: a prompt of 1090 tokens leaves no room in the context of 400", "--ctx-size")


def test_a_trio_file_is_read_and_its_mistakes_are_named(flags: list[object], tmp_path: Path) -> None:
    for role, path in zip(("draft", "target", "reward"), flags[1:6:2], strict=True):
        os.link(str(path), tmp_path / f"{role}.gguf")
    roles = "".join(f'[{role}]\npath = "{role}.gguf"\nctx_size = 400\n' for role in ("draft", "target", "reward"))
    file = tmp_path / "own.toml"
    file.write_text("threshold = 0.4\n" + roles)
    assert rsd("solve", "What?", "--trio", file, "-n", "30", "--json").returncode == 0
    for content, words in (
        ("treshold = 0.4\n" + roles, ["unknown key 'treshold'", "did you mean 'threshold'"]),
        (roles.replace("ctx_size", "ctx_sise", 1), ["[draft]", "unknown key 'ctx_sise'", "did you mean 'ctx_size'"]),
        ("threshold = 7\n" + roles, ["threshold 7 is outside 0 to 1"]),
        ('threshold = "high"\n' + roles, ["threshold = 'high' is not of the right kind; give a number"]),
        ('parallel = "x"\n' + roles, ["give a whole number"]),
        ('draft = "a.gguf"\ntarget = "b.gguf"\n', ['it is a table: write draft.path = "a.gguf"']),
        ("foo = 3\n" + roles, ["known: draft, target, ", "parallel", "fit_check"]),
        (roles + "foo = 3\n", ["known: path, ctx_size, "]),
        ('[draft]\npath = "a.gguf"\n', ["'target' is missing"]),
        ("= =", ["is no TOML"]),
    ):
        file.write_text(content)
        refused(done := rsd("solve", "x", "--trio", file), 2, *words)
        assert "run_code" not in done.stderr and "trusted" not in done.stderr, "no file can set these"
    refused(rsd("solve", "x", "--trio", tmp_path / "none.toml"), 2, "No such file")


def test_ctrl_c_keeps_what_there_is_and_exits_with_130(smollm2: Path) -> None:
    models = ["--draft", smollm2, "--target", smollm2, "--reward", smollm2, "--reward-kind", "judge", "--threshold", "0", "-t", "1"]
    models += ["--delimiter", "tokens:8"]
    command = [
        *RSD,
        "solve",
        "Count from one to two hundred in words.",
        *map(str, models),
        "--jsonl",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        drafted, first = process.stdout.readline(), process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert [json.loads(line)["event"] for line in (drafted, first)] == ["drafted", "step"]
    assert json.loads(out.splitlines()[-1])["finish_reason"] == "cancelled"


def test_a_reader_that_leaves_is_no_error_to_speak_of(flags: list[object]) -> None:
    command = [*RSD, "solve", "What is it?", *map(str, flags), "--jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_the_package_is_the_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "rsd_local", "solve", "1+1"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "2\n")
    wrong = subprocess.run([sys.executable, "-m", "rsd_local", "solv"], capture_output=True, text=True, timeout=120)
    refused(wrong, 2, "did you mean: rsd solve")
