"""An exception at any place where the decode thread runs Python: every future ends, with its cause, and others go on."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from test_engine import draws, held

import rsd_local
from rsd_local.config import RoleConfig
from rsd_local.errors import EngineError
from rsd_local.runtime import Engine, Model
from rsd_local.runtime.requests import Generation
from rsd_local.segments import Segmenter

PACKAGE = str(Path(rsd_local.__file__).parent)
PROMPTS = [[1, *range(20 + number, 50 + 2 * number)] for number in range(3)]
OF_ONE_REQUEST = {
    "requests.py:process_output", "requests.py:_draw", "requests.py:_end", "sampler.py:draw", "trace.py:note", "segmenter.py:feed",
    "model.py:piece", "model.py:is_end", "batch_loop.py:_prepare", "batch_loop.py:_hand_over", "outputs.py:row", "slots.py:sync",
    "requests.py:_finish", "trace.py:trace",
}  # fmt: skip
"""Functions that work for one request alone."""


class Injected(Exception):
    """What no code expects."""


def name_of(code: CodeType) -> str:
    return f"{Path(code.co_filename).name}:{code.co_name}"


@contextmanager
def traced(engine: Engine, seen: Callable[[CodeType], None]) -> Iterator[None]:
    """Call ``seen`` at the beginning of every function of the package that the device's thread runs."""

    def trace(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            seen(frame.f_code)

    engine.device.order(lambda: sys.settrace(trace))
    try:
        yield
    finally:
        with suppress(EngineError):  # it died of it
            engine.device.order(lambda: sys.settrace(None))


def start(engine: Engine) -> list[Generation]:
    """Three answers at once, one of them of a fork, with all that a step can have."""
    first, second = engine.sequence(PROMPTS[0]), engine.sequence(PROMPTS[1])
    first.mark()
    opened = [first, second, first.fork()]
    return [
        sequence.generate(draws(), 8, until=Segmenter("line").start(), tracing="numbers", on_text=lambda piece: None) for sequence in opened
    ]


def outcomes(generations: list[Generation]) -> list[BaseException | list[int]]:
    """The tokens or the error of each; whatever does not end is a failure."""
    found: list[BaseException | list[int]] = []
    for generation in generations:
        error = generation.future.exception(timeout=5)
        found.append(generation.future.result().tokens if error is None else error)
    return found


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


@pytest.fixture(scope="module", params=["dense", "recurrent"])
def model(request: pytest.FixtureRequest, tiny: dict[str, Path]) -> Iterator[Model]:
    made = Model(RoleConfig(tiny[request.param]))
    yield made
    made.close()


def opened(model: Model) -> Engine:
    return Engine(model, RoleConfig(model.path, ctx_size=128, cache_type="f32", flash_attention="off", threads=1), 4, "test", reuse=False)


def test_an_exception_anywhere_ends_every_future_and_names_its_cause(model: Model) -> None:
    calls: Counter[CodeType] = Counter()
    engine = opened(model)
    with ExitStack() as tracing:
        with held(engine):
            tracing.enter_context(traced(engine, lambda code: calls.update([code])))
            clean = start(engine)
        right = outcomes(clean)
    engine.close()
    assert all(isinstance(tokens, list) and tokens for tokens in right) and len(calls) > 25
    for code, times in calls.items():
        if code.co_name == "<genexpr>":
            continue  # it is also resumed where the interpreter throws it away
        for nth in sorted({1, 2, times // 2, times} - {0}):
            check_fault(model, code, nth, right)


def check_fault(model: Model, code: CodeType, nth: int, right: list[BaseException | list[int]]) -> None:
    engine = opened(model)
    left = [nth]

    def inject(called: CodeType) -> None:
        if called is code:
            left[0] -= 1
            if left[0] == 0:
                raise Injected(name_of(code))

    where = f"{name_of(code)}, call {nth}"
    try:
        with ExitStack() as tracing:
            with held(engine):
                tracing.enter_context(traced(engine, inject))
                generations = start(engine)
            found = outcomes(generations)
        failed = [one for one in found if isinstance(one, BaseException)]
        for error in failed:
            assert any(isinstance(cause, Injected) for cause in causes(error)), f"{where}: {error!r} does not name its cause"
        if name_of(code) in OF_ONE_REQUEST and left[0] <= 0:
            assert len(failed) <= 1, f"{where}: {failed} failed together"
        for wanted, got in zip(right, found, strict=False):
            assert isinstance(got, BaseException) or got == wanted, where
        try:
            again = outcomes([engine.sequence(PROMPTS[0]).generate(draws(), 8, until=Segmenter("line").start())])
        except EngineError as error:  # the thread died, and says why to whoever asks
            assert any(isinstance(cause, Injected) for cause in causes(error)), where
        else:
            assert again == right[:1], where
    finally:
        engine.close()


def test_an_engine_beside_one_that_dies_goes_on(model: Model) -> None:
    """Two engines of one device: an exception in the batches of one is nothing to the other."""
    config = RoleConfig(model.path, ctx_size=128, cache_type="f32", flash_attention="off", threads=2)
    one, other = (Engine(model, config, 4, name, reuse=False) for name in ("one", "other"))
    assert one.device is other.device
    one.loop._decode = lambda scheduled: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with held(one):
        failing, fine = one.sequence(PROMPTS[0]).generate(draws(), 8), other.sequence(PROMPTS[0]).generate(draws(), 8)
    with pytest.raises(ZeroDivisionError):
        failing.future.result(timeout=20)
    assert len(fine.future.result(timeout=20).tokens) == 8
    for engine in (one, other):
        engine.close()
