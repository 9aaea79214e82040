"""What ends an answer, and what in it is a thought: stop strings and the tags of thoughts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_segments import LAW, THINK, singly, steps

from rsd_local.errors import ConfigError
from rsd_local.segments import Cut, Segmenter


def test_a_step_ends_where_a_stop_string_is_complete() -> None:
    scan = Segmenter(stop=("User:", "###")).start()
    assert not scan.feed(b"a\nUs") and scan.stopped is None
    assert scan.feed(b"er: b ###") and scan.stopped == 2
    scan.begin()
    assert scan.stopped is None and not scan.feed(b"#") and scan.feed(b"x###") and scan.stopped == 2


def test_a_stop_string_that_began_in_an_earlier_step_is_there_from_the_start() -> None:
    scan = Segmenter(stop=("\n\nUser",)).start()
    assert scan.feed(b"abc\n\n") and scan.stopped is None
    scan.begin()
    assert not scan.feed(b"Us") and scan.feed(b"er") and scan.stopped == 0


@LAW
@given(st.text("abX", max_size=12), st.data())
def test_a_stop_string_is_found_at_the_same_place_in_any_tokens(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    places = []
    for pieces in (singly(text), [raw[first:last] for first, last in pairwise([0, *cuts, len(raw)])]):
        scan = Segmenter("tokens:999", ("aXb", "Xb", "bab", "abbX")).start()
        ended = any(map(scan.feed, pieces))
        assert ended == (scan.stopped is not None) == any(stop in text for stop in ("Xb", "bab", "abbX"))
        places.append(scan.stopped)
    assert places[0] == places[1]


def test_the_first_stop_string_counts_whatever_is_fed_behind_it() -> None:
    scan = Segmenter(stop=("END",)).start()
    assert scan.feed(b"a END b") and scan.feed(b"END") and scan.feed(b"c") and scan.stopped == 2


def test_no_byte_belongs_to_two_tags() -> None:
    scan = Segmenter(thought=("||", "|||")).start()
    assert [scan.feed(piece) for piece in (b"||", b"|a", b"||", b"|")] == [False, False, False, True]


def test_stop_strings_count_in_code_and_where_no_steps_end() -> None:
    scan = Segmenter("line", stop=("END",)).start(steps=False)
    assert not scan.feed(b"a\nb\n\n```\nc\n") and scan.feed(b"END") and scan.stopped == 11


def test_a_step_ends_with_its_thought_and_belongs_to_it() -> None:
    text = "<think>\n\nHm.\n\nSo.</think>\n\nIt is <think>.\n\n`<think>`\n\n</think>"
    pieces = singly(text)
    ends = Segmenter(thought=THINK).cuts(pieces)
    cuts = [text[first:last] for first, last in pairwise([0, *(end.at for end in ends)])]
    assert cuts == ["<think>\n\nHm.\n\n", "So.</think>", "\n\nIt is <think>.\n\n", "`<think>`\n\n", "</think>"]
    assert [end.part for end in ends] == ["thought", "thought", "answer", "answer", "answer"]


def test_a_template_may_have_opened_the_thought() -> None:
    segmenter = Segmenter(thought=THINK, in_thought=True)
    pieces = [b"Hm. </thi", b"nk>\n\nYes", b".\n\n", b"\n", b""]
    assert segmenter.cuts(pieces) == [Cut(2, 2, "thought"), Cut(5, 3, "answer")]
    scan = segmenter.start()
    assert scan.part == "thought" and not scan.feed(b"a")
    scan.begin()
    assert scan.part == "thought" and scan.feed(b"</think>") and scan.part == "thought"
    scan.begin()
    assert scan.part == "answer"
    with pytest.raises(ConfigError, match="no tag is known"):
        Segmenter(in_thought=True)


def test_a_thought_ends_what_it_left_open() -> None:
    text = "<think>\n```\na\n\nb\\[</think>\n\nc\n\nd\n\n<think>e\n\nf</think>g"
    assert steps(text, thought=THINK) == ["<think>\n```\na\n\nb\\[</think>", "\n\nc\n\n", "d\n\n", "<think>e\n\n", "f</think>", "g"]
    assert steps("```\n<think>\n\n```\n\na", thought=THINK) == ["```\n<think>\n\n```\n\n", "a"], "a tag in code opens nothing"
