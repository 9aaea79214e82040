"""Models in a program with an event loop: several questions at once, errors, futures, and a time limit.

pip install rsd-local
python examples/embed_asyncio.py [TRIO]      # abacus, which does arithmetic, without one
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from dataclasses import replace

from rsd_local import Finished, Reasoner, Result, RSDError, StepDone
from rsd_local.catalogue import find_trio

QUESTIONS = ["(37+48)*6-129", "12*9-44", "Who was Gauss?"]


async def ask(reasoner: Reasoner, question: str) -> str:
    """Reads the events of one answer; the loop goes on meanwhile."""
    try:
        async for event in reasoner.run(question):
            if isinstance(event, StepDone):
                print(f"{question:16} {event.author:6} {event.reward or 0:.2f}  {event.text.strip()}")
            elif isinstance(event, Finished):
                return event.answer or "none"
    except RSDError as error:  # one line, and what to do about it
        return f"{error} ({error.hint})"
    return "none"


async def main(trio: str = "abacus") -> None:
    """Opens the models in a process of their own, and closes them on every way out."""
    async with Reasoner.open_async(replace(find_trio(trio), parallel=2), isolated=True, idle_unload=300) as reasoner:
        answers = await asyncio.gather(*(ask(reasoner, question) for question in QUESTIONS))
        print(*(f"{question} = {answer}" for question, answer in zip(QUESTIONS, answers, strict=True)), sep="\n")

        # A future is the other way to wait. When the time is up, it is cancelled, and so is the run.
        result: Result = await asyncio.wait_for(asyncio.wrap_future(reasoner.run("7*(8+5)-31").future()), timeout=60)
        print(result.answer, f"{result.target_share:.0%} of the steps by the target")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    asyncio.run(main(*sys.argv[1:]))
