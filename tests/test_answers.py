"""Answers as models write them: boxes with LaTeX in them, and numbers with units."""

from __future__ import annotations

import pytest

from rsd_local.answers import boxed, number, plain, same_answer
from rsd_local.evaluation.grading import Grader
from rsd_local.evaluation.items import Grading, HiddenTests, Item
from rsd_local.evaluation.quantities import quantity


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{\left\{ x : x > 1 \right.}", r"\left\{ x : x > 1 \right."),
        (r"first \boxed{3}, then \boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\} \frac{1}{2} \right\{}", r"\left\} \frac{1}{2} \right\{"),
        (r"\boxed{a \\ b}", r"a \\ b"),
        (r"\boxed{\begin{pmatrix} 1 \\{} 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\{} 2 \end{pmatrix}"),
        (r"\boxed{\text{a {b} c}}", r"\text{a {b} c}"),
        (r"\boxed {\dfrac{1}{2}}", r"\dfrac{1}{2}"),
        ("\\boxed\n{5}", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{6} or rather \fbox{7}", "7"),
        (r"$\boxed 12$", "12"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{1} as I was told to put it into \boxed", "1"),
        (r"\boxed{}", ""),
    ],
)
def test_the_last_box_is_read_with_all_that_latex_allows_in_it(text: str, content: str) -> None:
    assert boxed(text) == content


@pytest.mark.parametrize(
    "text", [r"\boxed{12}. No: it is \boxed{1", r"\boxed{12} \fbox{", r"\boxed{x\}", r"\boxed{1 \boxed{2", r"\boxedtext{3}", ""]
)
def test_an_open_last_box_is_no_answer(text: str) -> None:
    assert boxed(text) is None


def test_many_open_boxes_take_no_time() -> None:
    assert boxed("\\boxed{" * 200_000) is None and boxed("\\boxed{4}" + "\\boxed " * 200_000) == "4"


def test_answers_that_are_spelled_alike_are_the_same() -> None:
    assert same_answer(r"\dfrac{1}{2}", r"\frac{1}{2}") and same_answer(r"\left( 1, 2 \right)", "(1,2)")
    assert same_answer(r"\text{New York}", "New York") and same_answer("1\\,234", "1,234") and same_answer("\u22123", "-3")
    assert not same_answer("8 0", "80") and not same_answer(r"x \rightarrow y", r"x arrow y")
    assert plain("8  0") == "8 0" and number("8 0") is None and number("1 234") == number("1234") != number("12 34")


RIGHT = [
    "80", "80.", "$80$", "80 km/h", "80km/h", "80 \\text{ km/h}", "$80\\text{ km}$", "80\\,\\mathrm{km}", "80~m", "80 kilometers per hour",
    "80 \\frac{\\text{km}}{\\text{h}}", "80 m/s^2", "80 \\text{ cm}^2", "80\\text{cm}^{3}", "80 cm²", "80 square meters",
    "80 meters squared",
    "80 N \\cdot m", "80 (km/h)", "80^\\circ", "80^{\\circ}C", "80°C", "80 degrees", "\\$80", "$80", "80 dollars", "80 \\text{ dollars}",
    "€80", "80 €", "USD 80", "80%", "80\\%", "80 percent", "80 years old", "80 apples", "80 cups of flour", "80 miles an hour", "80/hour",
    "\\text{80 apples}", "\\textbf{80}", "80.0 kg", "80 L", "80 more", "+80 m",
]  # fmt: skip
WRONG = [
    "80 or 90", "90 or 80", "80, 90", "80 and 90", "80x", "80 x", "80m", "8 0", "0 80", "80 0", "80k", "80 dozen", "80 thousand",
    "80 \\text{ thousand}", "80 million", "80 hundred", "80 quarters", "80 squared", "80^2", "80 ^2", "80!", "80 factorial",
    "80 \\pi", "80 pi",
    "80 i", "80 e", "80_9", "80_{9}", "80:1", "80 to 90", "80 at least", "80 or more", "80 less than x", "80 is wrong", "80 not", "80 half",
    "80 and a half", "80 \\text{ or } 90", "80 \\text{ dozen}", "80 hours 20 minutes", "80 km 3 m", "80 - x", "80+1", "80 xyz", "80th",
    "79 km/h", "800 km/h", "8 km/h", "80.5 km/h", "-80 km/h", "80,5 km", "80 per", "80 of", "80 times", "80 plus", "80\\text{x}", "km 80",
    "eighty", "80 km/h or 50 mph", "80 \\times 10^3", "80 mod", "80 sqrt",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["number", "math"])
@pytest.mark.parametrize("given", RIGHT)
def test_a_unit_behind_a_plain_number_is_passed_over(given: str, kind: Grading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Grader, "_opened", lambda self: pytest.fail("the process was started"))
    assert Grader().grade(Item("q", "?", "80", kind), given)


def test_another_number_or_an_expression_is_no_unit() -> None:
    with Grader() as grader:
        found = [(kind, given) for kind in ("number", "math") for given in WRONG if grader.grade(Item("q", "?", "80", kind), given)]  # type: ignore[arg-type]
    assert found == []


def test_units_are_passed_over_only_where_a_plain_number_is_expected() -> None:
    with Grader() as grader:
        assert not grader.grade(Item("q", "?", "50%", "math"), "50 km") and grader.grade(Item("q", "?", "50%", "math"), "50 percent")
        assert grader.grade(Item("q", "?", "1,234", "math"), "1\\,234 \\text{ km}") and grader.grade(Item("q", "?", "1234"), "1 234 km")
        assert grader.grade(Item("q", "?", "80", "math"), "\\frac{160}{2}") and grader.grade(Item("q", "?", "80", "math"), "x = 80")


def test_hostile_texts_are_no_quantities() -> None:
    for text in ("", "$", "1" * 5000, "80 " + "a" * 5000, "80 " + "m " * 90, "\ud800", "80 \x00", "$" * 400, "80 " + "(" * 90):
        assert quantity(text) is None


def test_code_without_a_test_cannot_pass_one() -> None:
    from rsd_local.errors import ConfigError

    with pytest.raises(ConfigError, match="no test"):
        HiddenTests("f", ())
