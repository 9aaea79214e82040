"""A model file: weights, vocabulary and chat template."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_cpp import llama_cpp as C

from rsd_local.config import RoleConfig
from rsd_local.errors import Closed, EngineError, ModelError, NotAModel
from rsd_local.gguf_header import Header, active_parameters, read_header, require_model
from rsd_local.runtime import llama
from rsd_local.runtime.adapters import Adapters
from rsd_local.runtime.mtp_support import has_mtp, library_has_mtp
from rsd_local.runtime.rehearsal import head_works, rehearse
from rsd_local.runtime.thinking import Spelling
from rsd_local.runtime.tokenizer import Tokenizer
from rsd_local.runtime.vocabulary import Vocabulary

if TYPE_CHECKING:
    from rsd_local.runtime.engine import Engine
    from rsd_local.runtime.grammar import Compiled

Progress = Callable[[float], None]
_SHORT = 256  # bytes: a text that is tokenized sooner than the interpreter's lock comes back
_TOKENIZE_SHORT = llama.quick(C.llama_tokenize, ctypes.c_int32)
_TEXT_OF = llama.quick(C.llama_vocab_get_text, ctypes.c_char_p)


class Model:
    """Weights and vocabulary of one GGUF file, shared by all roles that use the file with the same settings.

    Args:
        config: the file and where its layers go.
        progress: called with the loaded share, 0 to 1, from the loading thread.
        header: of the file, where it was read already.
        mtp: whether the file's multi-token head is loaded too, where it has one that this llama.cpp can use.

    Raises:
        ModelNotFound: there is no such file.
        NotAModel: it is no GGUF file, is damaged, or llama.cpp cannot load it.
    """

    def __init__(self, config: RoleConfig, progress: Progress | None = None, header: Header | None = None, *, mtp: bool = False) -> None:
        llama.note_process()
        self.path = config.path
        self.header = header or read_header(config.path)
        require_model(self.header)
        if progress is not None:
            progress(0.0)  # the first time that a file is seen, its rehearsal takes seconds
        rehearse(config.path, self.header, trusted=config.trusted)
        params = C.llama_model_default_params()
        params.n_gpu_layers = config.layers_on_gpu
        params.main_gpu = config.main_gpu
        params.use_extra_bufts = llama.repacks_safely()
        self.has_mtp = mtp and library_has_mtp() and has_mtp(self.header) and head_works(config.path, self.header)
        if self.has_mtp:
            params.load_mtp = True
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
        self.n_vocab: int = C.llama_vocab_n_tokens(self._vocab)
        self.n_embd: int = C.llama_model_n_embd_out(self._handle)
        self.n_params: int = C.llama_model_n_params(self._handle)
        self.active_params = active_parameters(self.header)
        self.sliding_window: int = C.llama_model_n_swa(self._handle)
        self.trained_context: int = C.llama_model_n_ctx_train(self._handle)
        self.bos: int = C.llama_vocab_bos(self._vocab)
        self.eos: int = C.llama_vocab_eos(self._vocab)
        self.adds_bos = bool(C.llama_vocab_get_add_bos(self._vocab)) and self.bos >= 0
        template = C.llama_model_chat_template(self._handle, None)
        self.chat_template = template.decode("utf-8", "replace") if template else None
        self._tokenizer = Tokenizer(self)
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self.can_cut: bool | None = None  # what its engines have found: whether its memory can be cut,
        self.gives_states: bool | None = None  # and whether it gives hidden states beside logits
        self.adapters = Adapters(self)
        self.grammars: dict[str, Compiled] = {}  # that answers followed, the latest last
        self._engines: weakref.WeakSet[Engine] = weakref.WeakSet()
        self._users, self._uses = 0, threading.Condition()
        self.spelling = Spelling(self)

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
    def vocab(self) -> Any:
        """The C pointer of the vocabulary, to be used inside ``in_use``."""
        return self._vocab

    @property
    def description(self) -> str:
        """Architecture, size and quantization as llama.cpp names them; it has no name for most sizes."""
        room = ctypes.create_string_buffer(256)
        with self.in_use() as handle:
            C.llama_model_desc(handle, room, 256)
        size = f"{self.n_params / 1e9:.1f}B" if self.n_params >= 1e9 else f"{self.n_params / 1e6:.3g}M"
        return room.value.decode("utf-8", "replace").replace("?B", size)

    def metadata(self, key: str) -> str | None:
        """The value of a metadata key as text, None where the file has none."""
        room = ctypes.create_string_buffer(1 << 16)
        with self.in_use() as handle:
            found = C.llama_model_meta_val_str(handle, key.encode(), room, len(room)) >= 0
        return room.value.decode("utf-8", "replace") if found else None

    def tokenize(self, text: str | bytes, *, special: bool = False, continues: bool = False, followed: bool = False) -> list[int]:
        """Token ids of a text, without a beginning-of-text token.

        Args:
            text: any text; a lone surrogate becomes "?". Bytes that are no UTF-8 become byte tokens.
            special: whether the text of control and user-defined tokens is read as those tokens. Never for text of a user:
                without it, no such token comes out.
            continues: the text goes on from another, so a vocabulary that puts a space before every text
                (SentencePiece) must not do so here.
            followed: another text that begins with a word follows, so white space at the end is read as between two words.
        """
        return self._tokenizer.tokens(text, special, continues, followed)

    def special_tokens(self, tokens: Iterable[int]) -> list[int]:
        """Those of some tokens that are no text: control and user-defined ones, in order.

        User-defined tokens that are words, single characters or white space are text.
        """
        return self._tokenizer.special_tokens(tokens)

    @functools.cached_property
    def longest_piece(self) -> int:
        """No token stands for more bytes of text than this, so n bytes take n / longest_piece tokens at least.

        The first use looks at the whole vocabulary (0.1 s at 152,000 tokens). Of vocabularies that drop characters
        (WordPiece, Unigram) it is no bound, and said to be 2^31.
        """
        with self.in_use():
            if C.llama_vocab_type(self._vocab) in (C.LLAMA_VOCAB_TYPE_WPM, C.LLAMA_VOCAB_TYPE_UGM):
                return 1 << 31
            return max(1, *(len(_TEXT_OF(self._vocab, token) or b"") for token in range(self.n_vocab)))

    def encode(self, data: bytes, special: bool) -> list[int]:
        """llama.cpp's own tokens of a short text; ``tokenize`` is the one to call."""
        tokenize = _TOKENIZE_SHORT if len(data) <= _SHORT else C.llama_tokenize
        room = (C.llama_token * (len(data) + 8))()
        with self.in_use():
            count = tokenize(self._vocab, data, len(data), room, len(room), False, special)
            if count < 0:  # so many are needed
                room = (C.llama_token * -count)()
                count = tokenize(self._vocab, data, len(data), room, len(room), False, special)
        return list(room[:count])

    def is_control(self, token: int) -> bool:
        """Whether a token is a control or unknown one."""
        with self.in_use():
            return bool(C.llama_vocab_get_attr(self._vocab, token) & (C.LLAMA_TOKEN_ATTR_CONTROL | C.LLAMA_TOKEN_ATTR_UNKNOWN))

    def is_user_defined(self, token: int) -> bool:
        """Whether a token is a user-defined one, which llama.cpp reads in every text."""
        with self.in_use():
            return bool(C.llama_vocab_get_attr(self._vocab, token) & C.LLAMA_TOKEN_ATTR_USER_DEFINED)

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none.

        Raises:
            EngineError: there is no such token, which llama.cpp would end the process for.
        """
        known = self._pieces.get(token)
        if known is None:
            if not 0 <= token < self.n_vocab:
                raise EngineError(f"token {token} is outside the vocabulary of {self.n_vocab}")
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

    def common_tokens(self, other: Model) -> int:
        """How many tokens from 0 on mean the same in both models; 0 where the vocabularies differ in more than fillers at the end."""
        if self is other:
            return self.n_vocab
        return Vocabulary.read(self.path, self.header).common(Vocabulary.read(other.path, other.header))

    def adopt(self, engine: Engine) -> None:
        """Notes an engine that must be closed before the weights go."""
        self._engines.add(engine)

    def close(self) -> None:
        """Free the weights and their adapters once nobody uses them; engines on them are closed first. A second call does nothing."""
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
