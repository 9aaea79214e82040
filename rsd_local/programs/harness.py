"""Runs code that a model wrote against its checks. It runs inside the sandbox, by path, and imports nothing of this package.

Its job comes as JSON on standard input; what passed goes out over a pipe, whose number is its argument. Passing is a secret that only
this file writes, one for each check and one behind the last: code that prints, exits, raises, closes or floods file descriptors never
does. The checks run apart from the code: their builtins, modules and helpers are those from before it ran, and each ``==`` in them is
rewritten to a comparison of this file, which never asks a class of the code's own whether it equals a plain value. Only the classes
that the prompt defines are the same for both, since the code is given their objects and gives them back.

What it does not stop: code that was written to search the memory of its own process, through the interpreter's frames, the garbage
collector or ``ctypes``, finds the secrets. Models do not write that by chance; nobody should train one against this file.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import math
import operator
import os
import signal
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsd_local.programs.comparison import Comparison, is_of  # in the sandbox both files run in one namespace

_PROMPT = "prompt"  # the module of the prompt's code
SOLUTION = "solution"  # the module's name: not __main__, whose guarded part is for people
_SIGNS: dict[type[ast.AST], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>", ast.MatMult: "@",
}  # fmt: skip


class _TimeUp(BaseException):
    """A check has had its time."""


class _Rewrite(ast.NodeTransformer):
    """Comparisons, arithmetic and conditions of the checks become calls of this file."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        signs = ast.Tuple([ast.Constant(_SIGNS[type(sign)]) for sign in node.ops], ast.Load())
        return _call("_rsd_compare_", node, signs, node.left, *node.comparators)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return _call("_rsd_binary_", node, ast.Constant(_SIGNS[type(node.op)]), node.left, node.right)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        node.values = [_call("_rsd_truth_", value, value) for value in node.values]
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not):
            node.operand = _call("_rsd_truth_", node.operand, node.operand)
        return node

    def _condition(self, node: Any) -> Any:
        self.generic_visit(node)
        node.test = _call("_rsd_truth_", node.test, node.test)
        return node

    visit_Assert = visit_If = visit_While = visit_IfExp = _condition


def _call(name: str, place: ast.AST, *arguments: ast.expr) -> ast.expr:
    return ast.copy_location(ast.Call(ast.Name(name, ast.Load()), list(arguments), []), place)


class Run:
    """One job: the code, then its checks.

    Args:
        job: ``preamble``, ``blocks`` (code, needed), ``cases`` (source, expected, setup, printed, token), ``names``,
            ``begin``, ``end``, ``why`` and ``seconds``.
        pipe: the number of the file descriptor to report to.
    """

    def __init__(self, job: dict[str, Any], pipe: int) -> None:
        self._job, self._pipe = job, pipe
        self._begun, self._clock, self._write, self._exit = time.monotonic(), time.monotonic, os.write, os._exit
        self._timer = getattr(signal, "setitimer", None)
        self._signal, self._alarm, self._real_time = signal.signal, getattr(signal, "SIGALRM", None), getattr(signal, "ITIMER_REAL", 0)
        # Not with the globals of this file, which a look at the signal's handler would show.
        self._stop = types.FunctionType(_stop.__code__, {"_TimeUp": _TimeUp})
        self._quiet = [sys.settrace, sys.setprofile]
        self._builtins = dict(vars(builtins))
        self._told = False
        self._say(job["begin"])
        self._preamble = self._preamble_names()
        for block in job["blocks"]:
            self._import(block["code"])
        self._compiled = [self._compile(case) for case in job["cases"]]
        self._real: dict[str, types.ModuleType] = {}
        for name in {name for _, _, used in self._compiled for name in used} & sys.stdlib_module_names - set(job["names"]):
            with contextlib.suppress(ImportError):
                self._real[name] = __import__(name)
        modules = [builtins, math, operator, *self._real.values()]
        modules += [part for part in self._preamble.values() if isinstance(part, types.ModuleType)]
        self._modules = [(vars(module), dict(vars(module))) for module in modules]
        own = [one for one in self._preamble.values() if is_of(one, type) and type.__dict__["__module__"].__get__(one) == _PROMPT]
        self._classes = [(one, {name: value for name, value in vars(one).items() if callable(value)}) for one in own]
        self._comparison = Comparison()

    def run(self) -> None:
        """Runs all, and ends the process."""
        sys.stdout, sys.stderr = _text_file(BytesIO()), _text_file(BytesIO())
        names = self._solution()
        if names is not None:
            for place, case in enumerate(self._job["cases"]):
                self._check(case, self._compiled[place], names, place + 1 == len(self._job["cases"]))
            self._say(self._job["end"])
        self._exit(0)

    def _solution(self) -> dict[str, Any] | None:
        """Runs the code; its names, None where a part that is needed failed."""
        module = types.ModuleType(SOLUTION)
        module.__dict__["__builtins__"] = builtins
        sys.modules[SOLUTION] = sys.modules["__main__"] = module
        # Once more, not the checks' own functions: the code may exchange what is in these. But its classes are the checks' own.
        module.__dict__.update(self._preamble_names({name: value for name, value in self._preamble.items() if is_of(value, type)}))
        for block in self._job["blocks"]:
            try:
                code = compile(block["code"], "<solution>", "exec", dont_inherit=True)
                self._limited(partial(exec, code, module.__dict__), False)
            except BaseException as error:  # SystemExit and KeyboardInterrupt are no way to pass
                if block["needed"]:
                    self._tell("the code", error)
                    return None
        builtin = self._builtins.keys() - set(self._job["names"])
        kept = {name: value for name, value in dict(module.__dict__).items() if name not in builtin and not name.startswith("__")}
        return kept | {name: value for name, value in self._preamble.items() if not self._is_codes(name, value, kept)}

    def _is_codes(self, name: str, value: Any, kept: dict[str, Any]) -> bool:
        """Whether checks take a name of the prompt from the code: what it was asked for, and a class that it has written once more."""
        return name in self._job["names"] or (is_of(value, type) and is_of(kept.get(name), type))

    def _check(self, case: dict[str, Any], parts: tuple[Any, Any, set[str]], names: dict[str, Any], last: bool) -> None:
        compared = self._comparison
        setup, code, mentioned = parts
        # A check that says math.isclose means the library's, also where its own import is left out.
        scope = names | {name: module for name, module in self._real.items() if name in names and name not in self._preamble}
        scope |= {"__builtins__": dict(self._builtins), "__name__": "checks", "_rsd_compare_": self._compare,
                  "_rsd_binary_": compared.binary, "_rsd_truth_": compared.truth}  # fmt: skip
        compared.allowed = [value for name, value in names.items() if name in mentioned and is_of(value, type)]
        written = BytesIO()
        sys.stdout = _text_file(written)
        try:
            self._restore()
            value = self._limited(lambda: self._evaluate(setup, code, scope), last)
            self._restore()
            if isinstance(code, Exception) or not self._passes(case, value, written):
                raise AssertionError(f"gave {self._shown(value)}, not {case['expected']}")
            self._say(case["token"])
        except BaseException as error:
            self._tell(case["source"], error)

    def _evaluate(self, setup: Any, code: Any, scope: dict[str, Any]) -> Any:
        if isinstance(code, Exception):
            raise code
        exec(setup, scope)
        return eval(code, scope)

    def _passes(self, case: dict[str, Any], value: Any, written: BytesIO) -> bool:
        if case["expected"] is None:
            return True
        output = "" if written.closed else written.getvalue().decode("utf-8", "replace")
        if case["printed"]:
            shown = "".join((output, "" if value is None else repr(value)))  # joined, a text is a plain one
            return _lines(shown) == _lines(case["expected"])
        expected = eval(case["expected"], {"__builtins__": dict(self._builtins)})
        if value is None and expected is not None:
            return bool(output) and _lines(output) in (_lines(case["expected"]), _lines(str(expected)))
        return bool(self._comparison.same(value, expected, near=True))

    def _compare(self, signs: tuple[str, ...], *values: Any) -> Any:
        self._restore()
        return self._comparison.compare(signs, *values)

    def _restore(self) -> None:
        """Undoes what the code changed where the checks look."""
        for setter in self._quiet:
            setter(None)
        for now, before in self._modules:
            now.update(before)
        for kind, before in self._classes:
            for name in before.keys() | {"__eq__", "__ne__"} & vars(kind).keys():
                if name not in before:
                    type.__delattr__(kind, name)
                elif vars(kind).get(name) is not before[name]:
                    type.__setattr__(kind, name, before[name])

    def _limited(self, call: Callable[[], Any], last: bool) -> Any:
        left = self._job["seconds"] - (self._clock() - self._begun)
        if self._timer is None or self._alarm is None:
            return call()
        self._signal(self._alarm, self._stop)
        self._timer(self._real_time, max(0.05, left if last else left / 2))
        try:
            return call()
        finally:
            self._timer(self._real_time, 0)

    def _say(self, secret: str) -> None:
        self._write(self._pipe, f"\n{secret}\n".encode())

    def _tell(self, what: str, error: BaseException) -> None:
        """Says why, once: for people, and believed by nobody."""
        if self._told:
            return
        self._told = True
        with contextlib.suppress(BaseException):
            said = "took too long" if isinstance(error, _TimeUp) else f"{type(error).__name__}: {error}".rstrip(": ")
            line = json.dumps(f"{' '.join(what.split())[:100]}: {' '.join(said.split())[:200]}")
            self._say(f"{self._job['why']}{line}")

    def _shown(self, value: Any) -> str:
        plain = any(type(value) is kind for kind in (int, float, str, bool, list, tuple, dict, set, type(None)))
        return repr(value)[:100] if plain else type.__dict__["__name__"].__get__(type(value))

    def _preamble_names(self, classes: dict[str, Any] | None = None) -> dict[str, Any]:
        """The names of the prompt's code.

        Args:
            classes: those of them that are there already.
        """
        scope: dict[str, Any] = {"__builtins__": dict(self._builtins), "__name__": _PROMPT, **(classes or {})}
        with contextlib.suppress(BaseException):
            for node in ast.parse(self._job["preamble"]).body:
                if classes and (_names(node) & classes.keys()):
                    continue
                with contextlib.suppress(BaseException):
                    exec(compile(ast.Module([node], []), "<prompt>", "exec", dont_inherit=True), scope)
        return {name: value for name, value in scope.items() if not name.startswith("__")}

    def _import(self, code: str) -> None:
        """Imports what the code imports before it can change anything, so that those classes are known."""
        with contextlib.suppress(BaseException):
            for node in ast.walk(ast.parse(code)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
                for name in names:
                    with contextlib.suppress(BaseException):
                        __import__(name)

    def _compile(self, case: dict[str, Any]) -> tuple[Any, Any, set[str]]:
        try:
            setup = ast.parse(case["setup"])
            tree: Any = ast.parse(case["source"], mode="exec" if case["expected"] is None and not case["printed"] else "eval")
            parts = [*ast.walk(setup), *ast.walk(tree)]
            bound = {part.id for part in parts if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load)}
            bound |= {part.arg for part in parts if isinstance(part, ast.arg)}
            used = {part.id for part in parts if isinstance(part, ast.Name)} - bound
            rewritten = [ast.fix_missing_locations(_Rewrite().visit(one)) for one in (setup, tree)]
            return (
                compile(rewritten[0], "<setup>", "exec", dont_inherit=True),
                compile(rewritten[1], "<check>", "exec" if isinstance(tree, ast.Module) else "eval", dont_inherit=True),
                used,
            )
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # one check that is nested too deeply fails alone
            return None, error, set()


def _names(node: ast.stmt) -> set[str]:
    """The names that a class statement or an assignment binds."""
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {node.name} if isinstance(node, ast.ClassDef) else set()


def _stop(*_: object) -> None:
    raise _TimeUp


def _text_file(written: BytesIO) -> TextIOWrapper:
    """A file of text as standard output is one, with a buffer below it."""
    return TextIOWrapper(written, "utf-8", "replace", "", write_through=True)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().split("\n")]


def main() -> None:
    """Reads the job and runs it."""
    job, pipe = json.loads(sys.stdin.buffer.read()), int(sys.argv[1])
    if sys.platform == "win32":
        import msvcrt

        pipe = msvcrt.open_osfhandle(pipe, os.O_WRONLY)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.argv = [SOLUTION]
    sys.dont_write_bytecode = True
    Run(job, pipe).run()


if __name__ == "__main__":
    # Once more, with builtins of its own, that no code can exchange.
    _scope: dict[str, Any] = {"__builtins__": dict(vars(builtins)), "__name__": "harness"}
    for _path in (os.path.join(os.path.dirname(os.path.abspath(__file__)), "comparison.py"), __file__):
        with open(_path, encoding="utf-8") as _file:
            exec(compile(_file.read(), "harness", "exec", dont_inherit=True), _scope)
    _scope["main"]()
