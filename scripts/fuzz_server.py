"""Requests that schemathesis makes from /openapi.json, against a server with abacus.

    pip install -e '.[server,clients]'
    python scripts/fuzz_server.py --examples 2000

Fields of every type and at every edge, and some of wrong types. None may give a 5xx, a body that the description does not have, a
traceback in the log, or no answer in time; and the server must answer afterwards. Ends with 1 where one does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import click

_CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
    "unsupported_method"
)
_CALL = "import sys; from {module} import {name}; {name}({given})"
_QUESTION = "(37+48)*6-129"


@click.command()
@click.option("--examples", type=click.IntRange(min=1), default=2000, show_default=True, help="Requests, about.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds in which a request must be answered.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one object.")
def main(examples: int, seed: int, timeout: float, as_json: bool) -> None:
    """Fuzz rsd serve with abacus."""
    found = fuzz(examples, seed, timeout)
    click.echo(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    sys.exit(0 if found["fine"] else 1)


def fuzz(examples: int, seed: int, timeout: float) -> dict[str, Any]:
    """Runs schemathesis against a server of its own.

    Args:
        examples: requests, about: few of its operations have anything to vary.
        seed: of all draws.
        timeout: of a request, in seconds.

    Returns:
        How many requests were made, what schemathesis says, what of the log looks like a failure, and whether all is fine.
    """
    command = [sys.executable, "-c", _CALL.format(module="rsd_local.cli", name="main", given="sys.argv[1:]"), "serve", "--port", "0"]
    server = subprocess.Popen([*command, "--log-json", "-np", "2", "-n", "64"], stderr=subprocess.PIPE, text=True)
    log: list[str] = []
    try:
        assert server.stderr is not None
        for line in server.stderr:
            log.append(line)
            if line.startswith("ready"):
                break
        threading.Thread(target=lambda: log.extend(server.stderr or ()), daemon=True).start()
        address = re.search(r"http://\S+:\d+", "".join(log))
        if address is None:
            return {"fine": False, "log": log}
        began = time.monotonic()
        code, said = _schemathesis(address[0], examples, seed, timeout)
        seconds = time.monotonic() - began
        answered = _answers(address[0], timeout)
    finally:
        server.terminate()
        try:
            ended = server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            ended = server.wait()
    statuses = [json.loads(line).get("status") for line in log if line.startswith('{"') and '"status"' in line]
    bad = [line.rstrip() for line in log if "Traceback" in line or '"level": "error"' in line]
    fine = code == 0 and not bad and answered and ended == 0 and not any(status >= 500 or status == 0 for status in statuses)
    return {
        "fine": fine,
        "requests": len(statuses),
        "statuses": {str(status): statuses.count(status) for status in sorted(set(statuses))},
        "seconds": round(seconds, 1),
        "schemathesis": code,
        "answers_afterwards": answered,
        "exit_code": ended,
        "log": bad,
        "said": "" if code == 0 else said,
    }


def _schemathesis(url: str, examples: int, seed: int, timeout: float) -> tuple[int, str]:
    """Its exit code and output."""
    call = _CALL.format(module="schemathesis.cli", name="schemathesis", given="")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable, "-c", call, "run", f"{url}/openapi.json", "--checks", _CHECKS, "--max-examples", str(-(-examples // 3)),
                "--phases", "fuzzing" if examples < 1000 else "examples,coverage,fuzzing", "--seed", str(seed), "--no-color",
                "--request-timeout", str(timeout), "--suppress-health-check", "all", "--generation-database", "none",
                "--continue-on-failure",
            ],
            capture_output=True,
            text=True,
            cwd=folder,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "fuzz_hooks", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def _answers(url: str, timeout: float) -> bool:
    body = json.dumps({"messages": [{"role": "user", "content": _QUESTION}]}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/chat/completions", body), timeout=timeout) as response:
        return bool(json.load(response)["rsd"]["answer"] == "381")


if __name__ == "__main__":
    main()
