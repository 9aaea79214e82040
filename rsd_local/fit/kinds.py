"""What kind of file a GGUF header belongs to: not all are language models that can be asked.

Names of architectures are llama.cpp's (``src/llama-arch.cpp``), of types and keys those of the format
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import re

from rsd_local.gguf_header import Header

_EMBEDDING = re.compile(r".*bert.*|gemma-embedding|llama-embed|t5encoder")
_DIFFUSION = {"dream", "llada", "llada-moe", "rnd1"}
_ADD_ONS = re.compile(r"eagle\d?|dflash|.*-assistant|.*-mtp")
"""Heads that only llama.cpp's own speculation uses, beside the model that they belong to."""
_PACKED_OTHERWISE = {"gptoss": "gpt-oss"}
"""Architectures under names that only Ollama's own engine knows, and llama.cpp's names for them."""
_REWARD = re.compile(r"(?<![a-z])(prm|orm|rm|reward)(?![a-z])", re.IGNORECASE)
_SEEING = ("v.", "mm.", "a.", "vision.", "audio.")
_NO_POOLING, _RANK = 0, 4
_TOKENS = "tokenizer.ggml.tokens"


def why_not(header: Header, name: str) -> str:
    """Why a model can be neither a draft nor a target; empty where nothing speaks against it.

    Args:
        header: of its file.
        name: of the file.
    """
    return _other_file(header) or _other_model(header, name)


def _other_file(header: Header) -> str:
    """What the file is where it is no model."""
    data, arch = header.metadata, str(header.metadata.get("general.architecture", ""))
    kind, names = data.get("general.type"), [tensor.name for tensor in header.tensors]
    if kind == "adapter" or any(key.startswith("adapter.") for key in data):
        return "a LoRA adapter, which belongs to another model"
    if kind == "mmproj" or arch == "clip" or (names and all(tensor.startswith(_SEEING) for tensor in names)):
        return "the vision or audio part of another model (mmproj)"
    if kind == "imatrix" or arch == "imatrix":
        return "an importance matrix for quantizing"
    if not names:
        return "a vocabulary without weights" if _TOKENS in header.arrays else "no weights in it"
    if _ADD_ONS.fullmatch(arch) or not any(tensor.startswith("token_embd.") for tensor in names):
        if _TOKENS not in header.arrays and not _ADD_ONS.fullmatch(arch):
            return f"no language model ({arch or 'architecture unknown'})"
        return f"a part for llama.cpp's own speculation, no whole model ({arch})"
    return "" if _TOKENS in header.arrays else f"no vocabulary ({arch})"


def _other_model(header: Header, name: str) -> str:
    """What the model is where it does not write texts that go on from a question."""
    data, arch = header.metadata, str(header.metadata.get("general.architecture", ""))
    names = {tensor.name for tensor in header.tensors}
    pooling = data.get(f"{arch}.pooling_type", _NO_POOLING)
    if pooling == _RANK or any(tensor.startswith("cls.") for tensor in names):
        return "a classifier, such as a reranker or a reward model, that writes no text"
    if _EMBEDDING.fullmatch(arch) or pooling != _NO_POOLING or data.get(f"{arch}.attention.causal") is False:
        return "an embedding model, which writes no text"
    if arch in _DIFFUSION:
        return "a diffusion model, which does not write one token after another"
    if arch == "t5":
        return "an encoder with a decoder (t5), which cannot be asked here"
    if arch in _PACKED_OTHERWISE:
        return f"packed for Ollama alone ({arch}); llama.cpp needs a file of {_PACKED_OTHERWISE[arch]}"
    if any(tensor.startswith(_SEEING) for tensor in names):
        return "packed for Ollama alone, with its vision part inside; llama.cpp needs them as two files"
    if any(_REWARD.search(text) for text in (name, str(data.get("general.name", "")), str(data.get("general.finetune", "")))):
        return "a reward model by its name: for --reward (docs/rewards.md)"
    if not data.get("tokenizer.chat_template"):
        return "no chat template, so it cannot be asked: a base model"
    return ""
