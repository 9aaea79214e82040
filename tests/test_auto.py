"""The strategy that drafts only where that pays: what it chooses, what trying costs, and that a text depends on who wrote its steps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from test_cli import rsd as run_rsd
from test_decisions import FEW, LIMITS, check_each_step
from test_rsd import QUESTION, role, trio_of
from tiny import write_model

from rsd_local import Chosen, Limits, Params, Reasoner, TextWritten, Trio, Weighting
from rsd_local.config import Search
from rsd_local.decoding.auto import Chooser, Piece
from rsd_local.decoding.speculation import PROPOSED
from rsd_local.decoding.way_costs import WayCosts
from rsd_local.errors import ConfigError
from rsd_local.events import Event, StepDone, Way
from rsd_local.run import collect
from rsd_local.runtime import LatencyModel
from rsd_local.steps import Step

WAYS: tuple[Way, ...] = ("draft", "target", "speculate")
HALF = Weighting("constant", probability=0.5)


def spent(costs: dict[Way, float], steps: int, way_costs: WayCosts | None = None, reading: float = 0.0) -> tuple[float, Counter[Way]]:
    """Seconds a token over some steps of ways that cost so much, and how often each was chosen.

    With ``reading``, the seconds a token in which a draft reads what it did not write.
    """
    way_costs, chosen, seconds = way_costs or WayCosts(), Counter[Way](), 0.0
    unread = dict.fromkeys(costs, 0)
    for _ in range(steps):
        way = way_costs.choose(tuple(costs), unread)
        for one in unread:
            unread[one] += 20
        if way != "target":
            way_costs.caught_up(way, unread[way], reading * unread[way])
            seconds += reading * unread[way]
            unread[way] = 0
        chosen[way] += 1
        seconds += costs[way] * 20
        way_costs.note(way, 20, costs[way] * 20)
    return seconds / steps / 20, chosen


@pytest.mark.parametrize("dear", [1.05, 1.3, 2.0, 10.0])
@pytest.mark.parametrize("best", WAYS)
def test_what_is_slower_is_tried_again_for_a_hundredth_of_the_time(best: Way, dear: float) -> None:
    costs = {way: 1.0 if way == best else dear for way in WAYS}
    way_costs = WayCosts()
    _, first = spent(costs, 6, way_costs)
    assert first == dict.fromkeys(WAYS, 2)
    cost, chosen = spent(costs, 2000, way_costs)
    assert cost <= 1.0105
    assert dear == 10.0 or min(chosen.values()) > 1


@pytest.mark.parametrize("reading", [0.01, 0.04, 0.2])
def test_what_the_draft_must_read_before_a_try_is_among_what_trying_may_cost(reading: float) -> None:
    way_costs, costs = WayCosts(), dict[Way, float](zip(WAYS, (1.1, 1.0, 1.2), strict=True))
    spent(costs, 6, way_costs, reading)
    for steps in (40, 100, 400, 2000):
        cost, _ = spent(costs, steps, way_costs, reading)
        assert cost <= 1.0205
    _, chosen = spent(dict(zip(WAYS, (0.7, 1.0, 1.2), strict=True)), 8000, way_costs, reading)
    assert chosen["draft"] > 1000 or reading > 0.1, "it is not given up, where reading alone does not cost more than may be lost"


def test_one_long_step_is_enough_to_prefer_a_way() -> None:
    way_costs = WayCosts()
    for way, tokens, seconds in (("draft", 40, 80.0), ("target", 40, 40.0), ("speculate", 40, 60.0)):
        assert way_costs.choose(WAYS, {}) == way
        way_costs.note(way, tokens, seconds)  # type: ignore[arg-type]
    assert way_costs.choose(WAYS, {}) == "target"


def test_what_trying_may_cost_does_not_pile_up_while_all_is_well() -> None:
    """After a long time of one cost each, a way that becomes dear is left soon, and is not tried at a stretch."""
    way_costs = WayCosts()
    spent({"draft": 1.0, "target": 1.2, "speculate": 1.2}, 20_000, way_costs)
    spent({"draft": 3.0, "target": 1.2, "speculate": 1.2}, 20, way_costs)
    assert spent({"draft": 3.0, "target": 1.2, "speculate": 1.2}, 200, way_costs)[1]["draft"] <= 4


@pytest.mark.parametrize(("before", "after"), [(a, b) for a, b in product(WAYS, WAYS) if a != b])
def test_the_way_follows_what_is_measured(before: Way, after: Way) -> None:
    way_costs = WayCosts()
    spent({way: 1.0 if way == before else 1.3 for way in WAYS}, 200, way_costs)
    spent({way: 0.7 if way == after else 1.0 if way == before else 1.3 for way in WAYS}, 3000, way_costs)
    assert way_costs.costs(WAYS)[after] == pytest.approx(0.7)
    _, chosen = spent({way: 0.7 if way == after else 1.3 for way in WAYS}, 100, way_costs)
    assert chosen[after] > 90


def test_a_way_alone_is_always_chosen() -> None:
    assert spent({"draft": 5.0}, 50)[1] == {"draft": 50}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, made = tmp_path_factory.mktemp("auto"), dict[str, Path]()
    for kind in ("dense", "hybrid"):
        for name, seed, noise in (("draft", 1, 0.05), ("target", 1, 0.0), ("reward", 2, 0.0)):
            made[f"{kind}-{name}"] = write_model(folder / f"{kind}-{name}.gguf", kind, seed, noise=noise)
    return made


@pytest.fixture(scope="module", params=["dense", "hybrid"])
def reasoner(request: pytest.FixtureRequest, files: dict[str, Path]) -> Iterator[Reasoner]:
    with Reasoner.open(trio_of(files, request.param)) as opened:
        yield opened


def ways_of(events: list[Event]) -> list[Way]:
    return list(collect(iter(events)).ways)


def pieces_of(events: list[Event]) -> dict[int, list[Way]]:
    """The ways that were told, by step."""
    told: dict[int, list[Way]] = {}
    for event in events:
        if isinstance(event, Chosen):
            told.setdefault(event.index, []).append(event.way)
    return told


@pytest.mark.parametrize("pattern", ["dts", "ts", "ddddtttt", "s"])
def test_every_step_is_what_its_writer_writes_whichever_way_came_before(reasoner: Reasoner, pattern: str) -> None:
    names: dict[str, Way] = {"d": "draft", "t": "target", "s": "speculate" if reasoner.trio.speculates else "target"}
    ways = tuple(names[pattern[place % len(pattern)]] for place in range(60))
    params = Params(FEW, HALF, LIMITS, Search(ways=ways, fallback="on"))
    events = list(reasoner.run(QUESTION, params, strategy="auto", text=False))
    steps = [event for event in events if isinstance(event, StepDone)]
    assert len(steps) > 10 and ways_of(events) == list(ways[: len(steps)])
    assert all(step.author == "target" for step, way in zip(steps, ways, strict=False) if way != "draft")
    assert all((step.rejected is None) and step.reward is None for step, way in zip(steps, ways, strict=False) if way != "draft")
    check_each_step(reasoner, events, params)


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_an_answer_is_made_again_by_its_ways(files: dict[str, Path], kind: str) -> None:
    params = Params(FEW, HALF, LIMITS)
    with Reasoner.open(trio_of(files, kind)) as opened:
        events = list(opened.run(QUESTION, params, strategy="auto", text=False))
        ways, allowed = ways_of(events), WAYS if opened.trio.speculates else WAYS[:2]
        again = opened.solve(QUESTION, replace(params, search=Search(ways=tuple(ways))), strategy="auto")
    assert set(ways) == set(allowed)
    assert list(again.ways) == ways
    assert [step.text for step in again.steps] == [event.text for event in events if isinstance(event, StepDone)]
    chosen = [event for event in events if isinstance(event, Chosen)]
    assert list(pieces_of(events)) == list(range(len(ways)))
    assert set(chosen[-1].seconds) == set(allowed) and all(cost > 0 for cost in chosen[-1].seconds.values())


LONG = Limits(tokens=300, step_tokens=100, repeats=0)


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_step_of_several_pieces_is_what_its_writer_writes(files: dict[str, Path], kind: str, share: float) -> None:
    """Ways that are tried write a piece each, the fastest what is left; a drafted step that is taken back is written like that too."""
    params = Params(FEW, Weighting("constant", probability=share), LONG, Search(fallback="on"))
    with Reasoner.open(trio_of(files, kind)) as opened:
        answers = [list(opened.run(QUESTION, params, strategy="auto")) for _ in range(3)]
        for events in answers:
            check_each_step(opened, events, params)
            for step in (event for event in events if isinstance(event, StepDone)):
                shown = [one for one in events if isinstance(one, TextWritten) and (one.index, one.author) == (step.index, step.author)]
                assert "".join(one.text for one in shown) == step.text
        speculates = opened.trio.speculates
    first = pieces_of(answers[0])
    tried = [list(told) for told in first.values() if "speculate" in told]
    assert not speculates or "target" in tried[0][tried[0].index("speculate") :], "what is left, by the way that was not measured yet"
    assert first[0][0] == "draft" and speculates == bool(tried)


def test_a_piece_has_the_tokens_that_its_way_wrote(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """And not those that were kept of the rejected step before it began."""
    noted, kept, starts = Counter[Way](), dict[int, int](), list[int]()
    note, piece = WayCosts.note, Chooser.piece

    def noting(self: WayCosts, way: Way, tokens: int, seconds: float) -> None:
        noted[way] += tokens
        note(self, way, tokens, seconds)

    def beginning(self: Chooser, begun: Step) -> Piece:
        kept.setdefault(self._solution.steps, len(begun.tokens))
        starts.append(len(begun.tokens))
        return piece(self, begun)

    monkeypatch.setattr(WayCosts, "note", noting)
    monkeypatch.setattr(Chooser, "piece", beginning)
    with Reasoner.open(trio_of(files)) as opened:
        never = Weighting("constant", probability=0.0)
        result = opened.solve(QUESTION, Params(FEW, never, LONG, Search(fallback="on")), strategy="auto")
    written = sum(step.tokens for step in result.steps if step.author == "target")
    assert sum(kept.values()) > 0 and noted["target"] + noted["speculate"] == written - sum(kept.values())
    assert len(starts) > len(kept), "some steps have several pieces"
    assert noted["draft"] == sum(step.tokens for step, way in zip(result.steps, result.ways, strict=True) if way == "draft")


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
@pytest.mark.parametrize("pattern", ["ts", "sst", "stts"])
@pytest.mark.parametrize("drafted", [0, 2, 3])
def test_a_step_is_its_writers_own_wherever_ways_change_within_one(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str, pattern: str, drafted: int
) -> None:
    """In the middle of a step the draft reads what the target wrote alone, and proposes again from there.

    The drafted steps between show that it has each token once.
    """
    asked, steps = list[Way](), list[Way]()

    def choose(self: WayCosts, ways: tuple[Way, ...], unread: Mapping[Way, int]) -> Way:
        if "draft" in ways and drafted:
            steps.append("draft" if len(steps) % drafted == drafted - 1 else "target")
            return steps[-1]
        asked.append("speculate" if pattern[len(asked) % len(pattern)] == "s" and "speculate" in ways else "target")
        return asked[-1]

    monkeypatch.setattr(WayCosts, "choose", choose)
    monkeypatch.setattr(WayCosts, "prefers", lambda *_: False)
    params = Params(FEW, HALF, Limits(tokens=600, step_tokens=100, repeats=0), Search(fallback="on"))
    with Reasoner.open(trio_of(files, kind)) as opened:
        events = list(opened.run(QUESTION, params, strategy="auto", text=False))
        check_each_step(opened, events, params)
        speculates = opened.trio.speculates
        alone = opened.solve(QUESTION, params, strategy="target")
        guessed = collect(iter(events)).counters["target"]
    made = [event for event in events if isinstance(event, StepDone)]
    assert drafted or [event.text for event in made] == [step.text for step in alone.steps]
    assert not drafted or {event.author for event in made} == {"draft", "target"}
    assert not speculates or (set(asked) == {"speculate", "target"} and len(asked) > 6)
    assert not speculates or guessed.kept_tokens > guessed.missed_guesses, "a draft much like the target guesses well where it reads right"


def test_another_way_is_asked_for_after_96_tokens_of_the_fastest_and_24_of_another(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tried piece ends with the batch in which its tokens are full; the first one of an answer is short, for it is not measured."""
    ways, starts = list[Way](), list[int]()
    piece = Chooser.piece

    def noting(self: Chooser, begun: Step) -> Piece:
        found = piece(self, begun)
        ways.append(found.way)
        starts.append(len(begun.tokens))
        return found

    monkeypatch.setattr(Chooser, "piece", noting)
    monkeypatch.setattr(WayCosts, "choose", lambda *_: "speculate" if len(ways) % 3 == 2 else "target")
    monkeypatch.setattr(WayCosts, "prefers", lambda _, way, ways: way == "target")
    params = Params(FEW, limits=Limits(tokens=700, step_tokens=700, repeats=0))
    with Reasoner.open(trio_of(files)) as opened:
        opened.solve(QUESTION, params, strategy="auto")
    written = [(way, after - before) for way, before, after in zip(ways, starts, starts[1:], strict=False)]
    assert len(written) > 5 and written[0] == ("target", 24)
    for way, tokens in written[1:]:
        assert tokens == 96 if way == "target" else 24 <= tokens < 24 + 1 + PROPOSED


def test_answers_of_one_step_are_learned_from(files: dict[str, Path]) -> None:
    """Nobody asks for the way of a next step there; still each way is measured, and its tokens and no others are counted."""
    params = Params(FEW, Weighting("constant", probability=0.0), Limits(tokens=60, step_tokens=60, repeats=0))
    with Reasoner.open(trio_of(files)) as opened:
        events = list(opened.run(QUESTION, params, strategy="auto", text=False))
        known = opened.trio.way_costs
        (first,) = pieces_of(events).values()
        assert first[:3] == ["draft", "speculate", "target"] and set(first[3:]) <= {"speculate"}
        assert known.fastest(WAYS) == min(known.costs(WAYS), key=known.costs(WAYS).__getitem__), "all are known well enough"
        (again,) = pieces_of(list(opened.run(QUESTION, params, strategy="auto", text=False))).values()
    assert again[0] == known.fastest(WAYS)


@pytest.mark.parametrize("best", WAYS)
def test_another_try_of_the_targets_ways_may_cost_a_piece_and_one_of_the_draft_a_step(best: Way) -> None:
    """Where steps are long: what was written by the way that was preferred does not count as what a try would cost."""
    way_costs = WayCosts()
    for way in sorted(WAYS, key=lambda way: way != best):
        way_costs.note(way, 400, 400.0 if way == best else 800.0)
    for _ in range(10_000):
        if (way := way_costs.choose(WAYS, {})) != best:
            break
        way_costs.passed(100.0)
    assert way not in (best, "draft"), "a piece costs 24 seconds more, a step of the draft 400"


def test_what_is_known_of_the_ways_outlives_an_answer(files: dict[str, Path]) -> None:
    with Reasoner.open(trio_of(files)) as opened:
        first, second = (list(opened.run(QUESTION, Params(FEW, HALF, LIMITS), strategy="auto", text=False)) for _ in range(2))
    one, other = (next(event for event in events if isinstance(event, Chosen)) for events in (first, second))
    assert one.seconds == {} and set(other.seconds) == set(WAYS)


def test_a_program_that_checks_is_never_passed_by(files: dict[str, Path]) -> None:
    trio = Trio(role(files["dense-draft"]), role(files["dense-target"]), reward_kind="verifier", verifier=lambda *_: 1.0, reuse=False)
    with Reasoner.open(trio) as opened:
        result = opened.solve(QUESTION, Params(FEW, limits=LIMITS), strategy="auto")
    assert set(result.ways) == {"draft"} and result.target_share == 0


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_way_that_the_target_cannot_afford_is_not_chosen(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr(WayCosts, "choose", lambda _, ways, unread: ways[-1])  # never the draft where there is another
    params = Params(FEW, Weighting(threshold=0.0, target_budget=share), LIMITS, Search(fallback="on"))
    with Reasoner.open(trio_of(files)) as opened:
        events = list(opened.run(QUESTION, params, strategy="auto", text=False))
        check_each_step(opened, events, params)
        again = replace(params, search=Search(ways=tuple(ways_of(events)), fallback="on"))
        monkeypatch.undo()
        assert ways_of(list(opened.run(QUESTION, again, strategy="auto", text=False))) == ways_of(events)
    tokens = own = 0
    steps = [event for event in events if isinstance(event, StepDone)]
    for step, way in zip(steps, ways_of(events), strict=True):
        usual = max(1, tokens // max(1, step.index))
        assert (way == "draft") is not (own + usual <= share * (tokens + usual))
        tokens += step.tokens
        own += step.tokens if step.author == "target" else 0
        assert own <= share * tokens + LIMITS.step_tokens
    assert len(steps) > 10 and (own > 0) == (share > 0)


@pytest.mark.parametrize("parallel", [1, 2])
def test_the_time_between_events_is_nobodys(files: dict[str, Path], parallel: int) -> None:
    """What a slow reader of events takes belongs to no way, by the clock and by batches."""
    import time

    with Reasoner.open(replace(trio_of(files), parallel=parallel)) as opened:
        for event in opened.run(QUESTION, Params(FEW, HALF, replace(LIMITS, tokens=80)), strategy="auto", text=False):
            if isinstance(event, Chosen):
                assert all(cost < 0.05 for cost in event.seconds.values())
                time.sleep(0.05 * 9)


def test_the_command_line_goes_the_ways_of_a_result_again(tmp_path: Path) -> None:
    def rsd(*args: str) -> tuple[int, str, str]:
        done = run_rsd("solve", "12+30-5*4+7", *args)
        return done.returncode, done.stdout, done.stderr

    code, out, _ = rsd("--strategy", "auto", "--json")
    made, file = json.loads(out), tmp_path / "made.json"
    assert code == 0 and made["answer"] == "29" and len(made["ways"]) == len(made["steps"])
    file.write_text(out, encoding="utf-8")
    again = json.loads(rsd("--strategy", "auto", "--replay", str(file), "--json")[1])
    assert again["ways"] == made["ways"] and again["text"] == made["text"]
    assert (refused := rsd("--replay", str(file)))[0] == 2 and "--strategy auto" in refused[2]
    for text in ("{}", "[1]", '{"ways": ["up"]}', '{"ways": 3}', "no json"):
        file.write_text(text, encoding="utf-8")
        code, _, err = rsd("--strategy", "auto", "--replay", str(file))
        assert code == 2 and "holds no ways" in err and err.count("\n") == 1


def test_no_table_of_accuracy_has_it() -> None:
    from rsd_local.bench.strategies import read_strategy

    with pytest.raises(ConfigError, match="a moment"):
        read_strategy("auto", Params())
    with pytest.raises(ConfigError, match="way"):
        Search(ways=("up",))  # type: ignore[arg-type]


def test_a_batchs_time_lies_on_a_line_between_the_sizes_that_were_seen() -> None:
    model = LatencyModel()
    assert model.seconds(1) is None
    for rows, seconds in [(128, 9.0), (1, 9.0), *[(1, 1.0), (128, 13.7)] * 5]:  # the first two are not counted
        model.note(rows, seconds)
    assert model.seconds(1) == pytest.approx(1.0) and model.seconds(128) == pytest.approx(13.7)
    assert model.seconds(2) == pytest.approx(1.1) and model.seconds(9) == pytest.approx(1.8) and model.seconds(256) == pytest.approx(26.5)


def test_rows_are_added_to_the_batch_that_others_share() -> None:
    """With seven other requests in a batch, one row more costs what the eighth to ninth do, not the first to second."""
    model = LatencyModel()
    for _ in range(200):
        model.note(8, 1.0, 8)
        model.note(16, 1.2, 8)
    single, double = model.seconds(1), model.seconds(9)
    assert single is not None and double is not None and double - single == pytest.approx(0.2, abs=0.05)


def test_one_size_alone_says_nothing_of_much_larger_ones() -> None:
    model = LatencyModel()
    for _ in range(4):
        model.note(1, 1.0)
    assert model.seconds(1) == 1.0 and model.seconds(2) == 1.0 and model.seconds(8) is None
