"""Rollouts: what a draft writes to questions with known answers, how good each step turned out, and its features."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from contextlib import closing, suppress
from dataclasses import replace
from typing import TypedDict

import numpy as np

from rsd_local.answers import boxed
from rsd_local.calibration.labels import Behind, Labelling, StepLabel, verified
from rsd_local.config import Params, Sampling
from rsd_local.decoding.sampled import sampled
from rsd_local.errors import Cancelled, Closed, ConfigError, ContextFull, QuestionRefused, RSDError
from rsd_local.evaluation.grading import Grade, Grader
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.journal import Journal
from rsd_local.evaluation.questions import question_pool, question_seed
from rsd_local.events import CancelToken
from rsd_local.open_trio import LocalTrio
from rsd_local.prompt import Prompt
from rsd_local.reasoner import Reasoner
from rsd_local.rewards.features import Course, confidence, step_features
from rsd_local.runtime import Floats, prompt_tokens
from rsd_local.steps import Trace

STORED = ("last", "surprise")
"""The features that a line has; those of the steps so far follow from them."""
Watch = Callable[[int, int], None]
"""Told how many questions are done, of how many."""


class _Required(TypedDict):
    """What every row has."""

    id: str
    sample: int
    steps: list[str]
    answer: str | None
    correct: bool
    labels: list[StepLabel]
    confidences: list[float]
    features: str


class RolloutRow(_Required, total=False):
    """One sampled solution, or one that was given.

    ``answer`` is the content of the box, or the code that was graded. ``labels`` has, for each step, how good it is in [0, 1], or
    nothing where that is not known; ``confidences`` the geometric mean of its tokens' probabilities; ``features`` the rows of what
    is ``STORED``, see ``pack``. A question that could not be answered or graded, or does not fit the context, has no steps; why,
    ``error`` (a code) and ``message`` say. ``problem`` is a digest of the question where several lines may have the same one: they
    are then held out together.
    """

    problem: str
    error: str
    message: str


class Rollouts(Journal[RolloutRow]):
    """The lines of a folder of rollouts, to which a later run may add questions."""

    file_name, keys, grows = "rollouts.jsonl", _Required.__annotations__, "questions"


class StateRow(TypedDict):
    """What another model's states are after each step of a rollout; empty where they do not fit its context."""

    id: str
    sample: int
    features: str


class TargetStates(Journal[StateRow]):
    """The target's states, beside the rollouts that it read."""

    file_name, keys = "target.jsonl", StateRow.__annotations__


def roll_out(
    reasoner: Reasoner, items: list[Item], params: Params, labelling: Labelling, rollouts: Rollouts, grader: Grader, *, seed: int,
    cancel: CancelToken, watch: Watch,
) -> None:  # fmt: skip
    """Rolls the draft out on every question that has no line yet, ``params.search.samples`` times each.

    Args:
        reasoner: open for ``config.parallel`` questions.
        items: questions with answers.
        params: sampling and limits.
        labelling: of the steps.
        rollouts: where lines go.
        grader: says which answers are right.
        seed: of all draws.
        cancel: stops it; a question in flight leaves no line.
        watch: called after each question.
    """
    there = {(row["id"], row["sample"]) for row in rollouts.rows}
    wanted = range(params.search.samples)
    waiting = [(place, item) for place, item in enumerate(items) if any((item.id, sample) not in there for sample in wanted)]

    def one(place: int, item: Item) -> list[RolloutRow]:
        sampling = Sampling(params.sampling.temperature, seed=question_seed(seed, place))
        trio = reasoner.trio.bound(cancel, params, shows_text=False)

        def work() -> list[RolloutRow]:
            prompt = reasoner.read_prompt(item.question)
            return _rollouts_of(trio, prompt, item, replace(params, sampling=sampling), labelling, grader)

        return or_failed(work, item.id, wanted)

    reasoner.trio.here("draft").probe_states()
    watch(len(items) - len(waiting), len(items))
    with question_pool(reasoner.config.parallel, cancel) as pool:
        for number, future in enumerate(as_completed([pool.submit(one, *job) for job in waiting]), len(items) - len(waiting) + 1):
            for row in future.result():
                if (row["id"], row["sample"]) not in there:
                    rollouts.append(row)
            watch(number, len(items))


def or_failed(work: Callable[[], list[RolloutRow]], name: str, samples: Iterable[int]) -> list[RolloutRow]:
    """The rows of a question, or rows without steps that say why there are none: those of other questions are paid for.

    Args:
        work: makes them.
        name: the question's id.
        samples: their numbers.

    Raises:
        Cancelled, Closed, ConfigError: no other question would do better.
    """
    try:
        return work()
    except (Cancelled, Closed, ConfigError):
        raise
    except Exception as error:
        code = error.code if isinstance(error, RSDError) else RSDError.code
        message = str(error) if isinstance(error, RSDError) else f"{type(error).__name__}: {error}"
        none = RolloutRow(id=name, sample=0, steps=[], answer=None, correct=False, labels=[], confidences=[], features="")
        return [{**none, "sample": sample, "error": code, "message": message} for sample in samples]


def _rollouts_of(trio: LocalTrio, prompt: Prompt, item: Item, params: Params, labelling: Labelling, grader: Grader) -> list[RolloutRow]:
    with (
        closing(trio.writer("draft", prompt, tracing="states")) as writer,
        sampled(writer, params, trio.segmenter, 0) as written,
    ):
        solutions = list(written)
    rows: list[RolloutRow] = []
    for number, steps in enumerate(solutions):
        text = "".join(step.text for step in steps if step.part == "answer")
        steps = [step for step in steps if not step.blank]
        known = bool(item.answer) or item.tests is not None
        grade = grader.grade_solution(item, text, boxed(text), trio.cancel) if known else Grade(False, boxed(text))
        behind = Behind(trio, prompt, item, number, steps, grade.right, params, labelling.continuations, grader)
        labels, texts = _labels(behind, labelling), [step.text for step in steps]
        confidences, features = read_traces([step.trace for step in steps if step.trace is not None])
        rows.append(RolloutRow(
            id=item.id, sample=number, steps=texts, answer=grade.answer, correct=grade.right, labels=labels, confidences=confidences,
            features=features,
        ))  # fmt: skip
    return rows


def _labels(behind: Behind, labelling: Labelling) -> list[StepLabel]:
    """Of the steps of one solution."""
    if labelling.label == "verifier":
        return verified(behind.trio, behind.prompt, behind.steps)
    if labelling.continues and behind.steps:
        return [*(behind.shares() if labelling.label == "mc" else behind.advantages())]
    return [float(behind.right)] * len(behind.steps)


def read_traces(traces: Sequence[Trace]) -> tuple[list[float], str]:
    """A row's ``confidences`` and ``features``, from the draft's traces of its steps."""
    features = [step_features(trace, Course(index), STORED) for index, trace in enumerate(traces)]
    return [confidence(trace) for trace in traces], pack(features)


def read_states(reasoner: Reasoner, items: list[Item], rollouts: Rollouts, states: TargetStates, cancel: CancelToken, watch: Watch) -> None:
    """Lets the target read every rollout that it has not read yet, and keeps its state after each step."""
    target, questions = reasoner.trio.here("target"), {item.id: item.question for item in items}
    done = {(row["id"], row["sample"]) for row in states.rows}
    rows = [row for row in rollouts.rows if row["id"] in questions and row["steps"]]
    waiting = [row for row in rows if (row["id"], row["sample"]) not in done]

    def one(row: RolloutRow) -> StateRow:
        model, made, ends = target.model, list[Floats](), list[int]()
        prompt = reasoner.read_prompt(questions[row["id"]])
        with suppress(ContextFull), closing(target.sequence(prompt_tokens(model, prompt))) as sequence:
            for step in row["steps"]:
                sequence.append(model.tokenize(step, continues=True))
                ends.append(len(sequence) - 1)
            places = list(dict.fromkeys(ends))  # an empty step ends where the one before does
            states = sequence.read_at(places, hidden=True, take=np.copy, cancel=cancel).future.result()
            made = [states[places.index(end)] for end in ends]
        return StateRow(id=row["id"], sample=row["sample"], features=pack(made))

    watch(len(rows) - len(waiting), len(rows))
    with question_pool(reasoner.config.parallel, cancel) as pool:
        for number, future in enumerate(as_completed([pool.submit(one, row) for row in waiting]), len(rows) - len(waiting) + 1):
            states.append(future.result())
            watch(number, len(rows))


def try_target(reasoner: Reasoner, item: Item, cancel: CancelToken) -> None:
    """Reads one state of the target, so that a target that gives none is found before anything is written.

    Raises:
        EngineError: it gives none.
    """
    target = reasoner.trio.here("target")
    with (
        suppress(ContextFull, QuestionRefused),
        closing(target.sequence(prompt_tokens(target.model, reasoner.read_prompt(item.question)))) as read,
    ):
        read.read_hidden(cancel).result()


def pack(features: list[Floats]) -> str:
    """Rows of features (n, d) as text: 16-bit floats, which is finer than what a quantized model's states are good for."""
    return base64.b85encode(np.array(features, np.float16).tobytes()).decode()


def unpack(text: str, rows: int) -> Floats:
    """The rows (n, d) that were packed."""
    return np.frombuffer(base64.b85decode(text), np.float16).reshape(rows, -1).astype(np.float32)
