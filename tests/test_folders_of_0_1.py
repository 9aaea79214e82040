"""Folders that 0.1 wrote can be gone on with, and nothing else that differs slips through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench_support import run_fake, sums

from rsd_local.errors import ConfigError

SPECS = ["rsd", "majority:samples=4"]
LATER = {
    "sampling": ("repeat_penalty", "presence_penalty", "frequency_penalty", "penalty_last_n"),
    "weighting": ("redrafts", "hand_over", "unchecked"),
    "limits": ("stop", "stop_after"),
    "search": ("retries",),
}
TRIO_LATER = (
    *("strategy", "delimiter", "reuse", "verifier", "tests", "schema", "code_file", "rewards"),
    *("unchecked", "stop_after", "redrafts", "retries", "on_verifier_error"),
)


def as_0_1_wrote_it(folder: Path, **changes: Any) -> None:
    """The folder with the configuration that 0.1 has for the same bench, and half of its lines."""
    written = json.loads((folder / "config.json").read_text())
    config = written["config"]
    config["versions"]["rsd-local"] = "0.1.0"
    for key in TRIO_LATER:
        del config["trio"][key]
    for role in ("draft", "target", "reward"):
        config["trio"][role]["engines"] = 1
        del config["trio"][role]["sha256"]
    for params in config["strategies"].values():
        for group, names in LATER.items():
            for name in names:
                del params[group][name]
    config["trio"] |= changes
    (folder / "config.json").write_text(json.dumps(written))
    lines = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    (folder / "results.jsonl").write_text("".join(lines[: len(lines) // 2]))


def test_a_folder_of_0_1_is_gone_on_with(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", SPECS, sums(6), reuse=False)
    as_0_1_wrote_it(tmp_path / "out")
    run_fake(tmp_path / "out", SPECS, sums(6), resume=True, reuse=False)
    rows = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and len({(row["id"], row["strategy"]) for row in rows}) == 12


@pytest.mark.parametrize("changes", [{"threshold": 0.9}, {"delimiter": "line"}, {"strategy": "beam"}])
def test_a_folder_of_0_1_with_other_settings_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    run_fake(tmp_path / "out", SPECS, sums(6), reuse=False)
    as_0_1_wrote_it(tmp_path / "out", **changes)
    with pytest.raises(ConfigError, match=f"trio.{next(iter(changes))} is"):
        run_fake(tmp_path / "out", SPECS, sums(6), resume=True, reuse=False)


def test_a_bench_that_goes_on_from_cached_prefixes_is_not_that_of_0_1(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", SPECS, sums(6), reuse=True)
    as_0_1_wrote_it(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"trio\.reuse is False there and True here"):
        run_fake(tmp_path / "out", SPECS, sums(6), resume=True, reuse=True)
