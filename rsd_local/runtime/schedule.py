"""Who gets how many rows of the next batch."""

from __future__ import annotations

from typing import Any, NamedTuple

from rsd_local.runtime.batch import Batch
from rsd_local.runtime.requests import Request


class Share(NamedTuple):
    """A request's part of a batch: how many rows, and which of them give an output."""

    request: Request[Any]
    rows: int
    outputs: list[int]


def fill(batch: Batch, requests: list[Request[Any]], outputs: int, context: int, at_marks: bool) -> list[Share]:
    """Fills a batch with rows of requests, those that need the fewest first.

    So another one's long prompt never holds a writing sequence up by more than one chunk. A hidden state goes alone:
    with embeddings on, llama.cpp projects every row on the vocabulary.

    Args:
        batch: emptied first.
        requests: whose sequences' caches are in line with their tokens.
        outputs: the most rows of a batch that may give an output.
        context: the most tokens of a sequence.
        at_marks: whether a sequence's rows must end at its next mark, where a snapshot is taken.
    """
    batch.clear()
    shares: list[Share] = []
    for request in sorted(requests, key=lambda r: len(r.sequence.tokens) - r.sequence.cached):
        sequence = request.sequence
        left = (len(sequence.tokens) if request.reads_last else request.start - 1) - sequence.cached
        rows = min(left, batch.room)
        if at_marks:
            rows = min([rows, *(mark - sequence.cached for mark in sequence.marks if mark > sequence.cached)])
        whole = rows == left and request.reads_last
        if request.hidden and whole:
            if shares:
                continue
            whole = rows == 1
            rows = max(rows - 1, 1)
        if rows <= 0 or (whole and batch.outputs >= outputs):
            continue
        tokens = sequence.tokens[sequence.cached : sequence.cached + rows]
        if whole:
            room = min(batch.room - rows, outputs - batch.outputs - 1, context - len(sequence.tokens))
            tokens += request.ahead[: min(request.chunk, room)]
        last = batch.rows + rows - 1
        batch.add(sequence.slot, sequence.cached, tokens, len(tokens) - rows + 1 if whole else 0)
        shares.append(Share(request, len(tokens), list(range(last, batch.rows)) if whole else []))
        if request.hidden and whole:
            break
    return shares
