"""Numbers with units: ``80 km/h`` read as 80, and ``80 or 90``, ``80x`` and ``80 dozen`` as something else."""

from __future__ import annotations

import re
from fractions import Fraction

from rsd_local.answers import NUMBER, Number, number, unspaced, without_text_commands

_CURRENCY = r"US\$|[$€£¥₹₽₩]|\\(?:pounds|euro)\b|USD|EUR|GBP|Rs\.?"
_AMOUNT = re.compile(rf"(?P<sign>[-+]?)\s*(?:{_CURRENCY})?\s*(?P<number>[-+]?(?:{NUMBER}))(?P<rest>.*)", re.DOTALL)
_REWRITTEN = (
    (re.compile(r"\\text\w*\s*\{((?:\\.|[^{}\\])*)\}|\\math(?:rm|bf|it|sf)\s*\{((?:\\.|[^{}\\])*)\}"), r" \1\2 "),
    (re.compile(r"\\[,;:! ]|~|\\q?quad(?![A-Za-z])"), " "),
    (re.compile(r"\\[dtc]?frac\s*\{([^{}0-9]+)\}\s*\{([^{}0-9]+)\}"), r" \1/\2 "),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degrees?(?![A-Za-z])"), " °"),
    (re.compile(r"\\cdot(?![A-Za-z])|[*⋅∙]"), "·"),
    (re.compile(r"\s*\^\s*(?:\{\s*(-?[0-9])\s*\}|(-?[0-9]))"), r"^\1\2"),
    (re.compile(r"²"), "^2"),
    (re.compile(r"³"), "^3"),
)
_UNIT = re.compile(r"([A-Za-zµμΩ°'€£¥$]+\.?)(\^-?[0-9])?|([/·])|(\s+)")
_PERCENT = {"percent", "per cent", "pct", "percentage points", "percentage point"}
_MOST_WORDS = 6

_SYMBOLS = frozenset(
    "nm µm μm um mm cm dm km in ft yd mi nmi ly au pc mg µg μg kg lb lbs oz st ml cl dl hl cc gal qt pt "
    "ns µs μs us ms sec secs min mins hr hrs wk wks mo mos yr yrs am pm mph kph kmh kmph fps rpm bpm mpg "
    "hz khz mhz ghz kj mj cal kcal kw mw gw kwh wh mwh hp kv mv ma ah mah kn pa kpa mpa hpa bar atm psi mol mmol ph db lm lx cd "
    "kb mb gb tb kib mib gib bit bits bps kbps mbps gbps ev kev mev ha sq cu deg rad ° °c °f € £ ¥ $ usd eur gbp "
    "day days cup cups box egg eggs men man cat cats dog dogs hen pen pens car cars boy boys toy toys bag bags bus tin tins hat hats "
    "cow cows pig pigs bee bees can cans jar jars pie pies key keys row rows way ways gem gems map job jobs lap laps kid kids set sets "
    "ml. cm. km. kg. ft. in. lb. lbs. oz. hr. hrs. min. sec. mi. yd. yr. yrs. mm. gal. qt. pt. pts pts.".split()
)
"""Units and short nouns that may stand behind a number; lower case. Longer words are taken as nouns unless they are ``_OTHER``."""
_LETTERS = frozenset("mgshLlJNWVAKCF")
"""Symbols of one letter, which may also be a variable: only apart from the number, as in ``5 m``, never ``5m``."""
_SMALL = frozenset("per of a an each old ago all the in on for by at ones".split())
_OTHER = frozenset(
    # Other numbers.
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen "
    "twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands million millions billion billions "
    "trillion trillions lakh lakhs crore crores dozen dozens score scores gross half halves third thirds quarter quarters fourth fourths "
    "fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths twelfth twelfths hundredth hundredths "
    "thousandth thousandths millionth millionths double twice triple thrice fold point infinity infinite "
    # Operations and functions.
    "plus minus times over divided multiplied multiply added subtracted modulo remainder factorial sqrt root roots power choose base "
    "logarithm sine cosine tangent exponent inverse squared cubed theta alpha beta gamma delta lambda sigma omega "
    # More than one answer, a bound, or a statement.
    "or and nor but not none either neither also both otherwise except instead versus than least most more less fewer minimum maximum "
    "between through until unless about around approximately roughly nearly almost exactly maybe perhaps possibly "
    "is are was were equals equal gives means because since where when then with without wrong incorrect unknown undefined "
    "to if so from up".split()
)
_AFTER_A_UNIT = {"squared", "cubed", "more", "less", "fewer"}
"""Words that make another number of one that stands alone, but not of a unit: ``5 meters squared``."""


def quantity(text: str) -> Number | None:
    r"""The number in front of a unit or behind a currency sign, and whether the unit is percent.

    Args:
        text: an answer, LaTeX or not: ``80 km/h``, ``3 \text{ cm}^2``, ``\$18``, ``5 percent``, ``12 years old``.

    Returns:
        None where anything else stands there: a second number, a variable, an operation, a word that makes another number of it.
    """
    plain = number(text)
    if plain is not None:
        return plain
    found = _split(text)
    if found is None:
        return None
    value, rest = found
    said = rest.strip().strip(".").lower()
    if said in _PERCENT or said.removeprefix("\\") == "%":
        return value, True
    return (value, False) if not said or _is_unit(rest) else None


def is_another(text: str) -> bool:
    """Whether a number is followed by words, digits or variables alone, which together are no unit: ``80 or 90``, ``8 0``, ``80x``.

    There is nothing to work out in such a text, so it is not that number, whatever a lenient parser makes of it.
    """
    found = _split(text)
    return found is not None and quantity(text) is None and re.fullmatch(r"[\w\s.,;:'°%${}]+", found[1]) is not None


def _split(text: str) -> tuple[Fraction, str] | None:
    """The number that a text begins with, and what follows it; None where it begins with none."""
    if len(text) > 200:
        return None
    text = unspaced(text)
    while len(text) > 1 and text[0] == text[-1] == "$":
        text = text[1:-1].strip()
    for pattern, by in _REWRITTEN:
        text = pattern.sub(by, text)
    match = _AMOUNT.fullmatch(unspaced(without_text_commands(text)))
    if match is None or (match["sign"] and match["number"][0] in "+-"):
        return None
    return Fraction(match["sign"] + match["number"].replace(",", "")), match["rest"]


def _is_unit(rest: str) -> bool:
    """Whether what stands behind a number is a unit and nothing more."""
    body = rest.strip()
    if body.startswith("(") and body.endswith(")"):
        rest = f" {body[1:-1].strip()}"
    words: list[str] = []
    place, attached = 0, not rest[0].isspace()
    for match in _UNIT.finditer(rest.rstrip()):
        if match.start() != place:
            return False
        place = match.end()
        word = match[1] or ""
        if word:
            if not _is_word(word, bool(match[2]), first=not words, attached=attached and not words):
                return False
            words.append(word.lower())
        elif match[3]:
            attached = attached and bool(words)
    return (
        place == len(rest.rstrip()) and 0 < len(words) <= _MOST_WORDS and words[-1] not in _SMALL - {"in", "a", "old", "ago", "each", "all"}
    )


def _is_word(word: str, power: bool, *, first: bool, attached: bool) -> bool:
    """Whether a word may be part of a unit.

    Args:
        word: as written.
        power: whether an exponent follows.
        first: whether it is the first behind the number.
        attached: whether it stands at the number without a space.
    """
    letter, word = word.removesuffix("."), word.lower()
    if word in _SYMBOLS:
        return True
    if attached:
        return False
    if letter in _LETTERS:
        return True
    if word in _SMALL:
        return not power and not (first and word in ("of", "the", "on", "for", "by", "at", "ones"))
    if word in _AFTER_A_UNIT:
        return not first or word in ("more", "less", "fewer")
    return word not in _OTHER and len(word.strip("'.")) >= 4
