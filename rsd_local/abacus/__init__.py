"""abacus: a trio of tiny models for multi-step integer arithmetic that comes with the package."""

from rsd_local.abacus.expression import find_expression, parse, render

__all__ = ["canonical", "find_expression"]


def canonical(question: str) -> str:
    """A question in the spelling that the abacus models were trained on.

    Raises:
        QuestionRefused: it is no arithmetic expression, or lies outside the trained range.
    """
    return render(parse(question))
