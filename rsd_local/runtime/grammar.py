"""Grammars (GBNF) by llama.cpp's own sampler: which tokens may come next, and the state behind those that came.

llama.cpp ends the process where a token is accepted that its grammar does not take. So each token is tried before, in a list of one.
And it reads bytes that are no UTF-8 as characters: those are kept out here.
"""

from __future__ import annotations

import codecs
import ctypes
import functools
import threading
import weakref
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as C

from rsd_local.errors import ConfigError, DecodeFailed
from rsd_local.runtime.gbnf import check_syntax
from rsd_local.runtime.llama import clear_errors, last_errors
from rsd_local.runtime.model import Model
from rsd_local.runtime.sampler import Floats, Ids, Mask
from rsd_local.steps import THOUGHT_END

_BLOCKS = (64, 1024, 8192)  # likeliest tokens that are looked at before all others are
_NEGLIGIBLE = 1e-7  # of the weight of all that may come next
_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_KEPT = 16  # grammars of a model
_STATES = 3  # of an answer


class Compiled:
    """A grammar for one vocabulary.

    Args:
        model: whose vocabulary it is; it must stay open.
        text: the grammar, in GBNF.

    Raises:
        ConfigError: it is no grammar, or llama.cpp cannot use it.
    """

    def __init__(self, model: Model, text: str) -> None:
        self.model, self.words = model, Words(model)
        check_syntax(text)
        with model.in_use():
            clear_errors()
            made = C.llama_sampler_init_grammar(model.vocab, text.encode("utf-8", "replace"), b"root")
        if not made:
            why = f"llama.cpp cannot use the grammar: {last_errors() or 'it does not say why'}"
            raise ConfigError(why, hint="it needs a rule root, and no rule may begin with itself")
        self.sampler = made
        weakref.finalize(self, C.llama_sampler_free, made)


class Words:
    """What of a vocabulary llama.cpp's grammars do not look at; of each token once it is asked for."""

    _TEXT, _END, _HIDDEN, _CUT = range(1, 5)

    def __init__(self, model: Model) -> None:
        self._model = weakref.proxy(model)
        self._kinds = np.zeros(model.n_vocab, np.int8)

    def hidden(self, ids: Ids) -> Mask:
        """Where a token is no text and ends none, such as a control token."""
        return np.equal(self._of(ids), self._HIDDEN)

    def ends(self, ids: Ids) -> Mask:
        """Where a token ends the text."""
        return np.equal(self._of(ids), self._END)

    def cut(self, ids: Ids) -> Mask:
        """Where a token's bytes are not whole characters."""
        return np.equal(self._of(ids), self._CUT)

    def _of(self, ids: Ids) -> npt.NDArray[np.int8]:
        for token in ids[self._kinds[ids] == 0].tolist():
            self._kinds[token] = self._find(token)
        return self._kinds[ids]

    def _find(self, token: int) -> int:
        if self._model.is_end(token):
            return self._END
        piece: bytes = self._model.piece(token)
        if not piece or self._model.is_control(token):
            return self._HIDDEN
        try:
            piece.decode()
        except UnicodeDecodeError:
            return self._CUT
        return self._TEXT


_compiling = threading.Lock()


def compiled(model: Model, text: str) -> Compiled:
    """A grammar for a model's vocabulary, from those used last where it is one of them.

    Raises:
        ConfigError: as ``Compiled``.
    """
    with _compiling:
        known = model.grammars
        found = known.pop(text, None) or Compiled(model, text)
        known[text] = found
        if len(known) > _KEPT:
            del known[next(iter(known))]
        return found


def check_grammar(model: Model, text: str, *, headed: bool) -> None:
    """See whether answers of a model can follow a grammar.

    Args:
        model: it.
        text: the grammar.
        headed: whether answers may begin with a header, as some models have it.

    Raises:
        ConfigError: they cannot, and why.
    """
    compiled(model, text)
    tags = model.spelling.tags
    if headed and tags is not None and tags.answer.strip():
        raise ConfigError(
            f"answers of {model.path.name} cannot follow a grammar: they begin with a header",
            hint="leave the grammar away, or choose another model",
        )


class Follower:
    """Where a writer's answer stands in its grammar, after whatever was taken back.

    Args:
        model: that writes.
        opening: tokens of the prompt, which the answer stands behind.
        in_thought: whether the answer begins inside a thought.
    """

    def __init__(self, model: Model, opening: int, *, in_thought: bool) -> None:
        self._model, self._opening, self._in_thought = model, opening, in_thought
        self._grammar = ""
        self._known: list[tuple[list[int], GrammarState]] = []  # states behind beginnings of the answer, the latest last

    def state(self, grammar: str, tokens: Sequence[int]) -> GrammarState | None:
        """The state behind a text, for whoever goes on from there; None without a grammar.

        Args:
            grammar: in GBNF; empty for none.
            tokens: of prompt and answer.

        Raises:
            ConfigError: llama.cpp cannot use the grammar.
            DecodeFailed: the answer does not follow it.
        """
        if not grammar:
            return None
        answer = list(tokens[self._opening :])
        known = self._known if grammar == self._grammar else []
        known = [(begun, state) for begun, state in known if answer[: len(begun)] == begun]
        begun, state = max(known, key=lambda one: len(one[0]), default=([], None))
        with self._model.in_use():
            state = GrammarState(compiled(self._model, grammar), in_thought=self._in_thought) if state is None else state.copy()
            for token in answer[len(begun) :]:
                state.accept(token)
        self._grammar, self._known = grammar, [*known[-_STATES:], (answer, state)]
        return state.copy()

    def copy(self) -> Follower:
        """Another one for a writer that goes on from here."""
        made = Follower(self._model, self._opening, in_thought=self._in_thought)
        made._grammar, made._known = self._grammar, list(self._known)
        return made


class GrammarState:
    """A place in a text that follows a grammar; see ``sampler.Constraint``. For one thread at a time.

    Args:
        grammar: that it follows.
        in_thought: whether the text begins inside a thought, which the grammar begins behind.
    """

    def __init__(self, grammar: Compiled, *, in_thought: bool = False) -> None:
        self._grammar, self._words = grammar, grammar.words
        self._reader = grammar.model.spelling.reader() if in_thought else None
        self._pending, self._tail = b"", b""
        self._take(grammar.sampler)

    def _take(self, sampler: Any) -> None:
        self._sampler = C.llama_sampler_clone(sampler)
        self._free = weakref.finalize(self, C.llama_sampler_free, self._sampler)

    def copy(self) -> GrammarState:
        """Another one that goes on from here on its own."""
        made = GrammarState.__new__(GrammarState)
        made._grammar, made._words, made._reader = self._grammar, self._words, copy(self._reader)
        made._pending, made._tail = self._pending, self._tail
        made._take(self._sampler)
        return made

    def allows(self, token: int) -> bool:
        """Whether a token may come next."""
        return self._reader is not None or len(self._allowed(np.array([token]))) > 0

    def narrowed(self, logits: Floats, temperature: float) -> Floats:
        """A copy of the logits with −inf for tokens that may not come next, and for such as hardly ever would.

        Tokens are looked at from the likeliest on, until what is left has no weight beside what was found.

        Raises:
            DecodeFailed: no token of the vocabulary may come next.
        """
        made = np.full(len(logits), -np.inf, np.float32)
        for count in (*_BLOCKS, len(logits)):
            if count >= len(logits):
                ids = np.arange(len(logits))
            elif count * 4 > len(logits):
                continue
            else:
                ids = np.sort(np.argpartition(logits, -count)[-count:])
            found = self._allowed(ids)
            if len(found) and (len(ids) == len(logits) or self._suffices(logits, ids, found, temperature)):
                made[found] = logits[found]
                break
        if not np.isfinite(made).any():
            raise DecodeFailed("no token of the model's vocabulary goes on with the grammar", hint="allow other characters in it")
        return made

    def accept(self, token: int) -> None:
        """Go on behind a token.

        Raises:
            DecodeFailed: it may not come next.
        """
        model = self._grammar.model
        if self._reader is not None:
            self._think(self._reader.piece(token))
        elif model.is_end(token):
            return
        elif self.allows(token):
            self._tail = b""
            self._pending = _rest(self._pending + model.piece(token)) or b""
            C.llama_sampler_accept(self._sampler, token)
        elif not self._tail or model.piece(token).strip():  # a blank line stands behind a thought
            raise DecodeFailed("the text does not follow the grammar")

    def _think(self, piece: bytes) -> None:
        """Look for the end of the thought."""
        inside, end, behind = (self._tail + piece).partition(THOUGHT_END)
        self._tail = end or inside[-len(THOUGHT_END) :]
        if end:
            self._reader = None
            for token in self._grammar.model.tokenize(behind.lstrip(), continues=True) if behind.strip() else []:
                self.accept(token)

    def _allowed(self, ids: Ids) -> Ids:
        """Those of some tokens that may come next."""
        data = np.zeros(len(ids), _DATA)
        data["id"] = ids
        rows = C.llama_token_data_array(data.ctypes.data_as(C.llama_token_data_p), len(ids), -1, False)
        C.llama_sampler_apply(self._sampler, ctypes.byref(rows))
        fine = ids[data["logit"] == 0]
        fine = fine[~self._words.hidden(fine)]
        doubtful = ~self._words.ends(fine) if self._pending else self._words.cut(fine)
        kept = ~doubtful if self._pending == b"" else np.zeros(len(fine), np.bool_)
        for place in np.flatnonzero(doubtful):
            kept[place] = _rest(self._pending + self._grammar.model.piece(int(fine[place]))) is not None
        made: Ids = fine[kept]
        return made

    def _suffices(self, logits: Floats, ids: Ids, found: Ids, temperature: float) -> bool:
        """Whether what was not looked at has no weight beside what was found."""
        if temperature == 0:
            return True
        peak = float(logits[found].max())
        least = float(logits[ids].min())  # all others are not above it
        weight = float(np.exp((logits[found].astype(np.float64) - peak) / temperature).sum())
        return float(np.exp(min(0.0, (least - peak) / temperature))) * (len(logits) - len(ids)) < _NEGLIGIBLE * weight


@functools.lru_cache(4096)
def _rest(data: bytes) -> bytes | None:
    """What of some bytes begins a character that is not whole yet, None where they are no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(data)
    except UnicodeDecodeError:
        return None
    return decoder.getstate()[0]
