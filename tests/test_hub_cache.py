"""Where the hub's files lie is found without the hub's library: only who asks the hub loads it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import environment
from tiny import write_model

CACHE = "import json, sys; from rsd_local.catalogue.cache import hub_cache, is_offline; said = str(hub_cache()), is_offline();\n"
LIBRARY = "import huggingface_hub.constants as c; theirs = str(__import__('pathlib').Path(c.HF_HUB_CACHE)), c.HF_HUB_OFFLINE;\n"
SOLVE = """
import sys
from rsd_local.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(end.code, file=sys.stderr)
print(*sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""
SETTINGS: list[dict[str, str]] = [
    {},
    {"HF_HOME": "/data/hf"},
    {"HF_HOME": "~/hf", "HF_HUB_OFFLINE": "1"},
    {"XDG_CACHE_HOME": "/data/cache", "HF_HUB_OFFLINE": "on"},
    {"XDG_CACHE_HOME": ""},
    {"HUGGINGFACE_HUB_CACHE": "$HOME/old", "TRANSFORMERS_OFFLINE": "true"},
    {"HF_HUB_CACHE": "~/$USER/cache", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/data/hf", "HF_HUB_OFFLINE": "0"},
    {"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "YES"},
    {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
]


def test_cache_and_offline_are_those_of_the_hubs_own_library() -> None:
    """Each setting in a process of its own, in which the library reads it."""
    names = set(itertools.chain.from_iterable(SETTINGS))
    plain = {name: value for name, value in os.environ.items() if name not in names} | {"USER": "me"}
    calls = [
        subprocess.Popen([sys.executable, "-c", CACHE + LIBRARY + "print(json.dumps([said, theirs]))"], env=plain | settings, stdout=-1)
        for settings in SETTINGS
    ]
    for call, settings in zip(calls, SETTINGS, strict=True):
        ours, theirs = json.loads(call.communicate(timeout=120)[0])
        assert ours == theirs, settings
    assert len(calls) == len(SETTINGS)


@pytest.fixture
def cached(tmp_path: Path) -> dict[str, str]:
    """The settings of a machine with a trio of tiny models in the hub's cache."""
    folder = tmp_path / "hub" / "hub" / "models--me--tiny" / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    own = tmp_path / "config" / "rsd" / "models.toml"
    own.parent.mkdir(parents=True)
    entry = '[model.{0}]\nrepo = "me/tiny"\nfile = "{0}.gguf"\ngigabytes = 0.1\nlicence = "mit"\ncontext = 512\n'
    trio = '[trio.tiny]\ndraft.model = "d"\ntarget.model = "t"\nreward.model = "r"\n'
    own.write_text("".join(entry.format(name) for name in "dtr") + trio)
    for seed, name in enumerate("dtr"):
        write_model(folder / f"{name}.gguf", seed=seed)
    return environment({"HF_HOME": str(tmp_path / "hub"), "XDG_CONFIG_HOME": str(tmp_path / "config")})


@pytest.mark.parametrize("arguments", [["solve", "What?", "--trio", "tiny"], ["solve", "1+2", "--trio", "abacus"], ["list"], ["doctor"]])
def test_models_that_are_here_are_found_without_the_hubs_library(cached: dict[str, str], arguments: list[str]) -> None:
    limits = ["-n", "20", "-c", "400", "--threads", "1"] if arguments[0] == "solve" else []
    done = subprocess.run([sys.executable, "-c", SOLVE, *arguments, *limits], env=cached, capture_output=True, text=True, timeout=120)
    *_, code, loaded = done.stderr.splitlines()
    assert code == "0" and done.stdout, done.stderr
    assert not {"huggingface_hub", "httpx", "requests", "tqdm"} & set(loaded.split())
