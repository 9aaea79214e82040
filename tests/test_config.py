"""Where settings come from: a flag before a variable, that before the user's file, that before the catalogue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import refused, rsd

from rsd_local import RoleConfig, Trio
from rsd_local.catalogue import models_file, user_models_file
from rsd_local.config import RewardConfig
from rsd_local.errors import ConfigError


def shown(*flags: object) -> dict[str, tuple[Any, str]]:
    done = rsd("config", *flags, "--json")
    assert done.returncode == 0, done.stderr
    return {one["name"]: (one["value"], one["source"]) for one in json.loads(done.stdout)}


def test_each_source_goes_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = str(models_file())
    first = shown()
    assert first["threshold"][1] == catalogue and first["draft.path"][1] == catalogue
    assert first["draft.ctx_size"] == (0, "default") and first["max-tokens"] == (2048, "default")
    own = user_models_file()
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("[trio.abacus]\nthreshold = 0.25\n")
    try:
        assert shown()["threshold"] == (0.25, str(own)) and shown()["task"][1] == catalogue
        monkeypatch.setenv("RSD_THRESHOLD", "0.5")
        monkeypatch.setenv("RSD_THREADS", "draft=2")
        assert shown()["threshold"] == (0.5, "variable RSD_THRESHOLD")
        assert shown()["draft.threads"] == (2, "variable RSD_THREADS") and shown()["target.threads"] == (1, catalogue)
        both = shown("--threshold", "0.75", "-t", "2")
        assert both["threshold"] == (0.75, "flag --threshold") and both["target.threads"] == (2, "flag --threads")
        solved = json.loads(rsd("solve", "1+1", "--json").stdout)
        assert solved["answer"] == "2"
        for variable, value in (("RSD_THRESHOLD", "much"), ("RSD_THREADS", "draft=many")):
            monkeypatch.setenv(variable, value)
            refused(told := rsd("solve", "1+1"), 2, variable, value.removeprefix("draft="))
            assert "--thre" not in told.stderr, "a flag that nobody typed"
            monkeypatch.delenv(variable)
    finally:
        own.unlink()
    table = rsd("config").stdout
    assert any(line.startswith("threshold ") and line.endswith(catalogue) for line in table.splitlines())


def test_the_files_of_a_cascade_are_shown_and_another_verifier_leaves_those_of_the_first(tmp_path: Path) -> None:
    models = '[draft]\npath = "d.gguf"\n[target]\npath = "t.gguf"\n'
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(f'reward_kind = "verifier"\nverifier = "python-tests"\ntests = "t.py"\n{models}')
    two.write_text(f'[[reward]]\nkind = "verifier"\nverifier = "python-tests"\ntests = "t.py"\n[[reward]]\nkind = "confidence"\n{models}')
    assert shown("--trio", one)["tests"][0] == str(tmp_path / "t.py")
    other = shown("--trio", one, "--verifier", "arithmetic")
    assert (other["verifier"][0], other["tests"][0]) == ("arithmetic", None)
    assert shown("--trio", two)["rewards"][0][0]["tests"] == str(tmp_path / "t.py")


@pytest.mark.parametrize("role", ["draft", "target", "reward"])
@pytest.mark.parametrize("given", ["model.gguf", Path("model.gguf"), 3])
def test_a_path_alone_is_no_model_and_the_error_says_what_is(role: str, given: Any) -> None:
    models: dict[str, Any] = {"draft": RoleConfig(Path("d.gguf")), "target": RoleConfig(Path("t.gguf")), role: given}
    with pytest.raises(ConfigError, match=f"{role} .* is no model") as failed:
        Trio(**models)
    assert "RoleConfig(path)" in failed.value.hint
    with pytest.raises(ConfigError, match="reward .* is no model"):
        RewardConfig("judge", given)
