"""Verifiers of Python code: what each gives a step, and what it has nothing to say of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rsd_local.errors import Cancelled, ConfigError, VerifierFailed
from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt
from rsd_local.rewards.verifier.pytest_file import PytestFile
from rsd_local.rewards.verifier.python_compiles import PythonCompiles
from rsd_local.rewards.verifier.python_tests import PythonTests
from rsd_local.sandbox import Bounds, Sandbox

TASK = Prompt.of(
    "Complete the function.\n\n```python\nfrom typing import List\nimport math\n\ndef half(x):\n    return x / 2\n\n"
    'def total(numbers: List[int]) -> int:\n    """The sum of all.\n    >>> total([1, 2])\n    3\n    >>> total([])\n    0\n    """\n```\n'
)
PLAIN = Prompt.of("What is a list?")


def block(code: str, language: str = "python") -> str:
    return f"Here it is:\n\n```{language}\n{code}\n```\n"


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox.find()


@pytest.fixture(scope="module")
def examples(sandbox: Sandbox) -> PythonTests:
    return PythonTests(sandbox, bounds=Bounds(seconds=20))


def reward(verifier: PythonTests | PythonCompiles | PytestFile, step: str, *steps: str, prompt: Prompt = TASK) -> float | None:
    return verifier.check(prompt, steps, step, None)


def test_the_reward_is_the_share_of_the_prompts_examples_that_pass(examples: PythonTests) -> None:
    assert reward(examples, block("def total(numbers: List[int]):\n    return sum(numbers)")) == 1.0
    assert reward(examples, block("def total(numbers):\n    return len(numbers)")) == 0.5
    assert reward(examples, block("def total(numbers):\n    return 7")) == 0.0
    assert reward(examples, block("def total(numbers) return")) == 0.0
    assert reward(examples, block("total = None\nimport os; os._exit(0)")) == 0.0


def test_a_step_without_python_and_a_prompt_without_examples_are_not_checked(examples: PythonTests) -> None:
    assert reward(examples, "We add all numbers.\n\n") is None
    assert reward(examples, block("let total = 0;", "javascript")) is None
    assert reward(examples, block("[1, 2]", "")) is None
    assert reward(examples, block("def total(): pass"), prompt=PLAIN) is None
    assert examples.checks(TASK) and not examples.checks(PLAIN)


def test_steps_before_are_run_and_a_block_cut_in_two_is_checked_with_its_end(examples: PythonTests) -> None:
    helper = block("def add(a, b):\n    return a + b")
    assert reward(examples, block("def total(n):\n    return add(n[0], n[1]) if n else 0"), helper) == 1.0
    assert reward(examples, "    return sum(numbers)\n```\n", "```python\ndef total(numbers):\n") == 1.0
    assert reward(examples, "That is all.\n", block("def total(numbers):\n    return 7")) is None


def test_passing_all_and_not_coming_to_the_end_is_not_the_full_reward(examples: PythonTests) -> None:
    code = "seen = []\ndef total(n):\n    seen.append(n)\n    if len(seen) > 1: __import__('os')._exit(0)\n    return sum(n)"
    assert reward(examples, block(code)) == 0.5


def test_a_check_is_cancelled_at_once(examples: PythonTests) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        examples.check(TASK, (), block("def total(n): return 0"), token)


def test_a_file_of_tests_takes_the_place_of_the_examples(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from solution import total\nCASES = [([1], 1), ([2, 3], 5)]\nassert total([4]) == 4\n"
        "def test_cases():\n    for given, wanted in CASES:\n        assert total(given) == wanted\n"
        "def check(candidate):\n    assert candidate([]) == 0\n"
        "if __name__ == '__main__':\n    raise SystemExit\n"
    )
    verifier = PythonTests(sandbox, path, bounds=Bounds(seconds=20))
    assert reward(verifier, block("def total(n):\n    return sum(n)")) == 1.0
    assert reward(verifier, block("def total(n):\n    return sum(n) if n else None")) == pytest.approx(2 / 3)
    assert reward(verifier, block("def total(n):\n    return sum(n)"), prompt=PLAIN) == 1.0
    for text, words in (("x = 1", "has no test"), ("def f(", "is no Python"), ("def test_a(tmp_path):\n    pass", "needs pytest")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            PythonTests(sandbox, path)
    with pytest.raises(ConfigError, match="cannot be read"):
        PythonTests(sandbox, tmp_path / "none.py")


def test_a_snippet_that_is_cut_short_stands_in_nobodys_way(sandbox: Sandbox) -> None:
    prompt = Prompt.of('```python\ndef twice(x):\n    """>>> twice(2)\n    4\n    """\n```')
    right, torn = "```python\ndef twice(x):\n    return 2 * x\n```\n", "```python\ntwice(3\n```\n"
    verifier = PythonTests(sandbox)
    assert verifier.check(prompt, (), right + torn, None) == 1.0
    assert verifier.check(prompt, (), torn, None) == 0.0
    assert verifier.check(prompt, (), right.replace("2 *", "3 *") + torn, None) == 0.0


@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("def total(numbers):\n    return sum(numbers)", 1.0),
        ("def total(numbers):\n    return summ(numbers)", 0.0),
        ("def total(numbers: Dict[str, int]):\n    return 1", 0.0),
        ("from __future__ import annotations\ndef total(numbers: Dict[str, int]) -> Nothing:\n    x: Any = 1\n    return x", 1.0),
        ("def total(numbers: List[int]):\n    return math.fsum(half(x) for x in numbers)", 1.0),
        ("import no_such_package_at_all", 0.0),
        ("try:\n    import no_such_package_at_all as fast\nexcept ImportError:\n    fast = None", 1.0),
        ("import os.path, json as j\nfrom collections import deque\nj.dumps(deque()), os.path", 1.0),
        ("from math import *\nanswer = gcd(4, 6)", 1.0),
        ("def f():\n    global state\n    state = 1\ndef g():\n    return state", 1.0),
        ("[x for x in range(3) if (y := x)]\nprint(y)\nprint([(a, b) for a in 'x' for b in a])", 1.0),
        ("print([each for each in range(3)], each)", 0.0),
        ("class A:\n    n = 1\n    def f(self):\n        return __class__, self.n, super()\nlambda q: q", 1.0),
        ("try:\n    pass\nexcept ValueError as error:\n    print(error)\nwith open('f') as f, open('g') as (a, b):\n    print(f, a)", 1.0),
        ("match 3:\n    case [a, *b] | {'k': a, **b}:\n        print(a, b)", 1.0),
        ("def f(x:\n    return", 0.0),
        ("if 'a' is 'a': pass\nprint('\\d')", 1.0),
        ("exec('z = 1')\nprint(z)", 1.0),
        ("raise SystemExit", 1.0),
    ],
)
def test_code_compiles_where_syntax_names_and_imports_are_in_order(code: str, given: float) -> None:
    assert reward(PythonCompiles(), block(code)) == given


@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("import os.nope", 0.0),
        ("import math.nope", 0.0),
        ("import xml.nope", 0.0),
        ("import wave.nope", 0.0),
        ("import no_such" + ".a" * 2_000, 0.0),
        ("from math import nope", 0.0),
        ("from math import sqrt, nope", 0.0),
        ("from os import nope", 0.0),
        ("from xml.etree import nope", 0.0),
        ("from wave import nope", 0.0),
        ("from wave import Wave_read, open", 1.0),
        ("import os.path", 1.0),
        ("from os import path", 1.0),
        ("import xml.etree.ElementTree as tree\nprint(tree)", 1.0),
        ("from xml.etree import ElementTree", 1.0),
        ("from xml import dom", 1.0),
        ("from collections import abc, OrderedDict", 1.0),
        ("from concurrent import futures", 1.0),
        ("from concurrent.futures import ThreadPoolExecutor", 1.0),
        ("from importlib import metadata, resources", 1.0),
        ("import numpy.linalg\nfrom numpy.random import default_rng", 1.0),
        ("import winreg, msvcrt\nfrom winreg import OpenKey", 1.0),
        ("import __main__\nfrom __main__ import total", 1.0),
        ("from . import other\nfrom .other import thing", 1.0),
        ("from wave import __version__, __doc__", 1.0),
        ("import sys\nif sys.version_info >= (3, 99):\n    from typing import nope\nelse:\n    from math import nope", 1.0),
        ("try:\n    from math import nope\nexcept ImportError:\n    nope = None", 1.0),
    ],
)
def test_modules_below_others_and_names_in_modules_must_be_there_too(code: str, given: float) -> None:
    before = set(sys.modules)
    assert reward(PythonCompiles(), block(code)) == given
    assert set(sys.modules) == before, "nothing is imported to find that out"


def test_a_package_that_makes_names_or_modules_while_it_is_imported_may_have_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    sources = {
        "plain": "from math import pi\nif pi:\n    first, (second, *_) = 1, [2, 3]\nclass Third: pass\n"
        "def f():\n    global fourth\n    fourth = 4\n",
        "lazy": "def __getattr__(name):\n    return 1\n",
        "starred": "from math import *\n",
        "maker": "import sys\nsys.modules['rsd_maker.nope'] = sys\n",
        "path": "__path__ = []\n",
        "setter": "globals().update(nope=1)\n",
    }
    for name, source in sources.items():
        (tmp_path / f"rsd_{name}.py").write_text(source)
        for code in (f"from rsd_{name} import nope", f"import rsd_{name}.nope"):
            assert reward(PythonCompiles(), block(code)) == (0.0 if name == "plain" else 1.0), code
    assert reward(PythonCompiles(), block("from rsd_plain import pi, first, second, Third, fourth")) == 1.0
    (tmp_path / "rsd_folder").mkdir()
    (tmp_path / "rsd_folder/inner.py").write_text("x = 1")
    assert reward(PythonCompiles(), block("from rsd_folder import inner\nfrom rsd_folder.inner import x\nimport rsd_folder.inner")) == 1.0
    for code in ("from rsd_folder import other", "import rsd_folder.other", "from rsd_folder.inner import y"):
        assert reward(PythonCompiles(), block(code)) == 0.0, code
    (tmp_path / "rsd_folder/inner.py").write_text("y = 1")
    assert reward(PythonCompiles(), block("from rsd_folder.inner import y")) == 1.0, "the file has changed since"


@pytest.mark.parametrize("terms", [400, 1_500, 5_000, 100_000])
@pytest.mark.parametrize("form", ["x = 1{}", "x = 'a'\nx = x{}", "x = {}1"])
def test_code_that_goes_on_and_on_fails_or_passes_as_any_other(examples: PythonTests, form: str, terms: int) -> None:
    parts = {"x = 1{}": " + 1", "x = 'a'\nx = x{}": ".strip()", "x = {}1": "- "}
    code = "def total(numbers):\n    return sum(numbers)\n" + form.format(parts[form] * terms)
    assert reward(PythonCompiles(), block(code)) in (0.0, 1.0)
    assert reward(examples, block(code)) in (0.0, 1.0)


@pytest.mark.parametrize("code", ["x = " + "[" * 5_000, "x = " + "[" * 150 + "]" * 150, "x = " + "(" * 99_000 + ")" * 99_000])
def test_brackets_within_brackets_are_no_error(examples: PythonTests, code: str) -> None:
    assert reward(PythonCompiles(), block(code)) in (0.0, 1.0) and reward(examples, block(code)) == 0.0


def test_compiling_runs_nothing_and_knows_the_steps_before(tmp_path: Path) -> None:
    verifier, mark = PythonCompiles(), tmp_path / "mark"
    assert reward(verifier, block(f"open({str(mark)!r}, 'w')")) == 1.0 and not mark.exists()
    assert reward(verifier, block("print(add(1))"), block("def add(n):\n    return n")) == 1.0
    assert reward(verifier, block("print(add(1))")) == 0.0
    assert reward(verifier, block("print(add(1))"), block("def add(n:")) == 1.0, "what a broken block would bind is not known"
    assert reward(verifier, block("print(given(1))"), prompt=Prompt.of("Use `given(x)`, which is there.")) == 1.0
    assert reward(verifier, "words") is None and verifier.checks(PLAIN)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text("")
    (tmp_path / "pkg/code.py").write_text("def total(n):\n    raise NotImplementedError\n")
    (tmp_path / "tests/test_total.py").write_text(
        "import pytest\nfrom pkg.code import total\n@pytest.mark.parametrize('given, wanted', [([1], 1), ([2, 3], 5), ([], 0)])\n"
        "def test_total(given, wanted):\n    assert total(given) == wanted\n"
    )
    return tmp_path


def test_the_users_own_tests_say_how_good_a_step_is(sandbox: Sandbox, project: Path) -> None:
    verifier = PytestFile(sandbox, project / "tests/test_total.py", project / "pkg/code.py", bounds=Bounds(seconds=60))
    assert reward(verifier, block("def total(n):\n    return sum(n)")) == 1.0
    assert reward(verifier, block("def total(n):\n    return sum(n) or None")) == pytest.approx(2 / 3)
    assert reward(verifier, block("import os\nos._exit(0)")) == 0.0
    assert reward(verifier, block("import sys\nsys.exit(0)")) == 0.0
    assert reward(verifier, block("def other(): pass")) == 0.0
    assert reward(verifier, block("def total(:")) == 0.0
    assert reward(verifier, "words") is None
    assert "NotImplementedError" in (project / "pkg/code.py").read_text(), "the user's own file stays as it is"


def test_nothing_hidden_is_shown_to_the_code_but_pytests_settings(sandbox: Sandbox, project: Path) -> None:
    for name in (".env", "tests/.secret", ".git/config", "data.txt", ".pytest.ini"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("[pytest]\npython_files = test_*.py\n")
    code = (
        "import pathlib\nFOUND = sorted(str(path) for path in pathlib.Path('.').rglob('*') if path.is_file() and path.suffix != '.pyc')\n"
        "def total(n):\n    return sum(n) if 'data.txt' in FOUND and '.pytest.ini' in FOUND and not SECRETS else None\n"
        "SECRETS = [path for path in FOUND if path.split('/')[-1] in ('.env', '.secret', 'config')]\n"
    )
    verifier = PytestFile(sandbox, project / "tests/test_total.py", project / "pkg/code.py", bounds=Bounds(seconds=60))
    assert reward(verifier, block(code)) == 1.0


def test_code_cannot_skip_the_users_tests(sandbox: Sandbox, project: Path) -> None:
    (project / "tests/test_more.py").write_text(
        "import pytest\nfrom pkg.code import total\ndef test_later():\n    pytest.skip('on another system')\n"
        "@pytest.mark.xfail\ndef test_known():\n    assert total([1]) == 2\n"
    )
    verifier = PytestFile(sandbox, project / "tests", Path("../pkg/code.py"), bounds=Bounds(seconds=60))
    assert reward(verifier, block("def total(n):\n    return sum(n)")) == 1.0
    for raised in ("pytest.skip('no')", "pytest.xfail('no')", "raise unittest.SkipTest('no')"):
        code = f"import pytest, unittest\ndef total(n):\n    if len(n) > 1:\n        {raised}\n    return sum(n)"
        given = reward(verifier, block(code))
        assert given is not None and given < 1.0, raised
    assert reward(verifier, block("import pytest\npytest.importorskip('no_such_package')\ndef total(n):\n    return sum(n)")) == 0.0


def test_tests_that_cannot_be_collected_are_no_fault_of_a_step(sandbox: Sandbox, project: Path) -> None:
    (project / "tests/test_total.py").write_text("import no_such_package_at_all\ndef test_a(): pass\n")
    verifier = PytestFile(sandbox, project / "tests", Path("../pkg/code.py"), bounds=Bounds(seconds=60))
    with pytest.raises(VerifierFailed, match="cannot collect tests"):
        reward(verifier, block("def total(n):\n    return 0"))
    with pytest.raises(ConfigError, match="no such file"):
        PytestFile(sandbox, project / "none.py", Path("code.py"))
