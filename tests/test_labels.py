"""Labels of steps: each kind against what is worked out here by itself, on abacus and on scripted models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_calibration_code import CODE, CODE_ITEM, WRONG, unwatched
from test_cli import refused, rsd
from test_rsd import role
from tiny import chain, write_script

from rsd_local import Params, Reasoner, Sampling, Trio
from rsd_local.abacus.expression import parse
from rsd_local.abacus.task import check, solution
from rsd_local.answers import boxed
from rsd_local.bench.datasets import load_dataset
from rsd_local.calibration.gold import GoldSolution, read_gold, read_solutions
from rsd_local.calibration.labels import Label, Labelling
from rsd_local.calibration.rollouts import RolloutRow, Rollouts, roll_out, unpack
from rsd_local.calibration.training import gather
from rsd_local.catalogue import find_trio
from rsd_local.cli.trained import Training
from rsd_local.config import Limits, Search, Weighting
from rsd_local.errors import Cancelled, ConfigError
from rsd_local.evaluation.grading import Grader
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.paired import paired_interval
from rsd_local.evaluation.questions import question_seed
from rsd_local.events import Author, CancelToken, StepDone
from rsd_local.rewards.heads import ReadOut
from rsd_local.roles import DRAFT, TARGET, Stream
from rsd_local.runtime import LocalWriter, prompt_tokens
from rsd_local.runtime.writer import LocalStep
from rsd_local.sandbox import Sandbox
from rsd_local.segments import Scan
from rsd_local.steps import Step

LIMITS, TRIES = Limits(tokens=150), 6
ADVANTAGE = Labelling("advantage", TRIES)
HOT = Params(Sampling(1.2), limits=LIMITS, search=Search(samples=1))


def abacus_trio(**settings: object) -> Trio:
    trio = find_trio("abacus")
    draft, target = (replace(one, flash_attention="off", cache_type="f32") for one in (trio.draft, trio.target))
    usual = {"reward": None, "reward_kind": "confidence", "parallel": 4, "width": TRIES + 2, "reuse": False}
    return replace(trio, draft=draft, target=target, **usual | settings)


@pytest.fixture(scope="module")
def abacus() -> Iterator[Reasoner]:
    with Reasoner.open(abacus_trio()) as opened:
        yield opened


def rolled_out(
    reasoner: Reasoner, folder: Path, items: list[Item], labelling: Labelling, params: Params = HOT, cancel: CancelToken | None = None
) -> list[RolloutRow]:
    """The rows of questions, ordered; a folder that is there is gone on with. ``cancel`` is called after the second question."""
    sandbox = Sandbox.find() if items[0].tests else None

    def watch(done: int, total: int) -> None:
        if cancel is not None and done == 2:
            cancel.cancel()

    with Rollouts.open(folder, {}, resume=True) as kept, Grader(sandbox=sandbox) as grader:
        roll_out(reasoner, items, params, labelling, kept, grader, seed=1, cancel=cancel or CancelToken(), watch=watch)
        return sorted(kept.rows, key=lambda row: row["id"])


class Alone:
    """Each continuation by itself, from the text before it: no forks, nothing side by side, no shortcut."""

    def __init__(self, reasoner: Reasoner, place: int, item: Item) -> None:
        self.reasoner, self.item = reasoner, item
        self.sampling = Sampling(1.2, seed=question_seed(1, place))

    def write(self, author: Author, steps: list[Step], stream: Stream, *, one_step: bool = False) -> Step:
        """What a model writes behind some steps, each read from its text."""
        scan = self.reasoner.trio.segmenter.start(steps=one_step)
        with closing(self.at(author, steps)) as writer:
            writer.begin()
            return writer.start_writing(max(1, 150 - sum(len(step.tokens) for step in steps)), scan, self.sampling, stream).result()

    def at(self, author: Author, steps: list[Step]) -> LocalWriter:
        writer = self.reasoner.trio.writer(author, self.reasoner.read_prompt(self.item.question))
        for step in steps:
            writer.read(replace(step, tokens=[]))
        return writer

    def share(self, steps: list[Step], turn: int) -> float:
        """Of right answers behind some steps."""
        streams = [Stream(self.sampling.seed, DRAFT, turn, len(steps), TRIES + number) for number in range(TRIES)]
        if steps[-1].ended == "end":
            return float(self.right(steps))
        return sum(self.right([*steps, self.write("draft", steps, stream)]) for stream in streams) / TRIES

    def right(self, steps: list[Step]) -> bool:
        found = re.findall(r"\\boxed\{(-?\d+)\}", b"".join(step.raw for step in steps).decode())
        return bool(found) and found[-1] == self.item.answer


def steps_of(row: RolloutRow, reasoner: Reasoner) -> list[Step]:
    """A row's steps; the draft ended its text behind the last one, unless it ran out of tokens."""
    texts, model = [text.encode() for text in row["steps"]], reasoner.trio.draft.model
    tokens = [model.tokenize(text, continues=True) for text in texts]
    tokens[-1].append(-1)  # the end of the text counts as one
    return [
        Step(tokens[place], text, "delimiter" if place + 1 < len(texts) or sum(map(len, tokens)) > 150 else "end")
        for place, text in enumerate(texts)
    ]


def test_an_advantage_is_the_shares_behind_both_models_steps_compared(abacus: Reasoner, tmp_path: Path) -> None:
    items = load_dataset("arithmetic", 10, 8, level=4)
    rows = {row["id"]: row for row in rolled_out(abacus, tmp_path / "advantage", items, ADVANTAGE)}
    shares = {row["id"]: row["labels"] for row in rolled_out(abacus, tmp_path / "mc", items, Labelling("mc", TRIES))}
    compared = []
    for place in (3, 5, 9):  # among them one where the draft goes on right now and then, and behind the target's step more often
        item = items[place]
        row, alone = rows[item.id], Alone(abacus, place, item)
        steps = steps_of(row, abacus)
        assert len(row["labels"]) == len(steps)
        for number, label in enumerate(row["labels"]):
            before, last = steps[:number], number + 1 == len(steps)
            share = float(row["correct"]) if last else alone.share(steps[: number + 1], 0)
            own = alone.write("target", before, Stream(alone.sampling.seed, TARGET, 0, number, 0), one_step=True)
            theirs = alone.share([*before, own], 1)
            same = own.raw == steps[number].raw
            assert shares[item.id][number] == share, "the share behind the draft's step is the label of mc"
            assert label == float(same or share >= theirs), (item.id, number)
            compared.append((label, share, theirs, same))
    assert {label for label, *_ in compared} == {0.0, 1.0}
    assert any(label == 1 and share < 1 and not same for label, share, _, same in compared), "no better, though not always right"
    assert any(label == 0 and share > 0 for label, share, *_ in compared), "often right, and still the target's is better"
    assert any(same and share < theirs for _, share, theirs, same in compared), "chance alone makes no difference of one text"


def test_no_two_things_that_are_written_for_advantages_share_random_numbers(
    abacus: Reasoner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, streams = LocalWriter.start_writing, list[Stream]()

    def noted(self: LocalWriter, limit: int, until: Scan | None, sampling: Sampling, stream: Stream) -> LocalStep:
        streams.append(stream)
        return write(self, limit, until, sampling, stream)

    monkeypatch.setattr(LocalWriter, "start_writing", noted)
    rolled_out(abacus, tmp_path / "r", load_dataset("arithmetic", 4, 8, level=3), ADVANTAGE, replace(HOT, search=Search(samples=2)))
    assert len(streams) == len(set(streams)) > 100 and {stream.turn for stream in streams} == {0, 1}


def test_advantages_that_are_cancelled_are_gone_on_with(abacus: Reasoner, tmp_path: Path) -> None:
    items = load_dataset("arithmetic", 6, 8, level=4)
    whole = rolled_out(abacus, tmp_path / "whole", items, ADVANTAGE)
    with pytest.raises(Cancelled):
        rolled_out(abacus, tmp_path / "broken", items, ADVANTAGE, cancel=CancelToken())
    kept = Rollouts.read(tmp_path / "broken")
    assert 2 <= len(kept) < 6
    again = rolled_out(abacus, tmp_path / "broken", items, ADVANTAGE)
    assert [(row["id"], row["steps"], row["labels"]) for row in again] == [(row["id"], row["steps"], row["labels"]) for row in whole]
    for engine in abacus.engines().values():
        engine.sequence([1]).close()  # nothing of what was cancelled holds a slot


@pytest.mark.parametrize("able", [False, True])
def test_a_wrong_step_is_no_worse_than_that_of_a_target_that_cannot_do_it_either(tmp_path: Path, able: bool) -> None:
    """The draft goes wrong by itself, and goes on right behind right code; so it depends on the target alone."""
    words, mixed = [*CODE, *WRONG], chain(*WRONG) | dict(zip(CODE, [*CODE[1:], ""], strict=True))
    draft = write_script(tmp_path / "d.gguf", words, mixed)
    target = write_script(tmp_path / "t.gguf", words, chain(*CODE) | {text: CODE[1] for text in WRONG} if able else chain(*WRONG))
    trio = Trio(role(draft), role(target), reward_kind="confidence", system="", width=4, reuse=False)
    with Reasoner.open(trio) as reasoner:
        (row,) = rolled_out(reasoner, tmp_path / "r", [CODE_ITEM], Labelling("advantage", 2), Params(search=Search(samples=1)))
    assert row["labels"] == [0.0 if able else 1.0] * len(row["steps"]) and len(row["steps"]) == 2 and not row["correct"]


@pytest.mark.parametrize("label", ["mc", "advantage"])
def test_a_continuation_from_inside_a_code_block_ends_with_that_block(tmp_path: Path, label: Label) -> None:
    """As the solution itself does; a draft that would go on to a wrong block behind it shows the difference."""
    words, then = [*CODE, *WRONG], chain(*CODE[:-1], *WRONG)
    draft, target = write_script(tmp_path / "d.gguf", words, then), write_script(tmp_path / "t.gguf", words, chain(*WRONG))
    trio = Trio(role(draft), role(target), reward_kind="confidence", system="", delimiter="tokens:2", width=4, reuse=False)
    params = Params(limits=Limits(stop_after="code-block"), search=Search(samples=1))
    with Reasoner.open(trio) as reasoner:
        (row,) = rolled_out(reasoner, tmp_path / "r", [CODE_ITEM], Labelling(label, 2), params)
    assert "".join(row["steps"]) == "".join(CODE[:-1]) and row["labels"] == [1.0] * 3


def test_labels_of_a_verifier_are_what_it_says_of_each_step(tmp_path: Path) -> None:
    items = [replace(item, answer="") for item in load_dataset("arithmetic", 12, 8, level=3)]
    with Reasoner.open(abacus_trio(reward_kind="verifier", verifier="arithmetic")) as reasoner:
        rows = rolled_out(reasoner, tmp_path / "r", items, Labelling("verifier"))
        n_embd = reasoner.trio.draft.model.n_embd
    seen = set()
    for row in rows:
        for text, label in zip(row["steps"], row["labels"], strict=True):
            equation = re.fullmatch(r"(-?\d+)([-+*])\(?(-?\d+)\)?=(-?\d+)", text.strip())
            if equation is None:
                assert label is None or boxed(text) is None
                continue
            left, sign, right, result = equation.groups()
            worked = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign]
            assert label == float(worked == int(result)), text
            seen.add(label)
    assert seen == {0.0, 1.0}
    known = [label for row in rows for label in row["labels"] if label is not None]
    steps = gather(rows, n_embd)
    assert len(known) < sum(len(row["steps"]) for row in rows), "boxes hold nothing to check"
    assert sorted(steps.labels) == sorted(known) and len(steps.features) == len(steps.groups) == len(steps.confidences) == len(known)
    assert not any(row["correct"] for row in rows), "nobody knows the answers"


def marked(count: int, seed: int = 5) -> list[GoldSolution]:
    """Reference solutions, two of three with a slip in one step that the rest goes on from, marked by abacus' own check."""
    chance, made = np.random.default_rng(seed), []
    for number, item in enumerate(load_dataset("arithmetic", count, seed, level=3)):
        steps = solution(parse(item.question))
        if number % 3:
            place = int(chance.integers(len(steps) - 1))
            steps[place] = re.sub(r"=(-?)(\d+)$", lambda found: f"={found[1]}{int(found[2]) + 1}", steps[place])
        verdicts = check(item.question, steps)
        made.append(GoldSolution(replace(item, answer=""), tuple(steps), verdicts.index(False) if False in verdicts else -1))
    return made


def write_gold(file: Path, solutions: list[GoldSolution], *, array: bool = False) -> Path:
    rows = [{"id": one.item.id, "problem": one.item.question, "steps": one.steps, "label": one.first_error} for one in solutions]
    file.write_text(json.dumps(rows) if array else "".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("array", [False, True], ids=["lines", "array"])
def test_a_file_of_processbench_is_read_in_both_of_its_forms(tmp_path: Path, array: bool) -> None:
    solutions = marked(9)
    found = read_gold(write_gold(tmp_path / "gold.json", solutions, array=array))
    assert [(one.item.id, one.item.question, one.steps, one.first_error) for one in found] == [
        (one.item.id, one.item.question, one.steps, one.first_error) for one in solutions
    ]
    part = read_gold(tmp_path / "gold.json", limit=4, seed=1)
    assert len(part) == 4 and {one.item.id for one in part} < {one.item.id for one in found}


def test_what_follows_the_first_error_has_no_label(tmp_path: Path) -> None:
    rows = [
        {"problem": "1+1", "steps": ["a", "b", "c"], "label": 1, "generator": "someone", "final_answer_correct": False},
        {"problem": "1+1", "steps": ["a", "  ", "c"], "label": -1},
        {"problem": "2+2", "steps": ["a", "\n", "c"], "label": 2},
    ]
    file = tmp_path / "gold.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, two, three = read_gold(file)
    assert one.labels == (1.0, 0.0, None) and two.labels == (1.0, 1.0) and three.labels == (1.0, 0.0)
    assert one.problem == two.problem != three.problem and one.item.id == "gold-1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"problem": " "}, "no 'problem'"),
        ({"steps": "a"}, "no 'steps'"),
        ({"steps": []}, "no 'steps'"),
        ({"steps": ["a", 3]}, "no 'steps'"),
        ({"steps": [" ", ""], "label": -1}, "no step with a text"),
        ({"label": None}, "no 'label'"),
        ({"label": True}, "no 'label'"),
        ({"label": "1"}, "no 'label'"),
        ({"label": 2}, "names none of its 2 steps"),
        ({"label": -2}, "names none of its 2 steps"),
        ({"steps": ["a", " "]}, "names an empty step"),
        ({"id": "first"}, "a second time"),
    ],
)
def test_a_solution_that_cannot_be_used_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    fine = {"problem": "1+1", "steps": ["a", "b"], "label": 1}
    file = tmp_path / "gold.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (fine | {"id": "first"}, fine | change)))
    with pytest.raises(ConfigError, match=words) as caught:
        read_gold(file)
    assert "solution 2" in str(caught.value)


def test_given_solutions_have_the_features_that_the_draft_has_when_it_writes_them(abacus: Reasoner, tmp_path: Path) -> None:
    items = load_dataset("arithmetic", 6, 8, level=4)
    written = rolled_out(abacus, tmp_path / "written", items, Labelling())
    questions = {item.id: item for item in items}
    given = [GoldSolution(questions[row["id"]], tuple(text.strip() for text in row["steps"]), -1) for row in written]
    with Rollouts.open(tmp_path / "read", {}, resume=False) as kept:
        read_solutions(abacus, given, kept, CancelToken(), unwatched)
        read = sorted(kept.rows, key=lambda row: row["id"])
        read_solutions(abacus, given, kept, CancelToken(), unwatched)
        assert len(kept.rows) == len(given), "a second run reads nothing again"
    width = abacus.trio.draft.model.n_embd
    for one, other in zip(written, read, strict=True):
        assert one["steps"] == other["steps"] and len(one["steps"]) >= 2
        ours, theirs = (unpack(row["features"], len(row["steps"])) for row in (one, other))
        # One batch and single rows of quantized weights are rounded otherwise; states of another token differ by 1 and more.
        np.testing.assert_allclose(theirs[:, :width], ours[:, :width], atol=0.15)
        assert np.abs(theirs[:, :width] - ours[:, :width]).mean() < 0.02 < np.abs(theirs[1:, :width] - ours[:-1, :width]).mean()
        np.testing.assert_allclose(theirs[:-1, width:], ours[:-1, width:], atol=3e-2)  # of the last step the end of the text is not read
        np.testing.assert_allclose(other["confidences"][:-1], one["confidences"][:-1], atol=1e-2)


def test_solutions_of_one_problem_are_held_out_together(abacus: Reasoner, tmp_path: Path) -> None:
    solutions = [replace(one, item=replace(one.item, id=f"{one.item.id} {copy}")) for one in marked(4) for copy in range(3)]
    with Rollouts.open(tmp_path / "read", {}, resume=False) as kept:
        read_solutions(abacus, solutions, kept, CancelToken(), unwatched)
        steps = gather(kept.rows, abacus.trio.draft.model.n_embd)
    assert len(np.unique(steps.groups)) == 4
    assert len(steps.labels) == sum(label is not None for one in solutions for label in one.labels)


def training(folder: Path, label: Label, author: Author) -> Training:
    """A small training of each kind, as ``rsd train-reward`` makes it."""
    gold = marked(24) if label == "gold" else []
    items = [one.item for one in gold] or load_dataset("arithmetic", 14, 8, level=4)
    kind = {"reward_kind": "verifier", "verifier": "arithmetic"} if label == "verifier" else {}
    params = replace(HOT, sampling=Sampling(1.2, seed=1))
    return Training(abacus_trio(width=4, **kind), items, gold, params, Labelling(label, 2), author, folder)


@pytest.mark.parametrize("author", ["draft", "target"])
@pytest.mark.parametrize("label", ["outcome", "mc", "advantage", "verifier", "gold"])
def test_a_head_of_each_label_and_role_is_used_without_another_engine(tmp_path: Path, label: Label, author: Author) -> None:
    made = training(tmp_path / "rollouts", label, author)
    head, quality = made.fit(0.25, 0)
    assert head.role == author and quality.steps > 0 and (tmp_path / "rollouts" / "target.jsonl").exists() == (author == "target")
    head.save(tmp_path / "head.safetensors")
    trio = abacus_trio(reward_kind="read-out", head=tmp_path / "head.safetensors", width=1, parallel=1)
    with Reasoner.open(trio) as reasoner:
        assert set(reasoner.engines()) == {"draft", "target"}
        result = reasoner.solve(made.items[0].question, Params(weighting=Weighting(threshold=0.0), limits=LIMITS))
        rewards = [step.reward for step in result.steps]
        assert all(reward is not None and 0 < reward < 1 for reward in rewards) and result.counters["reward"].evaluated_tokens == 0
        if author == "target":
            assert rewards == pytest.approx(states_rewarded(reasoner, head, made.items[0], result.steps), abs=2e-3)


def states_rewarded(reasoner: Reasoner, head: ReadOut, item: Item, steps: Sequence[StepDone]) -> list[float]:
    """The rewards that the target's states give when it reads the steps in a sequence of its own, as a training reads them."""
    model, made = reasoner.trio.target.model, []
    with closing(reasoner.trio.target.sequence(prompt_tokens(model, reasoner.read_prompt(item.question)))) as sequence:
        for step in steps:
            sequence.append(model.tokenize(step.text, continues=True))
            made.append(head.reward(sequence.read_hidden().result()))
    return made


SCRIPTS = Path(__file__).parent.parent / "scripts"


def test_kinds_of_labels_are_compared_at_one_share_of_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    from final_accuracy import Setting, questions_to_decide, share_of

    items, gold = load_dataset("arithmetic", 44, 8, level=4), write_gold(tmp_path / "gold.json", marked(24))
    trio = abacus_trio(width=1)
    setting = Setting(trio, "arithmetic", "draft", items[:20], items[20:], gold, 2, LIMITS, 0.4, tmp_path / "work", None)
    threshold, runs = setting.measured("gold")
    head = tmp_path / "work" / "gold-draft.safetensors"
    with Reasoner.open(replace(trio, reward_kind="read-out", head=head)) as reasoner:
        alone = [reasoner.solve(item.question, Params(weighting=Weighting(threshold=threshold), limits=LIMITS)) for item in items[20:]]
    steps = [step.author for result in alone for step in result.steps]
    assert share_of(runs) == pytest.approx(steps.count("target") / len(steps)) == pytest.approx(0.4, abs=0.05)
    assert [run.correct for run in runs] == [result.answer == item.answer for result, item in zip(alone, items[20:], strict=True)]
    file = tmp_path / "work" / "gold-draft-runs" / "runs.jsonl"
    written = file.read_bytes()
    assert setting.measured("gold") == (threshold, runs) and file.read_bytes() == written, "a second call runs nothing"
    rows = [row for line in written.decode().splitlines() if (row := json.loads(line))["rewards"]]
    twins = [row | {"rewards": []} for row in rows if min(row["rewards"]) < threshold]
    file.write_bytes(written + "".join(f"{json.dumps(row)}\n" for row in twins).encode())
    assert twins and setting.measured("gold") == (threshold, runs), "what came later has no say in the thresholds"
    needed = questions_to_decide(8, 4, 100)
    assert needed is not None and needed > 100 and questions_to_decide(4, 4, 100) is None
    for count, decided in ((needed - 1, False), (needed, True)):
        assert (paired_interval(0.08 * count, 0.04 * count, count)[0] > 0) == decided


def test_the_command_takes_gold_labels_and_goes_on_with_more_of_them(tmp_path: Path) -> None:
    out, solutions = tmp_path / "head.safetensors", marked(60)
    words = ["train-reward", "--label", "gold", "--data", tmp_path / "gold.json", "--out", out, "-P", "4"]
    write_gold(tmp_path / "gold.json", solutions[:40])
    first = rsd(*words, "--json")
    assert first.returncode == 0, first.stderr
    figures = json.loads(first.stdout)
    known = sum(label is not None for one in solutions[:40] for label in one.labels)
    assert figures["label"] == "gold" and figures["steps"] + figures["held_out"]["steps"] == known
    assert figures["held_out"]["auc"] > 0.6
    write_gold(tmp_path / "gold.json", solutions)
    more = rsd(*words, "--role", "target")
    assert more.returncode == 0 and "draft's states: 40/60" in more.stderr and "target's states: 60/60" in more.stderr, more.stderr
    used = rsd("solve", "12+30-5", "--reward-kind", "read-out", "--head", out, "--json")
    assert used.returncode == 0 and json.loads(used.stdout)["counters"]["reward"]["evaluated_tokens"] == 0, used.stderr
    write_gold(tmp_path / "gold.json", [replace(solutions[0], first_error=0), *solutions[1:]])
    refused(rsd(*words), 2, f"questions.{solutions[0].item.id}", "--rollouts with another folder")
    refused(rsd(*words, "--samples", "2"), 2, "reads solutions and samples none", "--samples")


def test_the_command_takes_a_verifier_for_questions_without_answers(tmp_path: Path) -> None:
    data, out = tmp_path / "questions.jsonl", tmp_path / "head.safetensors"
    data.write_text("".join(json.dumps({"question": item.question}) + "\n" for item in load_dataset("arithmetic", 24, 8, level=5)))
    words = ["train-reward", "--data", data, "--out", out, "-P", "4"]
    refused(rsd(*words), 2, "has no 'answer'")
    refused(rsd(*words, "--label", "verifier"), 2, "needs a verifier", "--verifier")
    refused(rsd(*words, "--label", "verifier", "--trio", "abacus"), 2, "trio abacus has none", "--verifier")
    refused(rsd(*words, "--label", "verifier", "--verifier", "python-tests"), 2, "runs code that a model wrote", "--run-code")
    refused(rsd(*words, "--verifier", "arithmetic"), 2, "--verifier is for --label verifier")
    refused(rsd(*words, "--label", "advantage", "--temp", "0"), 2, "every sample is the same")
    assert list(tmp_path.iterdir()) == [data], "no folder that blocks the next try"
    done = rsd(*words, "--label", "verifier", "--verifier", "arithmetic", "--temp", "1.2", "--samples", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "verifier" and out.exists()
