"""Words around numbers that decide whether an equation can be read."""

from __future__ import annotations

import re

PROSE = set(
    """so and then which that is are was were the a an we he she they it i you for in on at from to because since or but with if when has
    have had this these those by as of than thus therefore hence after before while where leaving giving gives left who not total altogether
    each every remaining plus minus times divided multiplied over into out be will can makes make means since get gets also only""".split()
)
"""Words that are no part of a unit."""

SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
"""Words that are a unit or a factor."""

OPERATORS = set(
    """times divided multiplied squared cubed power factorial mod modulo remainder rounded rounding round rounds leftover nearest whole
    approximately about roughly decimal significant""".split()
)
"""Words anywhere behind an equation that may change what it says."""

NEXT = OPERATORS | set("plus minus over r more less fewer than half thirds quarters percent or choose tenths hundredths".split())
"""Words right behind a number that may change what it says."""

CLOCK = {"am", "pm", "o'clock", "o’clock"}
"""Units of a time of day, with which 11 + 4 is 3."""
_DAYTIME = re.compile(r"(?:am|pm|in the (?:morning|afternoon|evening)|at (?:night|noon|midnight))\b")

PREFIXES = set(
    """times plus minus by over twice half double triple thrice quadruple root sqrt log ln exp sin cos tan negative mod modulo than less
    more squared cubed absolute floor ceil max min gcd lcm dozen hundred thousand million percent per x fraction opposite square cube
    subtracting""".split()
)
"""Words that make something else of the number behind them."""

JOINING = set("and of to from by than with into out or minus plus times over between against through until till".split())
"""Words that join a number before them with the one behind."""

AMOUNTS = set(
    """half third quarter thirds quarters fifth fifths tenth twice double triple one two three four five six seven eight nine ten eleven
    twelve sum difference product quotient ratio average mean square cube dozen percent percentage fraction remainder""".split()
)
"""Words that are numbers, or ask for two."""

LABELS = set(
    """step day week month year case part question problem example option method person group level page item no number figure equation
    chapter line row round game stage trip class grade room box phase section test week quarter hour minute team train car table""".split()
)
"""Words whose number is a name."""

_FAMILIES = [
    "second sec s minute min hour hr h day week fortnight month year decade century am pm workday weekday weekend",
    "mm cm m km meter metre kilometer kilometre centimeter centimetre millimeter inch foot ft yard mile mi",
    "g kg gram kilogram mg milligram lb lbs pound ounce oz ton tonne",
    "l ml liter litre milliliter gallon quart pint cup tablespoon teaspoon bottle",
    "dollar cent euro penny dime nickel quarter buck ¢ pence",
    "kb mb gb tb byte bit kilobyte megabyte gigabyte",
    "degree ° radian turn",
    "pair single piece pack box case carton crate bag",
]
FAMILY = {word: place for place, words in enumerate(_FAMILIES) for word in words.split()}
"""Units of one kind: an equation may convert them without a word."""
CONVERSIONS = {7, 10, 12, 16, 24, 30, 36, 52, 60, 100, 168, 365, 1000, 1440, 1760, 3600, 5280, 10**6}
"""By what units of one family differ."""
MONEY = {"dollar", "euro", "pound", "yen", "rupee"}

_IRREGULAR = {"feet": "foot", "inches": "inch", "pennies": "penny", "boxes": "box", "centuries": "century", "people": "person"}


def is_daytime(words: list[str]) -> bool:
    """Whether words behind a number make it a time of day."""
    return _DAYTIME.match(" ".join(words[:3])) is not None


def singular(word: str) -> str:
    """A unit's word without its plural."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
