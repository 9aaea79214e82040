"""A model file: weights, vocabulary and chat template."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llama_cpp import llama_cpp as C

from rsd_local.config import RoleConfig
from rsd_local.errors import Closed, ModelError, NotAModel
from rsd_local.gguf_header import read_header
from rsd_local.runtime import llama

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
        read_header(config.path)
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
        report = C.llama_progress_callback(lambda share, _: progress is None or progress(share) is None)
        params.progress_callback = report
        llama.clear_errors()
        self._handle = C.llama_model_load_from_file(str(config.path).encode(), params)
        if not self._handle:
            raise NotAModel(
                f"{config.path} cannot be loaded: {llama.last_errors() or 'llama.cpp gave no reason'}",
                hint="download it again, or choose another GGUF file",
            )
        self._vocab = C.llama_model_get_vocab(self._handle)
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
        self._fingerprint: str | None = None
        self._engines: weakref.WeakSet[Engine] = weakref.WeakSet()
        self._users, self._uses = 0, threading.Condition()

    @contextmanager
    def in_use(self) -> Iterator[int]:
        """The C pointer, which nothing frees inside.

        Raises:
            Closed: the model was closed.
            EngineError: this process was forked from the one that loaded it.
        """
        llama.check_process()
        with self._uses:
            if not self._handle:
                raise Closed(f"the model {self.path.name} was closed")
            self._users += 1
            handle = self._handle
        try:
            yield handle
        finally:
            with self._uses:
                self._users -= 1
                self._uses.notify_all()

    @property
    def description(self) -> str:
        """Architecture, size and quantization as llama.cpp names them."""
        room = ctypes.create_string_buffer(256)
        with self.in_use() as handle:
            C.llama_model_desc(handle, room, 256)
        return room.value.decode("utf-8", "replace")

    def metadata(self, key: str) -> str | None:
        """The value of a metadata key as text, None where the file has none."""
        room = ctypes.create_string_buffer(1 << 16)
        with self.in_use() as handle:
            found = C.llama_model_meta_val_str(handle, key.encode(), room, len(room)) >= 0
        return room.value.decode("utf-8", "replace") if found else None

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
        data = text.encode("utf-8", "replace")
        room = (C.llama_token * (len(data) + 8))()
        tokenize = _TOKENIZE_SHORT if len(data) <= _SHORT else C.llama_tokenize
        with self.in_use():
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
            room = ctypes.create_string_buffer(256)
            with self.in_use():
                size = C.llama_token_to_piece(self._vocab, token, room, len(room), 0, False)
                if size < 0:
                    room = ctypes.create_string_buffer(-size)
                    size = C.llama_token_to_piece(self._vocab, token, room, len(room), 0, False)
            known = self._pieces[token] = room.raw[: max(size, 0)]
        return known

    def token_text(self, token: int) -> str:
        """A token as its vocabulary spells it, control tokens included."""
        with self.in_use():
            text = C.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", "replace") if text else ""

    def is_end(self, token: int) -> bool:
        """Whether generation ends with this token."""
        known = self._ends.get(token)
        if known is None:
            with self.in_use():
                known = self._ends[token] = bool(C.llama_vocab_is_eog(self._vocab, token))
        return known

    @property
    def fingerprint(self) -> str:
        """Equal for two vocabularies whose tokens are equal; padding at the end does not count."""
        if self._fingerprint is None:
            _ = self.handle
            texts = [C.llama_vocab_get_text(self._vocab, token) or b"" for token in range(self.n_vocab)]
            while texts and (b"PAD" in texts[-1] or b"unused" in texts[-1] or b"dummy" in texts[-1]):
                texts.pop()
            kind = C.llama_vocab_type(self._vocab)
            self._fingerprint = hashlib.sha256(b"\0".join([str(kind).encode(), *texts])).hexdigest()
        return self._fingerprint

    def adopt(self, engine: Engine) -> None:
        """Notes an engine that must be closed before the weights go."""
        self._engines.add(engine)

    def close(self) -> None:
        """Free the weights once nobody uses them; engines on them are closed first. A second call does nothing."""
        if llama.was_forked():
            return  # its memory is the parent's affair
        for engine in list(self._engines):
            engine.close()
        with self._uses:
            handle, self._handle = self._handle, None
            while self._users:
                self._uses.wait()
        if handle:
            C.llama_model_free(handle)
