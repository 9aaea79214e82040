"""Whether what code imports is there, found without importing any of it. What cannot be known counts as there."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Literal

from rsd_local.programs.asked import binds_unseen, defined_names
from rsd_local.programs.syntax import statements

Found = ModuleType | ModuleSpec | Literal["missing", "unknown"]
"""A module that is loaded here, where another one is, or that it is nowhere, or that nobody can say."""

_CONDITIONS = {"version_info", "platform", "implementation", "TYPE_CHECKING"}  # what decides about imports for other systems
_MAKES_MODULES = {"modules", "meta_path", "__path__", "__dict__", "__getattr__"}
_MOST = 1 << 20  # bytes of a source that is read


def imports_exist(tree: ast.AST) -> bool:
    """Whether the modules and names that code imports are there.

    Args:
        tree: of the code. What it only tries to import, and what a version or a system decides about, may be missing.
    """
    return all(_is_there(node) for node in _imports(tree))


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not (isinstance(node, ast.Try | ast.TryStar) and node.handlers) and not (isinstance(node, ast.If) and _depends(node.test)):
            waiting += ast.iter_child_nodes(node)


def _depends(test: ast.expr) -> bool:
    words = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(test)}
    return not words.isdisjoint(_CONDITIONS) or {"os", "name"} <= words


def _is_there(node: ast.Import | ast.ImportFrom) -> bool:
    if isinstance(node, ast.Import):
        return all(_find(alias.name) != "missing" for alias in node.names)
    if node.level or not node.module:
        return True
    found = _find(node.module)
    if isinstance(found, str):
        return found == "unknown"
    known = _names(found)
    wanted = [alias.name for alias in node.names if alias.name != "*" and not alias.name.startswith("__")]
    return known is None or all(name in known or _find(f"{node.module}.{name}") != "missing" for name in wanted)


def _find(name: str) -> Found:
    """A module by its full name; those above it are not imported either."""
    parts, found = name.split("."), None
    for count in range(1, len(parts) + 1):
        found = _loaded(one := ".".join(parts[:count])) or _elsewhere(one, found)
    assert found is not None
    return found


def _loaded(name: str) -> Found | None:
    """A module that is loaded here; what is no plain one may load others when it is asked for names."""
    loaded = sys.modules.get(name)
    return None if loaded is None else loaded if type(loaded) is ModuleType and name != "__main__" else "unknown"


def _elsewhere(name: str, above: Found | None) -> Found:
    """A module that is not loaded, with what was found above it."""
    try:
        if above is not None:
            return _below(above, name)
        found = importlib.util.find_spec(name)
    except Exception:  # of whatever looks for modules here: it is there, and cannot say what it is
        return "unknown"
    return found or ("unknown" if name in sys.stdlib_module_names else "missing")  # a module of Python's for another system


def _below(parent: Found, name: str) -> Found:
    """A module of a package."""
    if isinstance(parent, str):
        return parent
    path = parent.submodule_search_locations if isinstance(parent, ModuleSpec) else vars(parent).get("__path__")
    if path is not None and not list(path):
        return "unknown"  # it finds its modules itself
    for finder in sys.meta_path if path is not None else ():
        if (found := finder.find_spec(name, path)) is not None:
            return found
    return "missing" if isinstance(parent, ModuleType) or _names(parent) is not None else "unknown"


def _names(found: ModuleType | ModuleSpec) -> frozenset[str] | None:
    """The names of a module, None where it may have others."""
    if isinstance(found, ModuleSpec):
        if found.origin is None and found.submodule_search_locations is not None:
            return frozenset()  # a folder without a module of its own
        return _source_names(found.origin) if found.has_location and found.origin and found.origin.endswith(".py") else None
    being_loaded = getattr(found.__spec__, "_initializing", False)
    return None if being_loaded or "__getattr__" in vars(found) else frozenset(vars(found))


def _source_names(path: str) -> frozenset[str] | None:
    try:
        content = Path(path).read_bytes()
    except OSError:
        return None
    return _names_in(content) if len(content) <= _MOST else None


@lru_cache(256)
def _names_in(source: bytes) -> frozenset[str] | None:
    try:
        tree = statements(importlib.util.decode_source(source))
    except (SyntaxError, ValueError):
        return None
    if tree is None or binds_unseen(tree):
        return None
    names = set(defined_names(tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            names |= set(node.names)
        elif getattr(node, "attr", getattr(node, "id", "")) in _MAKES_MODULES:
            return None
    return None if "__getattr__" in names else frozenset(names)
