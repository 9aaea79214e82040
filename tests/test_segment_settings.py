"""Settings that say where steps end: what is refused, and that no text takes long to read."""

from __future__ import annotations

import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_segments import LAW, THINK

from rsd_local.errors import ConfigError
from rsd_local.segments import Segmenter


@pytest.mark.parametrize(
    ("delimiter", "message", "hint"),
    [
        ("paragraf", "'paragraf' is unknown", "did you mean 'paragraph'"),
        ("Line", "unknown", "'line'"),
        ("codeblock", "unknown", "'code-block'"),
        ("token:64", "unknown", "'tokens:N'"),
        ("regex:a", "unknown", "'re:PATTERN'"),
        ("tokens", "unknown", "'tokens:N'"),
        ("qqq", "unknown", "one of: paragraph, line"),
        ("", "unknown", "one of"),
        ("tokens:0", "no number from 1", "tokens:64"),
        ("tokens:²", "no number", "tokens:64"),
        ("tokens:99999999999", "no number", "tokens:64"),
        ("text:", "0 characters", "1 to"),
        ("text:" + "a" * 201, "201 characters", "1 to"),
        (r"text:a\q", r"unknown escape \\q", r"itself is \\\\"),
        ("text:a\\", "unknown escape", "itself"),
        ("re:", "0 characters", "1 to"),
        ("re:" + "a" * 201, "201 characters", "1 to"),
        ("re:(a", "no regular expression: missing", "Python's syntax"),
        ("re:[[a]", "no regular expression: Possible nested set", "Python's syntax"),
        ("re:a{99999999999999999999}", "no regular expression", "Python's syntax"),
        ("re:a*", "found everywhere", "at least one"),
        ("re:a{200}", "never found", "at most 128"),
        ("re:" + "(" * 99 + "a" + ")" * 98, "no regular expression", "Python's syntax"),
    ],
)  # fmt: skip
def test_a_delimiter_that_cannot_be_used_is_refused_with_a_way_out(delimiter: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        Segmenter(delimiter)
    assert hint.replace("\\\\", "\\") in refused.value.hint or hint in refused.value.hint


@pytest.mark.parametrize(
    "source", [r"(a+)+$", r"(?:a+)+?b", r"(a|aa)*b", r"(\w+\s?)*:", r"a*a*a*b", r"(a{1,30}){1,30}b", r"((a?){30}){30}", r"(?=(a+)+b)x"]
)
def test_a_pattern_that_could_take_for_ever_is_refused(source: str) -> None:
    with pytest.raises(ConfigError, match="could take too long") as refused:
        Segmenter(f"re:{source}")
    assert "no repeat within a repeat" in refused.value.hint


@pytest.mark.parametrize(
    "source",
    [
        r"\n\s*Step\s+\d+[:.]",
        r"(?i)\n\s*(?:Step|Schritt)\s+\d+",
        r"(?:\n|^)#{1,6} .*\n",
        r"(?:\d+\.)+\s",
        r"\w+\s*=\s*\w+;",
        r"(a++)++b",
    ],
)
def test_a_pattern_that_has_one_way_only_may_repeat_as_it_likes(source: str) -> None:
    Segmenter(f"re:{source}")


@pytest.mark.parametrize(
    "source", [r"(?a)\W*é\W*é\W*éx", r"(?i)ſ*sſ*sſ*sx", r"(?i:a*)Aa*Aa*Ax", r"[^b]*a[^b]*a[^b]*ax", r"\D*[^5]\D*[^5]\D*[^5]x"]
)
def test_characters_that_can_be_the_same_are_known_as_such(source: str) -> None:
    with pytest.raises(ConfigError, match="too long"):
        Segmenter(f"re:{source}")


ATOMS = st.sampled_from(["a", "[ab]", "a?", ".", "b", r"\w", "(?=a)", r"\s", r"\d", "[^a]", r"[\da]", r"\b", "(?i:A)", r"(?>a*)", r"\W"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: f"(?:{'|'.join(some)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "*?", "?", "{0,9}", "{3,}", "{2}", "*+"])).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        inner.map(lambda one: f"(?={one})a"),
    ),
    max_leaves=12,
)


@LAW
@given(PATTERNS, st.sampled_from(["a", "1", " ", "a ", "a1", "\n"]))
def test_a_pattern_that_is_taken_searches_any_text_in_a_moment(source: str, text: str) -> None:
    try:
        scan = Segmenter(f"re:{source}X").start()
    except ConfigError:
        return
    data = (text * 200).encode()
    begun = time.process_time()
    assert not scan.feed(data[:160]) and not scan.feed(data[:32])
    scan.feed(data[:20] + b"X")
    assert time.process_time() - begun < 3


def test_stop_strings_and_tags_that_cannot_be_used_are_refused() -> None:
    for stop in ("User:", ("",), ("a", 3), ("a" * 257,), ("a",) * 17, ("\udc80",)):
        with pytest.raises(ConfigError):
            Segmenter(stop=stop)  # type: ignore[arg-type]
    for thought in (("<think>",), "ab", ("a", "a"), ("<think>\n", "</think>"), ("", "b")):
        with pytest.raises(ConfigError):
            Segmenter(thought=thought)  # type: ignore[arg-type]


def test_a_segmenter_is_a_value() -> None:
    one = Segmenter("re:a", ["b"], ["<t>", "</t>"])  # type: ignore[arg-type]
    other = Segmenter("re:a", ("b",), ("<t>", "</t>"))
    assert one == other and hash(one) == hash(other) and one != Segmenter() and pickle.loads(pickle.dumps(one)) == one
    assert repr(Segmenter()) == "Segmenter(delimiter='paragraph', stop=(), thought=None, stop_after='never', in_thought=False, budget=0)"


@pytest.mark.parametrize(
    "unit", ["`", "\n", "\\[", "$", "~~~\n", "<think>", "</think><think>\n", "- ", "1. ", "STO", "Dr. ", " ", "\\", "\xff"]
)
@pytest.mark.parametrize("delimiter", ["paragraph", "sentence", r"re:\n\s*x", "text:STOP"])
def test_a_hostile_text_takes_time_in_proportion_to_its_length(unit: str, delimiter: str) -> None:
    segmenter = Segmenter(delimiter, ("STOP",), THINK)

    def seconds(size: int, whole: bool) -> float:
        raw = (unit.encode("latin-1") * size)[:size]
        pieces = [raw] if whole else [raw[place : place + 1] for place in range(size)]
        begun = time.process_time()
        segmenter.split(pieces)
        return time.process_time() - begun

    for whole in (True, False):
        small, large = min(seconds(1_000, whole) for _ in range(3)), seconds(16_000, whole)
        assert large < 80 * max(small, 0.001), "16 times the text; a second look at all of it would take 256 times as long"


@pytest.mark.parametrize("unit", ["`", "\n", "\\["])
def test_a_megabyte_is_read_in_seconds(unit: str) -> None:
    raw = unit.encode() * (2**20 // len(unit))
    begun = time.process_time()
    assert Segmenter().split([raw, b"\n\n"])[-1] == 2
    assert time.process_time() - begun < 10
