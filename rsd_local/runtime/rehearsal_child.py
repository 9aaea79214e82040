"""The child process of a rehearsal: does with a model file, on a small scale, all that can end a process.

usage: python -m rsd_local.runtime.rehearsal_child PATH REPACK SECONDS BYTES [ADAPTER | --mtp]

Each line on standard output begins with a word: ``load``, ``adapter``, ``tokenize`` and ``decode`` before these are done, and at the end
``done``, or ``refused`` or ``unsure`` with the reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import psutil
from llama_cpp import llama_cpp as C

from rsd_local import machine
from rsd_local.runtime import llama
from rsd_local.runtime.adapters import use_adapter
from rsd_local.runtime.batch import Batch
from rsd_local.runtime.mtp_support import MOST, PairBatch, X, for_head, states_of

CONTEXT = 64  # tokens
_SPARE = 2 << 30  # bytes of memory besides the weights
_CODES = (
    *range(1, 0xC0),
    *range(0xC0, 0x800, 32),
    *range(0x800, 0xD800, 1 << 10),
    *range(0xE000, 0x10000, 1 << 10),
    *range(0x10000, 0x110000, 1 << 16),
)
_CHARACTERS = [chr(code) for code in _CODES]
"""Together they have every byte that UTF-8 text can have: some vocabularies lack one, and are fatal for that one only."""
_TEXTS = [
    "What is 12 + 345?",
    "naïve – ки 日本 नमस्ते",
    "👩‍👩‍👧 🎲",
    " " * 40,
    "a\n\n\n\tb\r\n",
    "x" * 200,
    "1234567890" * 4,
    "\\boxed{\\frac{1}{2}}",
    "�\u200b\ufeff",
]


def main(arguments: Sequence[str]) -> None:
    """Runs the rehearsal of one file."""
    path, repack, seconds, size, *adapter = arguments
    _set_limits(int(seconds), 2 * int(size) + _SPARE)
    try:
        _say(_rehearse(path, repack == "1", *adapter))
    except Exception as error:  # of this module, not of the file
        _say(f"unsure {type(error).__name__}: {error}")


def _set_limits(seconds: int, memory: int) -> None:
    """Ends this process after a time, also if its parent has gone; lets it take so many bytes more; and keeps core files away."""
    if sys.platform != "win32":
        import resource

        signal.alarm(seconds)
        used = getattr(psutil.Process().memory_info(), "data", 0)  # Linux has it, and keeps to the limit
        # A limit of 1 byte also keeps away the programs that collect core files, which 0 does not.
        for kind, limit in ((resource.RLIMIT_CORE, 1), (resource.RLIMIT_DATA, used + memory)):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def _rehearse(path: str, repack: bool, adapter: str = "") -> str:
    _say("load")
    params = C.llama_model_default_params()
    no_devices = (ctypes.c_void_p * 1)(None)  # the list ends with the first NULL
    params.devices, params.n_gpu_layers, params.use_extra_bufts = ctypes.cast(no_devices, ctypes.c_void_p), 0, repack
    mtp = adapter == "--mtp"
    if mtp:
        adapter, params.load_mtp = "", True
    model = C.llama_model_load_from_file(os.fsencode(path), params)
    if not model:  # one that an adapter is tried on went well before
        return f"{'unsure' if adapter else 'refused'} {llama.last_errors() or 'llama.cpp gave no reason'}"
    lora = None
    if adapter:
        _say("adapter")
        lora = C.llama_adapter_lora_init(model, os.fsencode(adapter))
        if not lora:
            return f"refused {llama.last_errors() or 'llama.cpp gave no reason'}"
    elif not mtp:
        _say("tokenize")
        _tokenize(C.llama_model_get_vocab(model))
    _say("decode")
    return _decode(model, lora, mtp)


def _tokenize(vocab: Any) -> None:
    """Tokenizes texts, and puts a text of all tokens together."""
    room = (C.llama_token * 2048)()
    for text in (*_TEXTS, *_CHARACTERS):
        data = text.encode()
        for special in (False, True):
            C.llama_tokenize(vocab, data, len(data), room, len(room), False, special)
    count = C.llama_vocab_n_tokens(vocab)
    tokens = (C.llama_token * count)(*range(count))
    for special in (False, True):
        size = -C.llama_detokenize(vocab, tokens, count, None, 0, False, special)
        if size > 0:
            C.llama_detokenize(vocab, tokens, count, ctypes.create_string_buffer(size), size, False, special)


def _decode(model: Any, lora: Any, mtp: bool) -> str:
    """Two rows, then one, then one with its hidden state; after each all but the first token is forgotten."""
    params = C.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
    params.pooling_type, params.swa_full, params.kv_unified = 0, True, True
    params.offload_kqv = params.op_offload = False
    params.n_threads = params.n_threads_batch = machine.threads()
    context = C.llama_init_from_model(model, params)
    if not context:
        return f"unsure {llama.last_errors()}"
    if lora:
        use_adapter(context, lora, 1.0)
    if mtp:
        return _guess(model, params)
    memory, last = C.llama_get_memory(context), C.llama_vocab_n_tokens(C.llama_model_get_vocab(model)) - 1
    for tokens, states in (((0, last), False), ((last,), False), ((0,), True)):
        C.llama_set_embeddings(context, states)
        rows = (C.llama_token * len(tokens))(*tokens)
        status = C.llama_decode(context, C.llama_batch_get_one(rows, len(rows)))
        C.llama_synchronize(context)
        if status != 0:
            return f"unsure llama.cpp's status is {status}"
        C.llama_memory_seq_rm(memory, 0, 1, -1)
    return "done"


def _guess(model: Any, params: Any) -> str:
    """Some rows, the multi-token head's guesses behind them, and rows of which all but the first are forgotten."""
    params.n_rs_seq = MOST
    context = C.llama_init_from_model(model, params)
    head = C.llama_init_from_model(model, for_head(params, context)) if context else None
    if not head:
        return f"refused {llama.last_errors() or 'llama.cpp makes no context for it'}"
    for one in (context, head):
        X.llama_set_embeddings_nextn(one, True, False)
    width, pairs, batch, half = C.llama_model_n_embd_out(model), PairBatch(CONTEXT, model), Batch(CONTEXT), CONTEXT // 2
    batch.add(0, 0, [0] * half, 1)
    status = C.llama_decode(context, batch.struct)
    states = states_of(context, 0, half, width) if status == 0 else []
    for first, rows, outputs in ((0, half, 0), (half, 1, 1), (half + 1, 1, 1)):
        pairs.clear()
        pairs.add_pairs(0, first, [0] * rows, states[-rows:], outputs)
        status = status or C.llama_decode(head, pairs.struct)
        states = states if status else states_of(head, rows - 1, 1, width)
    for position, rows in ((half, 1 + MOST), (half + 1, 1)):
        batch.clear()
        batch.add(0, position, [0] * rows, rows)
        status = status or C.llama_decode(context, batch.struct)
        C.llama_synchronize(context)
        C.llama_memory_seq_rm(C.llama_get_memory(context), 0, half + 1, -1)
    return f"refused llama.cpp's status is {status}" if status else "done"


def _say(line: str) -> None:
    print(" ".join(line.split()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
