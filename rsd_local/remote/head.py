"""The hidden state of each token of a text, from a llama-server that was started with ``--embeddings --pooling none``.

Its ``/embedding`` then gives one vector for each token, which is not normalized. It keeps no cache for that: the whole text is
evaluated for each answer. See https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md, ``/embeddings``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rsd_local.errors import BadAnswer, ContextFull, RemoteRefused, RSDError
from rsd_local.remote.llama_server import LlamaServer
from rsd_local.remote.transport import Call

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

_MOST = 1 << 30  # bytes of an answer: a number takes 20
_START = "start it with --embeddings --pooling none, and a --ubatch-size as large as its context"


def token_states(server: LlamaServer, tokens: Sequence[int], call: Call) -> Floats:
    """The hidden state behind each token, after the final norm.

    Args:
        server: that is asked.
        tokens: the text.
        call: the request, to end it.

    Returns:
        (n, n_embd), one row for each token.

    Raises:
        ContextFull: the text is longer than what the server evaluates at once.
        RemoteRefused: it was started for something else.
        RemoteError: what else went wrong.
    """

    try:
        found = server.ask("/embedding", {"content": list(tokens), "embd_normalize": -1}, call, most=_MOST)
    except RSDError as error:
        raise _understood(error, server.url) from None
    try:
        rows = _numbers(found[0]["embedding"])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError):
        raise BadAnswer(f"{server.url} gives no states", hint=_START) from None
    if rows.ndim != 2 or len(rows) != len(tokens):
        raise RemoteRefused(f"{server.url} gives {len(rows) if rows.ndim == 2 else 1} states of {len(tokens)} tokens", hint=_START)
    return rows


def _numbers(found: object) -> Floats:
    """An array of numbers, NaN where the model gave none.

    Raises:
        ValueError, TypeError, OverflowError, RecursionError: there is something else among them.
    """
    import numpy as np

    made = np.asarray(found)  # texts of digits stay texts
    if made.dtype == object and made.ndim == 2:
        made = np.asarray([[np.nan if one is None else 1.0 * one for one in row] for row in made.tolist()])
    with np.errstate(over="ignore"):
        rows = made.astype(np.float32) if made.dtype.kind in "fi" else None
    if rows is None or np.isinf(rows).any():
        raise ValueError("no numbers")
    return rows


def _understood(error: RSDError, url: str) -> RSDError:
    """An error with what it means of a server that gives states."""
    said = str(error).replace(url, "the server")
    if "batch size" in said:
        return ContextFull(f"{url} evaluates fewer tokens at once than the question and the steps have: {said}", hint=_START)
    if "embeddings" in said or "/embedding (404)" in said:
        return RemoteRefused(f"{url} gives no states: {said}", hint=_START)
    return error
