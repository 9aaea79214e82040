"""``rsd serve --run-log`` and its report: what a line has and what never, what survives, and which folders are refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bench_support import trio_of_files
from server_support import QUESTION, Server, served
from test_cli import RSD, refused, rsd

from rsd_local.config import TunedFigures
from rsd_local.errors import ConfigError
from rsd_local.evaluation.journal import CONFIG
from rsd_local.run_log.figures import read_figures
from rsd_local.run_log.folder import MANIFEST, Lines, RunLog, begin, identity
from rsd_local.run_log.report import write_report

SECRET = "sk-very-secret"


def line(number: int, **more: Any) -> dict[str, Any]:
    """A line of an answer with three steps, of which the target replaced the second."""
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    counters = {name: {"parameters": size, "opening_tokens": 10, "cached_tokens": 4} for name, size in (("draft", 1), ("target", 9))}
    steps = [{"author": "draft", "reward": 0.95}, {"author": "target", "reward": 0.1, "rejected": {}}, {"author": "draft", "reward": 1.0}]
    made = {
        "time": when.isoformat(), "strategy": "rsd", "finish_reason": "stop", "error": None, "seconds": 2.0, "waiting_seconds": 1.0,
        "tokens": 24, "steps": steps, "counters": counters, "flops": {"full": 2 * 9 * 15},
    }  # fmt: skip
    return made | more


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "models").mkdir()
    return identity(trio_of_files(tmp_path / "models"))


def begun(folder: Path, config: dict[str, Any], **settings: Any) -> RunLog:
    begin(folder, "mine", config, TunedFigures(0.7, 0.9, 4000))
    return RunLog(folder, config, **settings)


def test_a_line_that_a_kill_tore_is_left_out_and_the_next_server_has_a_file_of_its_own(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = tmp_path / "log"
    first = begun(folder, config)
    for number in range(3):
        first.append(line(number))
    first.close()
    (file,) = folder.glob("answers-*.jsonl")
    file.write_bytes(file.read_bytes()[:-9])
    second, third = begun(folder, config), begun(folder, config)
    second.append(line(3))
    third.append(line(4))
    second.close()
    third.close()
    lines = Lines(folder)
    assert sorted(row["time"][14:16] for row in lines) == ["00", "01", "03", "04"] and lines.damaged == 1
    assert len(list(folder.glob("answers-*.jsonl"))) == 3
    begun(folder, config).close()
    assert len(list(folder.glob("answers-*.jsonl"))) == 3, "a server that answered nothing leaves no file"


def test_a_large_file_is_followed_by_another_and_many_threads_may_write(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = tmp_path / "log"
    log = begun(folder, config, most_bytes=4000)
    threads = [threading.Thread(target=lambda: [log.append(line(number)) for number in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    files = list(folder.glob("answers-*.jsonl"))
    assert len(list(Lines(folder))) == 80 and len(files) > 5 and max(file.stat().st_size for file in files) <= 4000 and log.lost == 0


FULL = """
import json, logging, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from rsd_local.run_log.folder import RunLog
logging.basicConfig(format="%(message)s")
log = RunLog(Path(sys.argv[1]), {})
def write(count):
    for _ in range(count):
        log.append({"time": "x", "strategy": "rsd", "finish_reason": "stop", "error": None, "seconds": 1, "steps": [], "counters": {},
                    "more": "x" * 300})
    while log._lines.qsize():
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
write(12)
import time; time.sleep(0.3)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
write(2)
log.close()
print(log.lost)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits are those of POSIX")
def test_a_full_disk_costs_lines_and_one_warning_and_leaves_no_torn_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path, Path(__file__).parent], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.splitlines()
    assert "cannot be written: File too large" in first and "answers go on" in first
    assert "written again" in second and f"{done.stdout.strip()} of its lines are missing" in second
    lines = Lines(tmp_path)
    assert len(list(lines)) == 14 - int(done.stdout) and 0 < int(done.stdout) < 12 and lines.damaged == 0


def test_a_folder_of_another_trio_or_version_or_of_something_else_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = tmp_path / "log"
    begun(folder, config).close()
    other = json.loads(json.dumps(config))
    other["trio"]["target"]["sha256"] = "0" * 64
    newer = config | {"versions": config["versions"] | {"rsd-local": "9.9"}}
    for given, words in ((other, "trio.target.sha256 .* target.gguf is another file"), (newer, "versions.rsd-local .* '9.9' here")):
        with pytest.raises(ConfigError, match=words):
            begin(folder, "mine", given, None)
    begin(folder, "another name", config, None)
    for name, words in ((CONFIG, "a folder of rsd bench"), ("letter.txt", "not empty")):
        foreign = tmp_path / name.partition(".")[0]
        foreign.mkdir()
        (foreign / name).write_text("{}")
        with pytest.raises(ConfigError, match=words):
            begin(foreign, "mine", config, None)
        assert [file.name for file in foreign.iterdir()] == [name]
    with pytest.raises(ConfigError, match="cannot be used"):
        begin(tmp_path / "letter" / "letter.txt", "mine", config, None)
    (folder / MANIFEST).write_text('{"kind": "rsd run log"')
    with pytest.raises(ConfigError, match="no manifest.json that can be read"):
        begin(folder, "mine", config, None)


def test_settings_of_a_start_may_change_and_a_folder_says_nothing_of_paths(tmp_path: Path, config: dict[str, Any]) -> None:
    assert identity(trio_of_files(tmp_path / "models", parallel=7, reuse=True)) == config
    assert str(tmp_path) not in json.dumps(config) and config["trio"]["draft"]["sha256"]


def test_figures_add_up_by_day_or_in_equal_parts(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = tmp_path / "log"
    log = begun(folder, config)
    for number in range(40):
        log.append(line(number))
    log.append(line(40, error="verifier-failed", finish_reason=None, steps=[], counters={}, flops={}, tokens=0))
    log.append(
        line(41, strategy="target", steps=[{"author": "target", "reward": None}], counters={"target": line(0)["counters"]["target"]})
    )
    log.close()
    with next(folder.glob("answers-*.jsonl")).open("a") as file:
        file.write("{}\n" + json.dumps(line(42, counters=3)) + "\n")
    found = read_figures(folder)
    rsd_part = found.of("rsd")
    assert rsd_part is not None and rsd_part.acceptance is not None and rsd_part.flops_saved is not None
    assert (found.whole.answers, found.whole.errors, found.damaged) == (42, 1, 2)
    assert rsd_part.acceptance[0] == pytest.approx(2 / 3) and rsd_part.acceptance[1] < 2 / 3 < rsd_part.acceptance[2]
    assert rsd_part.flops_saved[0] == pytest.approx(1 - 15 / 30) and rsd_part.tokens_per_second is not None
    assert rsd_part.tokens_per_second[0] == pytest.approx(12.0) and found.waited == 1.0
    assert found.rewards[9] == (80, 0) and found.rewards[1] == (0, 40) and sum(map(sum, found.rewards)) == 120
    assert found.reasons == {"stop": 41} and found.errors == {"verifier-failed": 1}
    assert not found.by_day and len(found.parts) == 8 and sum(part.answers for part in found.parts) == 42
    assert found.drifted, "tune saw nine of ten"
    log = begun(folder, config)
    log.append(line(60 * 24 * 2))
    log.close()
    days = read_figures(folder)
    assert days.by_day and [part.label for part in days.parts] == ["2026-01-01", "2026-01-03"]


def test_the_report_has_tables_and_plots_and_a_page_that_needs_nothing_else(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = tmp_path / "log"
    log = begun(folder, config)
    for number in range(20):
        log.append(line(number))
    log.close()
    _, files = write_report(folder)
    assert [file.name for file in files] == ["report.md", "report.html", "acceptance.png", "rewards.png"]
    page, text = files[1].read_text(), files[0].read_text()
    assert "66.7 %" in page and page.count("data:image/png;base64,") == 2 and "default-src 'none'" in page and "http:" not in page
    assert "## In equal parts" in text and "differs by more than chance" in text and "![" in text
    done = rsd("report", folder)
    assert done.returncode == 0 and "66.7 %" in done.stdout and "How answers ended" in done.stdout and "wrote " in done.stderr
    made = json.loads(rsd("report", folder, "--json").stdout)
    assert made["all"]["acceptance"][0] == pytest.approx(2 / 3) and made["drifted"] is True and made["finish_reasons"] == {"stop": 20}
    without = "import sys; sys.modules['matplotlib'] = None; from rsd_local.cli import main; main(sys.argv[1:])"
    plain = subprocess.run([sys.executable, "-c", without, "report", folder], capture_output=True, text=True, timeout=120)
    assert plain.returncode == 0 and ".png" not in plain.stderr and "66.7 %" in plain.stdout


def test_a_folder_without_a_line_is_said_in_one_line(tmp_path: Path, config: dict[str, Any]) -> None:
    begun(tmp_path / "log", config).close()
    refused(rsd("report", tmp_path / "log"), 2, "has no line yet")
    refused(rsd("report", tmp_path), 2, "config.json")


# A server


def ended(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(Lines(folder))


def test_a_server_writes_a_line_an_answer_without_text_key_or_header_and_survives_a_kill(tmp_path: Path) -> None:
    folder, keys = tmp_path / "log", tmp_path / "keys"
    keys.write_text(SECRET)
    headers = {"authorization": f"Bearer {SECRET}", "x-mine": "header-of-mine"}
    with served("--run-log", folder, "--api-key-file", keys) as server:
        server.client.headers.update(headers)
        server.ask(stop=["a-stop-string"], temperature=0.5, seed=7)
        server.chunks(model="abacus:target")
        assert server.post("an expression that is none").status_code == 400
        server.eventually(lambda: len(rows(folder)) == 3, 10)
        server.process.kill()
        server.process.wait()
    first, second, third = rows(folder)
    assert first["settings"]["sampling"]["temperature"] == 0.5 and first["seed"] == 7 and first["finish_reason"] == "stop"
    assert set(first["counters"]) == {"draft", "target", "reward"} and first["flops"]["full"] > 0 and first["seconds"] > 0
    assert len(first["steps"]) == first["n_steps"] >= 1 and {"author", "reward", "tokens", "seconds"} <= set(first["steps"][0])
    assert (second["model"], second["strategy"], second["stream"]) == ("abacus:target", "target", True)
    assert (third["error"], third["finish_reason"], third["steps"]) == ("question-refused", None, [])
    written = "".join(file.read_text() for file in folder.iterdir())
    for text in (QUESTION, "85", "a-stop-string", SECRET, "header-of-mine", "an expression", str(tmp_path)):
        assert text not in written.replace(first["id"], "").replace(second["id"], "") or text == "85"
    assert not any({"text", "messages", "answer"} & set(row) or any("text" in step for step in row["steps"]) for row in (first, second))


def test_texts_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with served("--run-log", folder, "--log-text") as server:
        made = server.ask()
        ended(server)
    (row,) = rows(folder)
    assert row["messages"] == [{"role": "user", "content": QUESTION}] and row["text"] == made["choices"][0]["message"]["content"]
    assert row["answer"] == "381" and row["id"] == made["id"] and row["steps"][1]["rejected"]["text"] == "85*6=570\n\n"
    refused(rsd("serve", "--log-text"), 2, "--run-log")
    done = subprocess.run([*RSD, "serve", "--port", "0", "--run-log", tmp_path], capture_output=True, text=True, timeout=120)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "is not empty and has no manifest.json" in last and "Traceback" not in done.stderr


def test_a_tuned_trio_has_gauges_and_drift_is_warned_of_once(tmp_path: Path) -> None:
    from rsd_local.catalogue import find_trio

    abacus, file = find_trio("abacus"), tmp_path / "tuned.toml"
    assert abacus.reward is not None
    models = {"draft": abacus.draft, "target": abacus.target, "reward": abacus.reward}
    paths = "".join(f'[{name}]\npath = "{role.path}"\nthreads = 1\n' for name, role in models.items())
    seen = "tuned = {threshold = 0.5, acceptance = 0.2, steps = 5000}\n"
    file.write_text(f'task = "arithmetic"\nsystem = ""\nthreshold = 0.5\nreward_kind = "tag-logits"\n{seen}{paths}')
    with served("--trio", file, "--log-json") as server:
        server.ask(rsd={"threshold": 0.9})
        assert server.figure('rsd_acceptance_expected{model="tuned"}') == 0.2 and server.figure('rsd_acceptance_drift{model="tuned"}') == 0
        assert "rsd_acceptance_recent" not in server.client.get("/metrics").text, "an answer at another threshold says nothing"
        for _ in range(100):
            server.ask()
        assert server.figure('rsd_acceptance_drift{model="tuned"}') == 1 and server.figure('rsd_acceptance_recent{model="tuned"}') == 0.75
        ended(server)
        server.line("more often")
        warned = [one for one in server.log if "rsd_local.server.drift" in one]
    assert len(warned) == 1 and json.loads(warned[0])["level"] == "warning"
