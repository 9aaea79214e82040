"""Clients that other people wrote, against ``rsd serve``: schemathesis, LangChain's own suite, and the AI SDK of npm.

Each test skips where its client is not installed: ``pip install -e '.[clients]'`` and ``npm install --prefix tests/clients``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from server_support import QUESTION, endless_flags, served
from test_server import ANSWER

CLIENTS = Path(__file__).parent / "clients"
FUZZ = Path(__file__).parent.parent / "scripts" / "fuzz_server.py"
EXAMPLES = int(os.environ.get("RSD_FUZZ_EXAMPLES", "45"))
"""Requests that schemathesis makes, about; scripts/fuzz_server.py makes 2,000."""
LEAST = 15
"""Tests of LangChain's suite that must pass; the others are of what the server refuses by name, such as tools."""


SETTINGS = [
    word
    for setting in ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=session", "asyncio_default_test_loop_scope=session")
    for word in ("-o", setting)
]
"""Of pytest: one loop for all tests, for langchain-openai keeps one client for all of them."""


def missing(*packages: str) -> bool:
    return any(importlib.util.find_spec(package) is None for package in packages)


@pytest.mark.skipif(missing("schemathesis"), reason="schemathesis is not installed")
def test_no_request_that_the_description_allows_or_forbids_is_a_5xx_a_traceback_or_a_hang() -> None:
    call = [sys.executable, FUZZ, "--examples", str(EXAMPLES), "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300 + 10 * EXAMPLES)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["fine"], found["said"] or found
    assert found["requests"] >= EXAMPLES / 2 and found["statuses"]["200"] >= 5 and found["statuses"]["400"] >= 1


def test_a_405_names_the_methods_that_there_are_and_events_are_no_strings() -> None:
    with served() as server:
        for path, methods in (("/v1/chat/completions", {"POST"}), ("/health", {"GET", "HEAD"}), ("/v1/models/abacus", {"GET", "HEAD"})):
            response = server.client.request("TRACE", path)
            assert response.status_code == 405 and set(response.headers["allow"].split(", ")) == methods
        answers = server.client.get("/openapi.json").json()["paths"]["/v1/completions"]["post"]["responses"]["200"]["content"]
        assert answers["text/event-stream"] == {}


@pytest.mark.skipif(missing("langchain_openai", "langchain_tests"), reason="langchain-openai or langchain-tests is not installed")
def test_langchains_suite_for_chat_models_passes(smollm2: Path, tmp_path: Path) -> None:
    flags = ["-md", smollm2, "-m", smollm2, "-mr", smollm2, "--reward-kind", "judge", "-c", "512", "-t", "1"]
    with served(*flags, "--threshold", "0.5", "-np", "2", "--alias", "talker") as server:
        call = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", tmp_path, "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*call, *SETTINGS, CLIENTS / "langchain_suite.py"],
            env=os.environ | {"RSD_URL": server.url, "RSD_MODEL": "talker"},
            capture_output=True,
            text=True,
            timeout=1200,
        )
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0 and passed is not None and int(passed[1]) >= LEAST, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
@pytest.mark.skipif(not (CLIENTS / "node_modules" / "ai").is_dir(), reason="npm install --prefix tests/clients was not run")
def test_the_ai_sdk_chats_streams_counts_reads_errors_and_aborts(tmp_path: Path) -> None:
    with served() as abacus, served(*endless_flags(tmp_path), "--alias", "endless") as endless:
        call = ["node", CLIENTS / "ai_sdk.mjs", abacus.url, "abacus", QUESTION, endless.url, "endless"]
        done = subprocess.run(call, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        endless.eventually(lambda: endless.figure("rsd_running") == 0, 2)
        assert endless.figure("rsd_clients_gone_total") == 1
    seen = json.loads(done.stdout.splitlines()[-1])
    for kind in ("whole", "stream"):
        usage = seen[kind]["usage"]
        assert seen[kind]["text"] == ANSWER and seen[kind]["finish"] == "stop" and usage["outputTokens"] == 36
        assert usage["totalTokens"] == usage["inputTokens"] + 36
    assert seen["completion"]["finish"] == "stop" and seen["completion"]["usage"]["outputTokens"] == 1, "a script ends behind other words"
    assert seen["stream"]["pieces"] >= 3
    assert seen["error"]["status"] == 404 and "gpt-4o" in seen["error"]["message"] and not seen["error"]["retryable"]
    assert seen["aborted"]["signal"] and seen["aborted"]["length"] > 20
