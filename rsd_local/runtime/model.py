"""A model file: weights, vocabulary and chat template."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from llama_cpp import llama_cpp as C

from rsd_local.config import RoleConfig
from rsd_local.errors import Closed, ModelError, NotAModel
from rsd_local.gguf_header import read_header
from rsd_local.runtime import llama
from rsd_local.runtime.rehearsal import rehearse
from rsd_local.runtime.vocabulary import Vocabulary

if TYPE_CHECKING:
    from rsd_local.runtime.engine import Engine

Progress = Callable[[float], None]
_SHORT = 256  # bytes: a text that is tokenized sooner than the interpreter's lock comes back
_TOKENIZE_SHORT = llama.quick(C.llama_tokenize, ctypes.c_int32)


class Model:
    """Weights and vocabulary of one GGUF file, shared by all roles that use the file with the same settings.

    Args:
        config: the file and where its layers go.
        progress: called with the loaded share, 0 to 1, from the loading thread.

    Raises:
        ModelNotFound: there is no such file.
        NotAModel: it is no GGUF file, is damaged, or llama.cpp cannot load it.
    """

    def __init__(self, config: RoleConfig, progress: Progress | None = None) -> None:
        self.path = config.path
        self.header = read_header(config.path)
        rehearse(config.path, self.header, trusted=config.trusted)
        params = C.llama_model_default_params()
        params.n_gpu_layers = config.layers_on_gpu
        params.main_gpu = config.main_gpu
        params.use_extra_bufts = llama.repacks_safely()
        if config.tensor_split:
            room = C.llama_max_devices()
            if len(config.tensor_split) > room:
                raise ModelError(f"tensor_split names {len(config.tensor_split)} devices, llama.cpp knows at most {room}")
            shares = (ctypes.c_float * room)(*config.tensor_split)
            params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        loading = llama.GuardedCall()
        report = loading.callback(lambda share, _: progress is None or progress(share) is None, False)
        params.progress_callback = C.llama_progress_callback(report)
        llama.clear_errors()
        load = functools.partial(C.llama_model_load_from_file, os.fsencode(config.path), params)
        self._handle = loading.run(load, C.llama_model_free)
        if not self._handle:
            raise NotAModel(
                f"{config.path} cannot be loaded: {llama.last_errors() or 'llama.cpp gave no reason'}",
                hint="download it again, or choose another GGUF file",
            )
        self._vocab = C.llama_model_get_vocab(self._handle)
        self.lane = llama.lane_of(config.layers_on_gpu, config.main_gpu)
        self.n_vocab: int = C.llama_vocab_n_tokens(self._vocab)
        self.n_embd: int = C.llama_model_n_embd_out(self._handle)
        self.n_params: int = C.llama_model_n_params(self._handle)
        self.trained_context: int = C.llama_model_n_ctx_train(self._handle)
        self.bos: int = C.llama_vocab_bos(self._vocab)
        self.eos: int = C.llama_vocab_eos(self._vocab)
        self.adds_bos = bool(C.llama_vocab_get_add_bos(self._vocab)) and self.bos >= 0
        template = C.llama_model_chat_template(self._handle, None)
        self.chat_template = template.decode("utf-8", "replace") if template else None
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self._engines: weakref.WeakSet[Engine] = weakref.WeakSet()

    @property
    def handle(self) -> int:
        """The C pointer, for engines of this package."""
        if not self._handle:
            raise Closed(f"the model {self.path.name} was closed")
        return self._handle  # type: ignore[no-any-return]

    @property
    def description(self) -> str:
        """Architecture, size and quantization as llama.cpp names them."""
        room = ctypes.create_string_buffer(256)
        C.llama_model_desc(self.handle, room, 256)
        return room.value.decode("utf-8", "replace")

    def metadata(self, key: str) -> str | None:
        """The value of a metadata key as text, None where the file has none."""
        room = ctypes.create_string_buffer(1 << 16)
        return None if C.llama_model_meta_val_str(self.handle, key.encode(), room, len(room)) < 0 else room.value.decode("utf-8", "replace")

    def tokenize(self, text: str, *, special: bool = False, continues: bool = False) -> list[int]:
        """Token ids of a text, without a beginning-of-text token.

        Args:
            text: any text; a lone surrogate becomes "?".
            special: whether control tokens written in the text count as such. Never for text of a user.
            continues: the text goes on from another, so a vocabulary that puts a space before every text
                (SentencePiece) must not do so here.
        """
        if not text:
            return []
        if continues and self._begins_with_space:
            # A newline never merges with what follows it: what stands behind it is tokenized as in mid-text.
            mark = self.tokenize("\n", special=special)
            return self.tokenize("\n" + text, special=special)[len(mark) :]
        _ = self.handle
        data = text.encode("utf-8", "replace")
        room = (C.llama_token * (len(data) + 8))()
        tokenize = _TOKENIZE_SHORT if len(data) <= _SHORT else C.llama_tokenize
        count = tokenize(self._vocab, data, len(data), room, len(room), False, special)
        if count < 0:
            raise ModelError(f"{self.path.name} cannot tokenize a text of {len(data)} bytes")
        return list(room[:count])

    @functools.cached_property
    def _begins_with_space(self) -> bool:
        return self.piece(self.tokenize("a")[0]).startswith(b" ")

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none."""
        known = self._pieces.get(token)
        if known is None:
            _ = self.handle
            room = ctypes.create_string_buffer(256)
            size = C.llama_token_to_piece(self._vocab, token, room, len(room), 0, False)
            if size < 0:
                room = ctypes.create_string_buffer(-size)
                size = C.llama_token_to_piece(self._vocab, token, room, len(room), 0, False)
            known = self._pieces[token] = room.raw[: max(size, 0)]
        return known

    def token_text(self, token: int) -> str:
        """A token as its vocabulary spells it, control tokens included."""
        _ = self.handle
        text = C.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", "replace") if text else ""

    def is_end(self, token: int) -> bool:
        """Whether generation ends with this token."""
        known = self._ends.get(token)
        if known is None:
            _ = self.handle
            known = self._ends[token] = bool(C.llama_vocab_is_eog(self._vocab, token))
        return known

    def common_tokens(self, other: Model) -> int:
        """How many tokens from 0 on mean the same in both models; 0 where the vocabularies differ in more than fillers at the end."""
        if self is other:
            return self.n_vocab
        return Vocabulary.read(self.path, self.header).common(Vocabulary.read(other.path, other.header))

    def adopt(self, engine: Engine) -> None:
        """Notes an engine that must be closed before the weights go."""
        self._engines.add(engine)

    def close(self) -> None:
        """Frees the weights; engines on them are closed first. A second call does nothing."""
        for engine in list(self._engines):
            engine.close()
        handle, self._handle = self._handle, None
        if handle:
            C.llama_model_free(handle)
