"""Where steps end: each delimiter by examples, and the laws that hold for all of them."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rsd_local.segments import Scan, Segmenter, markup

LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault
THINK = ("<think>", "</think>")
PARTS = [
    "\n", "\n\n", "\r\n", " ", "a", "Step 1.", "3.14", "Dr.", "é", "。", "…", "!", "```", "~~~", "```py\n", "`", "\\[", "\\]", "$$", "$",
    "\\\\[2pt]", "- ", "1. ", "   ", "<think>", "</think>", "STOP", "\\", "x y z", "**", "    ",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PARTS), max_size=30).map("".join)
SEGMENTERS = [
    Segmenter(delimiter, stop, thought)
    for delimiter in ("paragraph", "line", "sentence", "code-block", "tokens:3", r"re:\n\s*Step|\n- ", r"text:\n\n")
    for stop, thought in (((), None), (("STOP", "TO"), THINK))
]


@st.composite
def tokenized(draw: st.DrawFn) -> list[bytes]:
    """A text as the bytes of tokens that cut it anywhere, characters too; some are empty."""
    raw = draw(TEXTS).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=20)))
    return [raw[first:last] for first, last in pairwise([0, *cuts, len(raw)])]


def singly(text: str) -> list[bytes]:
    raw = text.encode()
    return [raw[place : place + 1] for place in range(len(raw))]


def steps(text: str, delimiter: str = "paragraph", **settings: object) -> list[str]:
    """The steps of a text whose tokens are single bytes."""
    cuts = Segmenter(delimiter, **settings).split(singly(text))  # type: ignore[arg-type]
    return [text.encode()[first:last].decode() for first, last in pairwise([0, *cuts])]


def fed(scan: Scan, pieces: list[bytes]) -> list[int]:
    """Behind which pieces steps end."""
    ends = []
    for place, piece in enumerate(pieces, 1):
        if scan.feed(piece):
            ends.append(place)
            scan.begin()
    return ends


# Laws


@LAW
@given(tokenized(), st.sampled_from(SEGMENTERS))
def test_splitting_is_feeding_token_by_token(pieces: list[bytes], segmenter: Segmenter) -> None:
    ends, cuts = fed(segmenter.start(), pieces), segmenter.split(pieces)
    assert cuts[-1] == len(pieces) and cuts == sorted(set(cuts))
    rest = b"".join(pieces[ends[-1] :]) if ends else b"x"
    assert cuts == ([*ends[:-1], len(pieces)] if not rest.strip() else [*ends, len(pieces)])


@LAW
@given(tokenized(), st.sampled_from(SEGMENTERS), st.data())
def test_no_cut_depends_on_what_comes_later(pieces: list[bytes], segmenter: Segmenter, data: st.DataObject) -> None:
    begun = data.draw(st.integers(0, len(pieces)))
    assert fed(segmenter.start(), pieces[:begun]) == [end for end in fed(segmenter.start(), pieces) if end <= begun]


@LAW
@given(tokenized(), st.sampled_from(SEGMENTERS), st.data())
def test_a_copy_goes_on_as_the_original_would_and_leaves_it_alone(pieces: list[bytes], segmenter: Segmenter, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(pieces)))
    scan, other = segmenter.start(), segmenter.start()
    assert fed(scan, pieces[:place]) == fed(other, pieces[:place])
    fork = scan.copy()
    fed(fork, [b"Step\n\n```\nStep \\[ <think> STO", b"P\n\n"])
    assert fed(scan.copy(), pieces[place:]) == fed(scan, pieces[place:]) == fed(other, pieces[place:])


@LAW
@given(tokenized())
def test_a_paragraph_ends_where_its_two_newlines_as_a_text_or_a_pattern_do(pieces: list[bytes]) -> None:
    pieces = [piece.replace(b"\r", b"") for piece in pieces]
    cuts = Segmenter().split(pieces)
    assert cuts == Segmenter(r"text:\n\n").split(pieces) == Segmenter("text:\n\n").split(pieces) == Segmenter(r"re:\n\n").split(pieces)
    assert Segmenter("line").split(pieces) == Segmenter(r"text:\n").split(pieces)


@LAW
@given(tokenized())
def test_a_forgotten_fence_is_forgotten_by_all_delimiters_at_once(pieces: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markup, "FENCE_LIMIT", 9)
        patch.setattr(markup, "MATH_LIMIT", 4)
        test_a_paragraph_ends_where_its_two_newlines_as_a_text_or_a_pattern_do.hypothesis.inner_test(pieces)  # type: ignore[attr-defined]


@LAW
@given(st.lists(st.sampled_from(["\n", "\n\n", " ", "a", "b c", "\t", "é", "1."]), max_size=20).map("".join), st.data())
def test_plain_paragraphs_end_as_they_did_before_there_were_segmenters(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=20)))
    pieces = [raw[first:last] for first, last in pairwise([0, *cuts, len(raw)])]
    old, step = [], b""
    for place, piece in enumerate(pieces, 1):
        step += piece
        at = step.rfind(b"\n\n")
        if at >= 0 and step[:at].strip():
            old.append(place)
            step = b""
    if not step.strip() and old:
        old.pop()
    assert Segmenter().split(pieces) == [*old, len(pieces)]


LINES = [
    "",
    "a",
    "```",
    "````",
    "~~~",
    "  ```",
    "    ```",
    "```py",
    "``` a`b",
    "~~~ a`b",
    "```  ",
    "   ~~~~",
    "`x`",
    "    b",
    "``",
    "``` a",
]


@LAW
@given(st.lists(st.sampled_from(LINES), max_size=12))
def test_a_code_block_is_what_commonmark_calls_one(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in [*lines, "the end"])
    fences = [token.map for token in MarkdownIt("commonmark").parse(text) if token.type == "fence" and token.map]
    # A line ends a step unless it stands in a code block; that one's last line closes it, where anything does.
    inside = {line for first, last in fences for line in range(first, last if last > len(lines) else last - 1)}
    wanted, begun = [], 0
    for place in range(len(lines)):
        if place not in inside and any(line.strip() for line in lines[begun : place + 1]):
            begun = place + 1
            wanted.append(begun)
    assert fed(Segmenter("line").start(), [f"{line}\n".encode() for line in lines]) == wanted


@LAW
@given(st.lists(st.sampled_from(["\\[", "\\]", "$$", "\n", "\n\n", "a", " ", "\\\\", "$ "]), max_size=25).map("".join))
def test_mathematics_is_read_as_if_it_had_no_newlines(text: str) -> None:
    masked = re.sub(
        r"\\\\|\\\[(?:[^\\]|\\\\|\\\[)*(?:\\\]|$)|\$\$(?s:.)*?(?:\$\$|$)",
        lambda span: span[0].replace("\n", "x"),
        text,
    )
    assert fed(Segmenter().start(), singly(text)) == fed(Segmenter().start(), singly(masked.replace("\\", "x").replace("$", "x")))


# Delimiters


def test_a_paragraph_ends_with_a_blank_line() -> None:
    assert steps("\n\na b\n\nc\nd\n\n\n\ne") == ["\n\na b\n\n", "c\nd\n\n", "\n\ne"]
    assert steps("a\r\n\r\nb\r\nc") == ["a\r\n\r\n", "b\r\nc"]
    assert steps("a\n\r\nb") == ["a\n\r\n", "b"]


def test_a_line_with_a_space_in_it_is_not_blank() -> None:
    assert steps("a\n \nb") == ["a\n \nb"] and steps("a\n\t\n\nb") == ["a\n\t\n\n", "b"]


def test_a_step_ends_with_the_token_in_which_its_delimiter_completes() -> None:
    assert Segmenter().split([b"a\n", b"\nb", b"c"]) == [2, 3]
    assert Segmenter().split([b"a", b"\n\n\n", b"\n", b"b"]) == [2, 4]
    assert Segmenter().split([b"\n\na\n\nb", b"\n", b"\nc"]) == [1, 3], "what a token has behind its delimiter is no beginning of a step"


def test_what_is_blank_at_the_end_goes_with_the_step_before() -> None:
    assert Segmenter().split([b"a\n\n", b"\n", b""]) == [3]
    assert Segmenter().split([b"\n", b"\n", b""]) == [3] and Segmenter().split([]) == [0]
    assert Segmenter().split([b"a\n\n", b""]) == [2] and Segmenter().split([b"a\n\n", b"b", b""]) == [1, 3]


def test_a_token_without_bytes_is_nothing_that_stands_before_a_delimiter() -> None:
    assert Segmenter().split([b"", b"\n\n", b"a\n\n", b""]) == [4]
    assert Segmenter().split([b"a\n\nb", b"", b" ", b"\n\n", b"c"]) == [1, 5]


def test_a_line_ends_with_a_newline() -> None:
    assert steps("\n\na\nb\r\n\nc", "line") == ["\n\na\n", "b\r\n", "\nc"]


def test_tokens_are_counted_whatever_stands_in_them() -> None:
    assert Segmenter("tokens:2").split([b"\n\n"] * 2 + [b"```\n"] * 3) == [2, 4, 5]
    scan = Segmenter("tokens:2").start()
    assert [scan.feed(b"a"), scan.begin(), scan.feed(b"b"), scan.feed(b"")] == [False, None, False, True]


@pytest.mark.parametrize(
    "sentences",
    [
        ["It is 3.14 or so. ", "Is it? ", "Yes! ", "Well…\n", "No... ", "Done"],
        ["Ask Dr. Who, e.g. in the U.S. or J. Smith et al. etc. now. ", "Then (see Fig. 2.) ", "go."],
        ['He said "stop." ', "**Bold.** ", "End"],
        ["1. First item. ", "Second\n", "2. Third\n", " a. Fourth. ", "x"],
        ["The answer is 42. ", "Thus 5! is 120 and n! grows. ", "x"],
        ["你好。", "好吗？", "好！", "x.y"],
        ["v1.2 of a.b.c\n", "\n3.\tx y. ", "z"],
        ["So \\[ a. b. \n c \\] is it.\n", "```\na. b.\n\n```\n", "Then."],
    ],
)  # fmt: skip
def test_sentences(sentences: list[str]) -> None:
    assert steps("".join(sentences), "sentence") == sentences


def test_a_delimiter_may_be_any_text() -> None:
    assert steps("a\n\nb\nStep 2: c", r"text:\nStep") == ["a\n\nb\nStep", " 2: c"]
    assert steps("a\tb\\c", r"text:\t") == ["a\t", "b\\c"] and steps("a\tb\\c", r"text:\\") == ["a\tb\\", "c"]
    assert steps("-- a -- b", "text:--") == ["-- a --", " b"], "nothing stands before the first"
    assert steps("----", "text:--") == ["----"]
    assert steps("aé b é", "text:é") == ["aé", " b é"]
    assert Segmenter("text:é").split([b"a\xc3", b"\xa9b", b"c"]) == [2, 3]


def test_a_delimiter_may_be_a_pattern() -> None:
    assert steps("a\n## b\n#c\n# d", r"re:^#+ ") == ["a\n## ", "b\n#c\n# ", "d"]
    assert steps("ax\nStep 1\nb", r"re:\n(?=Step \d)") == ["ax\nStep 1", "\nb"]
    assert steps("Dr. a b. c", r"re:(?<!Dr)\. ") == ["Dr. a b. ", "c"]
    assert steps("a" * 500 + "\n" + "b" * 500 + "\nc", r"re:\n\w") == ["a" * 500 + "\nb", "b" * 499 + "\nc"]


def test_a_pattern_sees_its_step_only_and_not_for_ever() -> None:
    assert steps("ab" + "x" * 400 + "ba", r"re:b[^b]*b") == ["ab" + "x" * 400 + "ba"], "further apart than its reach"
    assert steps("a " + "x" * 400 + "y", r"re:^x+y|\Ax+y") == ["a " + "x" * 400 + "y"], "where it is cut, no line begins"
    assert steps("ab" * 300, r"re:(?<!a)b") == ["ab" * 300], "what lies behind is seen after the text was cut short"


# What stands open


def test_a_code_block_of_three_paragraphs_is_one_step() -> None:
    code = "```python\na\n\nb\n\n\nc\n```\n"
    assert steps(f"So:\n\n{code}\nThen\n\n") == ["So:\n\n", f"{code}\n", "Then\n\n"]
    assert steps(f"{code}x", "line") == [code, "x"]
    assert steps(f"{code}x\n\n{code}", "code-block") == [code, "x\n\n", code]
    assert steps("a\n\n~~~ `\n\n```\n\n~~~~\r\n\r\nb") == ["a\n\n", "~~~ `\n\n```\n\n~~~~\r\n\r\n", "b"]
    assert Segmenter().split([b"a\n\n``", b"`\nb\n\n", b"c\n", b"```\n", b"\n", b"d"]) == [1, 5, 6]


def test_a_list_item_indents_its_code_block_further() -> None:
    item = "10. Do:\n    - this\n\n      ```\n      a\n\n      b\n      ```\n\n"
    assert steps(item + "c") == ["10. Do:\n    - this\n\n", item[item.index("      ```") :], "c"]
    assert steps("- ```\n  a\n\n  ```\n\nb") == ["- ```\n  a\n\n  ```\n\n", "b"]
    assert steps("a\n\n      ```\n\nb") == ["a\n\n", "      ```\n\n", "b"], "outside of a list it is no fence"
    assert steps("1234567890. a\n\n            ```\n\nb")[-1] == "b", "ten digits are no list marker"
    assert steps("- a\n\nb\n\n     ```\n\nc")[-1] == "c", "the list was over"


def test_no_step_ends_inside_display_mathematics() -> None:
    assert steps("a \\[ x\n\ny\n\nz \\] b\n\nc") == ["a \\[ x\n\ny\n\nz \\] b\n\n", "c"]
    assert steps("a\n\n$$\nx\n\ny $\n\n$$\n\nc") == ["a\n\n", "$$\nx\n\ny $\n\n$$\n\n", "c"]
    assert steps("\\[\nx\n\\]\nc", "line") == ["\\[\nx\n\\]\n", "c"]
    assert steps("\\[ a $$ b \\]\n\nc") == ["\\[ a $$ b \\]\n\n", "c"]
    assert Segmenter().split([b"\\", b"[a\n\n", b"b$", b"$\n\n\\", b"]\n", b"\n"]) == [6]


@pytest.mark.parametrize("text", ["\\\\[4pt]", "`\\[`", "``a ` $$``", "\\$$", "$5", "``` a ``` $", "\\]", "1.\\\\["])
def test_what_opens_nothing(text: str) -> None:
    assert steps(f"{text}\n\nb") == [f"{text}\n\n", "b"]


def test_what_is_left_open_does_not_swallow_the_answer() -> None:
    paragraphs = "abc def\n\n" * 3_000
    for opening, limit in (("\\[", markup.MATH_LIMIT), ("$$", markup.MATH_LIMIT), ("```\n", markup.FENCE_LIMIT)):
        first, *others = steps(opening + paragraphs)
        assert limit < len(first) < limit + 30 and set(others) == {"abc def\n\n"}, opening
    assert steps("```\n" + "\n" * markup.FENCE_LIMIT + "a\n\nb")[1:] == ["a\n\n", "b"]
    assert steps("\\[ a\n\n```\nb\n\n```\n\nc\n\nd")[1:] == ["c\n\n", "d"], "a code block ends mathematics"


def test_what_is_open_stays_open_where_a_limit_cuts_a_step() -> None:
    scan = Segmenter().start()
    assert not any(map(scan.feed, [b"a $$ b\n", b"c"]))
    scan.begin()
    assert [scan.feed(piece) for piece in (b"d\n\n", b"e $$", b"\n\n")] == [False, False, True]
    scan.begin()
    assert not any(map(scan.feed, [b"```", b"py\na", b"\n"]))
    scan.begin()
    assert [scan.feed(piece) for piece in (b"d\n\n", b"``", b"`\n", b"\n")] == [False, False, False, True]
