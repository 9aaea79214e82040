"""Who gets how many rows of the next batch."""

from __future__ import annotations

from typing import Any, NamedTuple

from rsd_local.runtime.batch import Batch
from rsd_local.runtime.requests import Request


class ScheduledRows(NamedTuple):
    """A request's part of a batch: how many rows, and which of them give an output."""

    request: Request[Any]
    rows: int
    outputs: list[int]


def schedule(
    batch: Batch, requests: list[Request[Any]], outputs: int, context: int, *, at_marks: bool, hidden_only: bool, both: bool
) -> list[ScheduledRows]:
    """Fill a batch with rows of requests, those that need the fewest first.

    So another one's long prompt never holds a writing sequence up by more than one chunk. Hidden states are read from
    batches in which every row gives an output: with embeddings on, llama.cpp projects every row on the vocabulary.

    Args:
        batch: emptied first.
        requests: whose sequences' caches are in line with their tokens.
        outputs: the most rows of a batch that may give an output.
        context: the most tokens of a sequence.
        at_marks: whether a sequence's rows must end at its next mark, where a snapshot is taken.
        hidden_only: whether hidden states come first, then only rows with an output go in; otherwise they wait. Only where
            both kinds wait.
        both: whether the model gives logits beside hidden states; otherwise whoever reads logits waits for another batch.
    """
    batch.clear()
    scheduled: list[ScheduledRows] = []
    ready = any(request.hidden and _is_near(request, outputs) for request in requests)
    alone = all(request.hidden and _is_near(request, outputs) or (both and _needs_one(request)) for request in requests)
    hidden_only = ready and (hidden_only or alone)
    for request in sorted(requests, key=_left):
        sequence, left = request.sequence, _left(request)
        rows = min(left, batch.room)
        if at_marks:
            rows = min([rows, *(mark - sequence.cached for mark in sequence.marks if mark > sequence.cached)])
        if request.positions:
            share = _rows_of_several(batch, request, rows, outputs, hidden_only=hidden_only)
            if share.rows:
                scheduled.append(share)
            continue
        whole = rows == left and request.reads_last
        if hidden_only and not (whole and rows == 1 and (both or request.hidden)):
            continue
        if request.hidden and whole and not hidden_only:
            rows, whole = rows - 1, False
        if rows <= 0 or (whole and batch.outputs >= outputs):
            continue
        tokens = sequence.tokens[sequence.cached : sequence.cached + rows]
        if whole and not (at_marks and sequence.cached + rows in sequence.marks):
            room = min(batch.room - rows, outputs - batch.outputs - 1, context - len(sequence.tokens))
            tokens += request.ahead[: min(request.chunk, room)]
        last = batch.rows + rows - 1
        batch.add(sequence.slot, sequence.cached, tokens, len(tokens) - rows + 1 if whole else 0)
        scheduled.append(ScheduledRows(request, len(tokens), list(range(last, batch.rows)) if whole else []))
    return scheduled


def _rows_of_several(batch: Batch, request: Request[Any], rows: int, outputs: int, *, hidden_only: bool) -> ScheduledRows:
    """Add rows of a request that reads at several places; none where this batch is not for them."""
    sequence, before = request.sequence, request.positions[0] - request.sequence.cached
    room = outputs - batch.outputs
    if hidden_only:
        rows = min(rows, room) if request.hidden and _is_near(request, outputs) else 0
    elif request.hidden:
        rows = 0 if _is_near(request, outputs) else min(rows, before)
    elif len(request.positions) > room:
        rows = min(rows, request.positions[room] - sequence.cached)
    first = batch.rows
    if rows > 0:
        batch.add(sequence.slot, sequence.cached, sequence.tokens[sequence.cached : sequence.cached + rows], rows if hidden_only else 0)
    read = [first + at - sequence.cached for at in request.positions if at < sequence.cached + rows]
    if not hidden_only:
        for row in read:
            batch.give_output(row)
    return ScheduledRows(request, max(rows, 0), read)


def _is_near(request: Request[Any], outputs: int) -> bool:
    """Whether a request's next output is so near that the rows before it, which then give outputs too, fit a batch with it."""
    if request.positions:
        return request.positions[0] - request.sequence.cached < outputs
    return _needs_one(request)


def _needs_one(request: Request[Any]) -> bool:
    """Whether the next row of a request gives the only output that it waits for."""
    return request.reads_last and not request.positions and _left(request) == 1


def _left(request: Request[Any]) -> int:
    """How many rows a request still needs: for its next output, or for all where it reads at several places."""
    sequence = request.sequence
    if request.positions:
        return request.positions[-1] + 1 - sequence.cached
    return (len(sequence.tokens) if request.reads_last else request.start - 1) - sequence.cached
