"""Converts a process reward model with a value head: the body to GGUF, the head to a safetensors file beside it.

    python scripts/convert_prm.py REPO-OR-FOLDER --out DIR [--quantize Q4_K_M] [--separator TEXT] [--head-only]

Knows Skywork-o1-Open-PRM (Qwen2 with v_head.summary), Qwen2.5-Math-PRM (Qwen2 with score.0 and score.2), and token classifiers of
TRL's PRMTrainer (Qwen2 with score, of two classes; --head-only for another architecture, whose body llama.cpp's own converter
makes). Tensors go through memory one at a time. Then:  rsd solve … --reward BODY.gguf --reward-kind value-head --head HEAD.safetensors
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.utility import LocalTensor, SafetensorsLocal

from rsd_local.rewards.heads import ValueHead

FAMILIES = {"skywork": ["v_head.summary"], "qwen-prm": ["score.0", "score.2"], "trl": ["score"]}
"""The head's layers by the layout that it belongs to."""
FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja"]
UNUSED_HEADS = ("lm_head.weight",)
PRE_TOKENIZER = "qwen2"


def folder_of(source: str) -> Path:
    """The checkpoint's folder, downloaded where it is none."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source, allow_patterns=FILES))


def tensors_of(folder: Path) -> dict[str, LocalTensor]:
    """All tensors of a checkpoint by name, as places in its files."""
    found: dict[str, LocalTensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in SafetensorsLocal(file).tensors.items():
            found[name.removeprefix("pretrained_model.")] = tensor
    if not found:
        raise SystemExit(f"{folder} has no safetensors file")
    return found


def values_of(tensor: LocalTensor) -> np.ndarray:
    """One tensor's numbers as float32."""
    raw: np.ndarray = tensor.mmap_bytes()
    kinds = {"F32": np.float32, "F16": np.float16}
    if tensor.dtype == "BF16":
        numbers = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif tensor.dtype in kinds:
        numbers = raw.view(kinds[tensor.dtype]).astype(np.float32)
    else:
        raise SystemExit(f"tensors of type {tensor.dtype} are not known")
    return numbers.reshape(tensor.shape)


def head_of(tensors: dict[str, LocalTensor], separator: str, bos: bool) -> tuple[ValueHead, set[str]]:
    """The value head, and the names of its tensors.

    Args:
        tensors: of the checkpoint.
        separator, bos: see ``ValueHead``; of layout trl.
    """
    for layout, layers in FAMILIES.items():
        names = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
        if set(names) <= tensors.keys():
            pairs = tuple((values_of(tensors[names[place]]), values_of(tensors[names[place + 1]])) for place in range(0, len(names), 2))
            if layout == "trl" and len(pairs[0][1]) != 2:
                raise SystemExit(f"its head tells {len(pairs[0][1])} classes apart, and a process reward model has two")
            return ValueHead(layout, pairs, *((separator, bos) if layout == "trl" else ())), set(names)  # type: ignore[arg-type]
    raise SystemExit(f"no head that is known: {', '.join(name for name in tensors if 'layers' not in name)}")


def write_body(name: str, folder: Path, tensors: dict[str, LocalTensor], head: set[str], out: Path) -> None:
    """Writes the body as GGUF: matrices in float16, the rest in float32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config["num_hidden_layers"])
    body = {name: tensor for name, tensor in tensors.items() if name not in head and name not in UNUSED_HEADS}
    writer = gguf.GGUFWriter(out, "qwen2")
    writer.add_name(name)
    add_settings(writer, config)
    add_vocabulary(writer, config, folder)
    for name, tensor in body.items():
        mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            raise SystemExit(f"{name} is no tensor of a Qwen2 model")
        kind = np.float16 if len(tensor.shape) == 2 else np.float32
        writer.add_tensor_info(mapped, tensor.shape, np.dtype(kind), int(np.prod(tensor.shape)) * kind().itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in body.values():
        writer.write_tensor_data(values_of(tensor).astype(np.float16 if len(tensor.shape) == 2 else np.float32))
    writer.close()


def add_settings(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """The network's sizes."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    rope = config.get("rope_parameters") or {}
    writer.add_rope_freq_base(config.get("rope_theta") or rope.get("rope_theta", 10_000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """What ``tokenizer_config.json`` says, nothing where there is none."""
    file = folder / "tokenizer_config.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def add_vocabulary(writer: gguf.GGUFWriter, config: dict[str, Any], folder: Path) -> None:
    """The byte-level BPE of ``tokenizer.json``, its special tokens, and the chat template."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    about = tokenizer_settings(folder)
    pieces = {place: piece for piece, place in tokenizer["model"]["vocab"].items()}
    kinds = dict.fromkeys(pieces, gguf.TokenType.NORMAL)
    for token in tokenizer["added_tokens"]:
        pieces[token["id"]] = token["content"]
        kinds[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    places = range(max(config["vocab_size"], len(pieces)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list([pieces.get(place, f"[PAD{place}]") for place in places])
    writer.add_token_types([kinds.get(place, gguf.TokenType.UNUSED) for place in places])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    ids = {piece: place for place, piece in pieces.items()}
    for role, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id), ("pad", writer.add_pad_token_id)):
        token = about.get(f"{role}_token")
        content = token["content"] if isinstance(token, dict) else token
        place = ids.get(content, config.get(f"{role}_token_id"))
        if isinstance(place, int):
            add(place)
    writer.add_add_bos_token(False)
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.exists() else about.get("chat_template")
    if isinstance(text, str):
        writer.add_chat_template(text)


def quantized(body: Path, kind: str) -> Path:
    """The body in another type, by llama.cpp's own quantizer."""
    from llama_cpp import llama_cpp as C

    known = {name.removeprefix("LLAMA_FTYPE_MOSTLY_"): getattr(C, name) for name in dir(C) if name.startswith("LLAMA_FTYPE_MOSTLY_")}
    if kind not in known:
        raise SystemExit(f"{kind} is no type of llama.cpp: {', '.join(known)}")
    out = body.with_name(body.name.replace("-f16.gguf", f"-{kind.lower()}.gguf"))
    params = C.llama_model_quantize_default_params()
    params.ftype = known[kind]
    if C.llama_model_quantize(str(body).encode(), str(out).encode(), params) != 0:
        raise SystemExit(f"llama.cpp cannot make {out}")
    return out


def steps() -> Iterator[Path]:
    """Runs the conversion, and yields each file made."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("source", metavar="REPO-OR-FOLDER")
    arguments.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments.add_argument("--quantize", metavar="TYPE", help="any type of llama.cpp's quantizer, Q4_K_M for example")
    text = "what stood behind each step in TRL's training, \\n for a line break; default: a blank line"
    arguments.add_argument("--separator", default=r"\n\n", metavar="TEXT", help=text)
    arguments.add_argument("--head-only", action="store_true", help="make the head alone")
    chosen = arguments.parse_args()
    folder = folder_of(chosen.source)
    chosen.out.mkdir(parents=True, exist_ok=True)
    name = Path(chosen.source).name.lower()
    tensors = tensors_of(folder)
    separator = chosen.separator.replace("\\n", "\n")
    if not separator:
        arguments.error("--separator is empty")
    head, names = head_of(tensors, separator, tokenizer_settings(folder).get("bos_token") is not None)
    head.save(chosen.out / f"{name}-head.safetensors")
    yield chosen.out / f"{name}-head.safetensors"
    if chosen.head_only:
        return
    body = chosen.out / f"{name}-f16.gguf"
    write_body(Path(chosen.source).name, folder, tensors, names, body)
    yield body
    if chosen.quantize:
        yield quantized(body, chosen.quantize)


if __name__ == "__main__":
    for made in steps():
        print(made)
