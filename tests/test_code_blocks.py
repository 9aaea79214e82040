"""Code blocks of a text, and which of them are Python."""

from __future__ import annotations

import pytest

from rsd_local.programs.answers import graded_code, step_code
from rsd_local.programs.blocks import code_blocks, python_code
from rsd_local.segments.markup import Markup


def codes(text: str) -> list[tuple[str, str, bool]]:
    return [(block.language, block.code, block.closed) for block in code_blocks(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```python\nx = 1\n```\n", [("python", "x = 1\n", True)]),
        ("```python\nx = 1\n```", [("python", "x = 1\n", True)]),
        ("```python\nx = 1\n", [("python", "x = 1\n", False)]),
        ("a\n\n~~~ Py3 linenos\nx\n~~~\nb", [("py3", "x\n", True)]),
        ("````\n```\nx\n```\n````\n", [("", "```\nx\n```\n", True)]),
        ("```python\nx\n~~~\n```\n", [("python", "x\n~~~\n", True)]),
        ("1. First:\n\n   ```python\n   if x:\n       y\n   ```\n", [("python", "if x:\n    y\n", True)]),
        ("- ```py\n  x\n  ```\n- b", [("py", "x\n", True)]),
        ("  ```python\n  x\n y\n  ```\n", [("python", "x\ny\n", True)]),
        ("```{.python .numberLines}\nx\n```\n", [("python", "x\n", True)]),
        ("```a```\n``` b `c`\nno block\n", []),
        ("    ```python\n    x\n", []),
        ("```\n```\n```python\ny\n```", [("", "", True), ("python", "y\n", True)]),
        ("```python\r\nx = 1\r\n```\r\n", [("python", "x = 1\r\n", True)]),
        ("```python\nx = '```'\n```\n", [("python", "x = '```'\n", True)]),
        ("", []),
    ],
)
def test_blocks_are_those_of_commonmark(text: str, found: list[tuple[str, str, bool]]) -> None:
    assert codes(text) == found


def test_blocks_begin_and_end_where_steps_see_them() -> None:
    """What is inside of a block for the one is inside for the other, at each line of a text with all kinds of fences."""
    text = "a\n```python\nb\n\nc\n```\nd\n- e\n\n  ~~~\n  f\n  ~~~\n$$\nx\n$$\n````\n```\ng"
    blocks, markup, place = code_blocks(text), Markup(), 0
    for line in text.splitlines(keepends=True):
        for byte in line.encode():
            markup.take(byte)
        place += len(line)
        if line.endswith("\n"):
            assert markup.in_code == any(block.start < place < block.end or (place == block.end and not block.closed) for block in blocks)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = (\n```\n", "x = (\n"),
        ("```PY\nx = 1\n```\n", "x = 1\n"),
        ("```javascript\nx = 1\n```\n", None),
        ("```text\nx = 1\n```\n", None),
        ("```\ndef f(): pass\n```\n", "def f(): pass\n"),
        ("```\n[1, 2]\n```\n", None),
        ("```\nlet x = 1;\n```\n", None),
        ("```\nTrue\n'a'\n```\n", None),
        ("```pycon\n>>> x = [1,\n...      2]\n>>> x\n[1, 2]\n```\n", "x = [1,\n     2]\nx\n"),
        ("```python\n>>> f(1)\n2\n```\n", "f(1)\n"),
    ],
)
def test_python_is_what_is_tagged_so_or_compiles_and_does_something(text: str, code: str | None) -> None:
    (block,) = code_blocks(text)
    assert python_code(block) == code


def test_a_block_belongs_to_the_step_that_ends_it() -> None:
    one, two = "```python\na = 1\n```\n", "```python\nb = 2\n"
    assert step_code((), one) == step_code(("",), one) and step_code((), one).here == ("a = 1\n",)
    assert step_code((one,), "words").here == () and step_code((one,), "words").before == ("a = 1\n",)
    assert step_code((one, two), "b += 1\n```\n").here == ("b = 2\nb += 1\n",)
    assert step_code((one,), two).here == ("b = 2\n",)


def test_the_last_block_that_defines_the_function_is_graded() -> None:
    helper, old, new, use = "def g(): pass\n", "def f(): return 1\n", "def f(): return 2\n", "print(f())\n"
    text = "".join(f"```python\n{code}```\n" for code in (helper, old, new, use))
    assert graded_code(text, "f") == new and graded_code(text, "g") == helper
    assert graded_code(text, "other") == use
    assert graded_code("def f():\n    return 1\n", "f") is not None
    assert graded_code("It is 1.", "f") is None and graded_code("```js\nf = 1\n```", "f") is None
