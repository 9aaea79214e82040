"""The shape of the package: an import never points up, and llama.cpp has one door."""

from __future__ import annotations

import ast
from pathlib import Path

import rsd_local

ROOT = Path(rsd_local.__file__).parent
FLOORS = [
    {"errors", "machine"},
    {"config", "answers", "hashes", "steps", "text_files", "json_grammar"},
    {"events", "prompt", "segments", "gguf_header"},
    {"roles", "toml_settings", "abacus"},
    {"runtime", "remote", "catalogue", "sandbox"},
    {"programs"},
    {"rewards", "fit", "decoding"},
    {"capacities"},
    {"open_trio", "admission"},
    {"run"},
    {"backend", "conversation", "in_thread"},
    {"isolated_child", "loading"},
    {"isolated"},
    {"reasoner"},
    {"evaluation"},
    {"bench"},
    {"calibration", "run_log"},
    {"server"},
    {"cli", "_pyinstaller"},
    {"__main__"},
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


def test_decoding_knows_neither_where_models_run_nor_how_to_reach_them() -> None:
    """Its protocols are all that it sees of a model: it goes with a model on another machine as it is."""
    for path in (ROOT / "decoding").glob("*.py"):
        for name in imports(path):
            assert not name.startswith(("rsd_local.runtime", "rsd_local.remote", "rsd_local.rewards", "httpx", "urllib", "socket")), (
                path.name
            )


def test_no_file_is_longer_than_a_few_screens() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in ROOT.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 350} == {}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports for types alone do not count: nothing of them is there while the program runs."""
    graph = {name_of(path): runtime_imports(path) for path in ROOT.rglob("*.py")}
    graph = {name: {other for other in others if other in graph} for name, others in graph.items()}
    assert len(graph) > 80 and sum(map(len, graph.values())) > 250
    while free := [name for name, others in graph.items() if not others]:
        for name in free:
            del graph[name]
        for others in graph.values():
            others.difference_update(free)
    assert not graph, f"a circle among {sorted(graph)}"


def name_of(path: Path) -> str:
    return ".".join(("rsd_local", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def runtime_imports(path: Path) -> set[str]:
    """The modules of the package that a file needs to be imported, those of ``TYPE_CHECKING`` and of functions left out."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rsd_local"):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inner if (ROOT.parent / name.replace(".", "/")).with_suffix(".py").exists()}
            found |= modules or {node.module}
    own = name_of(path)
    return {name for name in found if name != own and not own.startswith(f"{name}.")}


def test_only_the_runtime_imports_llama_cpp() -> None:
    users = {
        path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py") if any(name.split(".")[0] == "llama_cpp" for name in imports(path))
    }
    assert users == {"runtime"}


def test_only_remote_and_the_hub_import_an_http_client() -> None:
    def users(*clients: str) -> set[str]:
        return {path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py") if imports(path) & {*clients}}

    assert users("httpx", "requests", "aiohttp") == {"remote"}
    assert users("urllib.request", "http.client") <= {"catalogue", "bench"}


def test_the_algorithms_touch_no_clock_and_no_output() -> None:
    for path in (ROOT / "decoding").glob("*.py"):
        assert not imports(path) & {"time", "logging", "click", "sys", "llama_cpp"}, path.name
        assert "print(" not in path.read_text(encoding="utf-8"), path.name


def test_every_public_name_is_there_and_documented() -> None:
    for name in rsd_local.__all__:
        assert getattr(rsd_local, name).__doc__ or name == "__version__", name
