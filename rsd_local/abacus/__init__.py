"""abacus: a trio of tiny models for multi-step integer arithmetic that comes with the package."""

from rsd_local.abacus.expression import parse, render


def canonical(question: str) -> str:
    """A question in the spelling that the abacus models were trained on.

    Raises:
        QuestionRefused: it is no arithmetic expression, or lies outside the trained range.
    """
    return render(parse(question))
