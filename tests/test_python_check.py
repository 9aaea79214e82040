"""Checks of Python code: what passes, what does not, and what tries to pass without being right."""

from __future__ import annotations

import time

import pytest

from rsd_local.programs.check import Verdict, check_python
from rsd_local.programs.example import Example
from rsd_local.sandbox import Bounds, Sandbox

SQUARE = (
    Example("square(3)", "9", names=("square",)),
    Example("assert square(-2) == 4", names=("square",)),
    Example("assert abs(square(1.5) - 2.25) < 1e-6", names=("square",)),
    Example("assert square(2) in [3, 4]", names=("square",)),
)
RIGHT = "def square(x):\n    return x * x\n"
EVIL = "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n"


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox.find()


def check(sandbox: Sandbox, *code: str, examples: tuple[Example, ...] = SQUARE, seconds: float = 20.0, **more: object) -> Verdict:
    return check_python(code, examples, sandbox, bounds=Bounds(seconds=seconds), **more)  # type: ignore[arg-type]


def values(*pairs: tuple[str, str]) -> tuple[Example, ...]:
    return tuple(Example(source, expected, names=("f",)) for source, expected in pairs)


def test_right_code_passes_and_wrong_code_passes_in_part(sandbox: Sandbox) -> None:
    right = check(sandbox, RIGHT)
    assert (right.passed, right.total, right.complete, right.error) == (4, 4, True, "")
    wrong = check(sandbox, "def square(x):\n    return 4\n")
    assert (wrong.passed, wrong.results, wrong.complete) == (2, (False, True, False, True), False)
    assert wrong.error == "square(3): AssertionError: gave 4, not 9"


@pytest.mark.parametrize(
    "cheat",
    [
        "print('passed'); print(4)",
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "raise KeyboardInterrupt",
        "def square(x):\n    raise SystemExit(0)",
        "def square(x):\n    raise KeyboardInterrupt",
        "def square(x):\n    import os\n    os._exit(0)",
        f"{EVIL}def square(x):\n    return Any(7)",
        "class Any:\n    def __eq__(self, other): return True\n    def __sub__(self, other): return 0\n    def __abs__(self): return 0\n"
        "    def __lt__(self, other): return True\ndef square(x):\n    return Any()",
        "class Meta(type):\n    def __eq__(self, other): return True\n"
        "    __hash__ = type.__hash__\n    def __sub__(self, other): return 0\n"
        "class Any(metaclass=Meta): pass\ndef square(x):\n    return Any",
        "class Any(float):\n    def __sub__(self, other): return 0\n    def __eq__(self, other): return True\n"
        "def square(x):\n    return Any(1)",
        "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.all = lambda x: True\nbuiltins.AssertionError = ValueError\n"
        "def square(x):\n    return 0",
        "abs = lambda x: 0\nall = any = lambda x: True\nclass AssertionError(Exception): pass\ndef square(x):\n    return 0",
        "import operator, math\noperator.sub = operator.lt = operator.eq = lambda *x: 0\nmath.isclose = lambda *x, **y: True\n"
        "def square(x):\n    return 0",
        "def square(x):\n    import builtins\n    builtins.eval = builtins.exec = builtins.type = builtins.isinstance = lambda *x: True",
        "import atexit, os\natexit.register(lambda: os._exit(0))\ndef square(x):\n    return 0",
        "import threading, time\ndef wait():\n    try:\n        time.sleep(0.2)\n    finally:\n        __import__('os')._exit(0)\n"
        "threading.Thread(target=wait).start()\ndef square(x):\n    return 0",
        "import os\nfor number in range(3, 64):\n    try:\n        os.close(number)\n    except OSError:\n        pass\n"
        "def square(x):\n    return x * x",
        "import os\nfor number in range(64):\n    try:\n        os.write(number, b'passed\\n' * 100)\n    except OSError:\n        pass\n"
        "def square(x):\n    return 0",
        "import sys\nsys.modules['__main__'].__dict__.clear()\nimport __main__\n__main__.Comparison = None\ndef square(x):\n    return 0",
        "import sys\nsys.settrace(lambda *x: None)\nsys.setprofile(lambda *x: None)\ndef square(x):\n    return 0",
        "import signal\nhandler = signal.getsignal(signal.SIGALRM)\nhandler.__globals__['Comparison'].same = lambda *x: True\n"
        "def square(x):\n    return 0",
        "import sys\ntype(sys.stdout).write.__globals__['Comparison'].same = lambda *x: True\ndef square(x):\n    return 0",
        "import json\njson.loads = json.dumps = None\ndef square(x):\n    return NotImplemented",
    ],
)
def test_code_that_is_not_right_does_not_pass_whatever_it_does(sandbox: Sandbox, cheat: str) -> None:
    verdict = check(sandbox, cheat)
    assert not verdict.complete and verdict.passed < 4
    assert not verdict.results[0], "nothing here gives 9 or is allowed to say so"


def test_what_a_check_calls_from_the_prompt_is_the_prompts_own(sandbox: Sandbox) -> None:
    """A check through a helper of the prompt cannot be passed by exchanging the helper or the module that it uses."""
    preamble = "import math\ndef value(x):\n    return x * x - 4\n"
    checks = (Example("assert math.fabs(value(root())) < 1e-4", names=("root",)), Example("assert math.fabs(value(root())) < 1e-4"))
    assert check(sandbox, "def root():\n    assert value(3) == 5\n    return 2", examples=checks, preamble=preamble).complete
    for cheat in (
        "def value(x): return 0\ndef root(): return 9",
        "value.__code__ = (lambda x: 0).__code__\ndef root(): return 9",
        "math.fabs = lambda x: 0\ndef root(): return 9",
        "def root():\n    math.fabs = lambda x: 0\n    return 9",
    ):
        assert check(sandbox, cheat, examples=checks, preamble=preamble).passed == 0, cheat


def test_a_library_that_a_check_names_is_the_library(sandbox: Sandbox) -> None:
    checks = (Example("assert math.isclose(root(), 2.0)", names=("root",)),)
    assert check(sandbox, "import math\ndef root(): return math.sqrt(4)", examples=checks).complete
    assert not check(sandbox, "class math:\n    isclose = lambda *x: True\ndef root(): return 7", examples=checks).complete
    assert not check(sandbox, "import math\nmath.isclose = lambda *x: True\ndef root(): return 7", examples=checks).complete
    called = (Example("assert select([1]) == 1", names=("select",)),)
    assert check(sandbox, "def select(x): return x[0]", examples=called).complete, "a function named like a module"


@pytest.mark.parametrize(
    ("code", "expected", "passes"),
    [
        ("1", "True", True),
        ("1.0", "1", True),
        ("0.1 + 0.2", "0.3", True),
        ("0.31", "0.3", False),
        ("(1, 2)", "[1, 2]", False),
        ("[1, [2, 3.0]]", "[1, [2, 3]]", True),
        ("'1'", "1", False),
        ("None", "None", True),
        ("[]", "None", False),
        ("10**9 + 1", "1000000000", False),
        ("1e9 + 1", "1000000000", True),
        ("0", "None", False),
        ("float('nan')", "0.0", False),
        ("collections.Counter('aab')", "{'a': 2, 'b': 1}", True),
        ("collections.OrderedDict(a=1)", "{'a': 1}", True),
        ("collections.defaultdict(list, a=[1])", "{'a': [1]}", True),
        ("collections.namedtuple('P', 'x y')(1, 2)", "(1, 2)", True),
        ("fractions.Fraction(1, 2)", "0.5", True),
        ("{'a': [1, (2, {3})]}", "{'a': [1, (2, {3})]}", True),
        ("{'a': [1, (2, {4})]}", "{'a': [1, (2, {3})]}", False),
        ("{1: 2}.items()", "[(1, 2)]", False),
        ("enum.IntEnum('E', 'A').A", "1", True),
    ],
)
def test_values_are_compared_as_python_does(sandbox: Sandbox, code: str, expected: str, passes: bool) -> None:
    assert (
        check(sandbox, f"import collections, enum, fractions\ndef f():\n    return {code}", examples=values(("f()", expected))).complete
        is passes
    )


def test_a_class_that_equals_everything_is_refused_wherever_it_hides(sandbox: Sandbox) -> None:
    code = "class Any:\n    def __eq__(self, other): return True\n    def __hash__(self): return hash(1)\nanything = Any()\n"
    for value, expected in (("[anything]", "[1]"), ("(1, anything)", "(1, 2)"), ("{'a': anything}", "{'a': 1}"), ("{anything}", "{1}")):
        checks = (*values(("f()", expected)), Example(f"assert f() == {expected}", names=("f",)))
        assert check(sandbox, f"{code}def f():\n    return {value}", examples=checks).passed == 0, value
    truths = (Example("assert f()", names=("f",)), Example("assert not f()", names=("f",)), Example("assert f() or 0", names=("f",)))
    assert check(sandbox, f"{code}Any.__bool__ = lambda self: True\ndef f():\n    return anything", examples=truths).passed == 0


@pytest.mark.parametrize(
    ("imports", "value", "expected"),
    [
        ("from unittest.mock import ANY", "ANY", "9"),
        ("import weakref", "weakref.proxy(anything)", "9"),
        ("from types import MappingProxyType", "MappingProxyType(Dict())", "{1: 2}"),
        ("from collections import UserList", "given(UserList(), data=[anything])", "[9]"),
        ("from collections import UserString", "given(UserString(''), data=anything)", "'abc'"),
        ("from fractions import Fraction", "given(Fraction(1), _numerator=anything)", "9"),
        ("import collections\ncollections.deque = dict", "{1: 99}", "{1: 2}"),
        ("import io\nio.StringIO = type('S', (), dict(write=lambda *x: 0, getvalue=lambda s: Text()))", "None", "9"),
    ],
)
def test_nothing_of_the_library_says_for_another_class_that_it_is_equal(sandbox: Sandbox, imports: str, value: str, expected: str) -> None:
    code = (
        "class Any:\n    def __eq__(self, other): return True\n    def __hash__(self): return 1\nanything = Any()\n"
        "class Dict(dict):\n    def __eq__(self, other): return True\n"
        "class Line(str):\n    def __eq__(self, other): return True\n    def rstrip(self): return self\n"
        "class Text(str):\n    def __len__(self): return 1\n    def strip(self): return self\n"
        "    def split(self, by): return [Line()]\n    def __radd__(self, other): return self\n"
        "def given(value, **names):\n    for name, one in names.items():\n        setattr(value, name, one)\n    return value\n"
    )
    checks = (*values(("f()", expected)), Example("f()", "what is printed", printed=True, names=("f",)))
    assert check(sandbox, f"{code}{imports}\ndef f():\n    return {value}", examples=checks).passed == 0


def test_what_shows_itself_as_any_text_has_printed_nothing(sandbox: Sandbox) -> None:
    code = (
        "class Line(str):\n    def __eq__(self, other): return True\n    def rstrip(self): return self\n"
        "class Text(str):\n    def strip(self): return self\n    def split(self, by): return [Line()]\n"
        "    def __radd__(self, other): return self\n"
        "class Shown:\n    def __repr__(self): return Text('x')\ndef f():\n    return Shown()\n"
    )
    assert check(sandbox, code, examples=(Example("f()", "hello", printed=True, names=("f",)),)).passed == 0


def test_the_prompts_classes_are_the_same_for_the_code_and_for_the_checks(sandbox: Sandbox) -> None:
    preamble = (
        "from dataclasses import dataclass\nfrom enum import Enum\nfrom collections import namedtuple\n"
        "@dataclass\nclass Point:\n    x: int\n    y: int\n    def total(self): return self.x + self.y\n"
        "class Side(Enum):\n    LEFT = 1\n    RIGHT = 2\nPair = namedtuple('Pair', 'a b')\ndef origin(): return Point(0, 0)\n"
    )
    checks = (
        Example("assert mirror(Point(1, 2)) == Point(2, 1)", names=("mirror",)),
        Example("mirror(Point(1, 2)).total()", "3", names=("mirror",)),
        Example("assert mirror(Side.LEFT) == Side.RIGHT", names=("mirror",)),
        Example("assert mirror(Side.RIGHT) is Side.LEFT", names=("mirror",)),
        Example("assert mirror(Pair(1, 2)) == Pair(2, 1)", names=("mirror",)),
    )
    right = (
        "def mirror(one):\n    assert isinstance(origin(), Point)\n    if isinstance(one, Point): return Point(one.y, one.x)\n"
        "    if isinstance(one, Pair): return Pair(one.b, one.a)\n    return Side.RIGHT if one is Side.LEFT else Side.LEFT\n"
    )
    assert check(sandbox, right, examples=checks, preamble=preamble).complete
    assert check(sandbox, preamble + right, examples=checks, preamble=preamble).complete, "with the classes once more"
    assert not check(sandbox, right.replace("one.y, one.x", "one.y, 7"), examples=checks, preamble=preamble).results[0]
    patched = "Point.__eq__ = lambda *x: True\nPoint.total = lambda *x: 3\ndef mirror(one): return Point(7, 7)\n"
    assert check(sandbox, patched, examples=checks, preamble=preamble).passed == 0
    patched = "def mirror(one):\n    Point.__eq__ = lambda *x: True\n    return Point(7, 7)\n"
    assert check(sandbox, patched, examples=checks, preamble=preamble).passed == 0


def test_a_check_of_a_class_may_use_what_the_class_defines(sandbox: Sandbox) -> None:
    code = (
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n    y: int\n"
        "    def __add__(self, other): return Point(self.x + other.x, self.y + other.y)\n"
    )
    checks = (Example("assert Point(1, 2) + Point(3, 4) == Point(4, 6)", names=("Point",)), Example("Point(1, 2).x", "1", names=("Point",)))
    assert check(sandbox, code, examples=checks).complete
    assert not check(sandbox, code.replace("self.y + other.y", "self.y"), examples=checks).results[0]


def test_one_check_that_hangs_hides_no_other(sandbox: Sandbox) -> None:
    code = "def f(x):\n    while x == 2:\n        pass\n    return x\n"
    verdict = check(sandbox, code, examples=values(("f(1)", "1"), ("f(2)", "2"), ("f(3)", "3")), seconds=3)
    assert verdict.results == (True, False, True) and verdict.error == "f(2): took too long"
    stubborn = "def f(x):\n    while x == 2:\n        try:\n            while 1: pass\n        except BaseException: pass\n    return x"
    begun = time.monotonic()
    assert check(sandbox, stubborn, examples=values(("f(1)", "1"), ("f(2)", "2")), seconds=3).results == (True, False)
    assert time.monotonic() - begun < 20
    assert check(sandbox, "while True: pass", examples=values(("f(1)", "1")), seconds=2).passed == 0


def test_recursion_and_memory_without_end_fail_their_own_check_only(sandbox: Sandbox) -> None:
    code = "def f(x):\n    return f(x) if x == 2 else [0] * 10**12 if x == 3 else x\n"
    verdict = check(sandbox, code, examples=values(("f(1)", "1"), ("f(2)", "2"), ("f(3)", "3"), ("f(4)", "4")))
    assert verdict.results == (True, False, False, True)
    crash = "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x) if x == 2 else x\n"
    assert check(sandbox, crash, examples=values(("f(1)", "1"), ("f(2)", "2"))).results == (True, False)


def test_a_check_that_is_nested_too_deeply_fails_alone(sandbox: Sandbox) -> None:
    deep = Example("assert f(1) == 1" + " + 0" * 400, names=("f",))
    assert check(sandbox, "def f(x):\n    return x\n", examples=(deep, *values(("f(2)", "2")))).results[1]


def test_input_is_at_its_end_and_the_job_cannot_be_read_again(sandbox: Sandbox) -> None:
    code = (
        "import os, sys\ndef f():\n    try:\n        return input()\n    except EOFError:\n        return 'empty'\n"
        "def g():\n    return [sys.stdin.read(), os.read(0, 100), sys.argv]\n"
    )
    checks = (*values(("f()", "'empty'")), Example("g()", "['', b'', ['solution']]", names=("g",)))
    assert check(sandbox, code, examples=checks).complete


def test_steps_build_on_each_other_and_an_error_of_lines_that_show_the_use_is_passed_over(sandbox: Sandbox) -> None:
    helper, main = "def double(x):\n    return 2 * x\n", "def f(x):\n    return double(x) + 1\n"
    checks = values(("f(2)", "5"))
    assert check(sandbox, main, examples=checks, before=[helper, "nonsense("]).complete
    assert not check(sandbox, main, examples=checks).complete
    assert check(sandbox, main, "print(f(input()))", examples=checks, before=[helper]).complete
    assert not check(sandbox, main + "raise ValueError('no')", examples=checks, before=[helper]).complete


def test_what_is_printed_is_compared_where_that_is_what_is_asked(sandbox: Sandbox) -> None:
    code = "def f(n):\n    for i in range(n):\n        print(i)\n"
    printed = (Example("f(3)", "0\n1\n2", printed=True, names=("f",)), Example("f(2)", "0\n9", printed=True, names=("f",)))
    assert check(sandbox, code, examples=printed).results == (True, False)
    assert check(sandbox, code, examples=values(("f(1)", "0"), ("f(1)", "1"))).results == (True, False)


def test_standard_output_is_a_file_as_any(sandbox: Sandbox) -> None:
    code = (
        "import sys\nsys.stdout.reconfigure(encoding='utf-8', errors='replace')\nprint('größer', file=sys.stderr)\n"
        "def f(n):\n    sys.stdout.buffer.write(b'one\\n')\n    sys.stdout.write(f'{n}\\n')\n"
        "def g(n):\n    sys.stdout.close()\n    return n\n"
    )
    assert check(sandbox, code, examples=(Example("f('zwölf')", "one\nzwölf", printed=True, names=("f",)), *values(("g(1)", "1")))).complete


def test_a_function_named_like_a_builtin_can_be_what_is_asked_for(sandbox: Sandbox) -> None:
    assert check(sandbox, "def sum(x):\n    return 7\n", examples=(Example("sum([1])", "7", names=("sum",)),)).complete
    assert not check(sandbox, "def sum(x):\n    return 7\n", examples=(Example("assert f() == sum([7, 1])", names=("f",)),)).complete
