"""The shape of the package: an import never points up, and llama.cpp has one door."""

from __future__ import annotations

import ast
from pathlib import Path

import rsd_local

ROOT = Path(rsd_local.__file__).parent
FLOORS = [
    {"errors"},
    {"config", "answers", "hashes", "steps"},
    {"events", "prompt", "segments", "gguf_header"},
    {"roles", "toml_settings", "abacus"},
    {"runtime", "catalogue"},
    {"rewards", "fit", "decoding"},
    {"open_trio", "admission", "run"},
    {"reasoner"},
    {"evaluation"},
    {"bench", "calibration"},
    {"cli"},
]


def module_of(name: str) -> str:
    return name.split(".")[1] if name.count(".") else ""


def imports(path: Path) -> set[str]:
    """Everything that a file imports, at whatever place in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= (
                {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)} if node.module == "rsd_local" else {node.module}
            )
    return found


def test_no_import_points_up() -> None:
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    seen = set()
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        seen.add(own)
        for name in imports(path):
            if name.startswith("rsd_local."):
                other = module_of(name)
                assert other == own or floor[other] < floor[own], f"{path.relative_to(ROOT)} imports {name}"
    assert {"runtime", "rewards", "decoding", "reasoner", "cli"} <= seen


def test_only_the_runtime_imports_llama_cpp() -> None:
    users = {
        path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py") if any(name.split(".")[0] == "llama_cpp" for name in imports(path))
    }
    assert users == {"runtime"}


def test_the_algorithms_touch_no_clock_and_no_output() -> None:
    for path in (ROOT / "decoding").glob("*.py"):
        assert not imports(path) & {"time", "logging", "click", "sys", "llama_cpp"}, path.name
        assert "print(" not in path.read_text(encoding="utf-8"), path.name


def test_every_public_name_is_there_and_documented() -> None:
    for name in rsd_local.__all__:
        assert getattr(rsd_local, name).__doc__ or name == "__version__", name
