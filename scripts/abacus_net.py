"""The network of the abacus models in torch: a llama, its tokenizer, sampling, and export to GGUF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP_END, BOXED, TAG = "\n\n", "\\boxed{", " ки"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
VOCABULARY = ["<unk>", "<s>", "</s>", *_BYTES, *"0123456789+-*()=", "▁", STEP_END, BOXED, "}", TAG]
ID = {piece: index for index, piece in enumerate(VOCABULARY)}
BOS, EOS = ID["<s>"], ID["</s>"]
_WHOLE = (STEP_END, BOXED, TAG)


def encode(text: str) -> list[int]:
    """Token ids as llama.cpp's tokenizer gives them for texts of the task (a test compares the two)."""
    ids, position = [], 0
    while position < len(text):
        piece = next((whole for whole in _WHOLE if text.startswith(whole, position)), text[position])
        position += len(piece)
        piece = "▁" if piece == " " else piece
        ids += [ID[piece]] if piece in ID else [ID[f"<0x{byte:02X}>"] for byte in piece.encode()]
    return ids


def decode(ids: list[int]) -> str:
    """The text of token ids that the models generate; a byte that is no character alone loses its high bit."""
    pieces = (VOCABULARY[token] for token in ids if token > EOS)
    return "".join(chr(int(piece[3:5], 16) & 0x7F) if piece.startswith("<0x") else piece.replace("▁", " ") for piece in pieces)


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a network; ``kv_heads`` divides ``heads``, widths are multiples of 32 for Q8_0."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    context: int = 256


class Layer(nn.Module):
    """Pre-norm attention with rotary positions, then a gated feed-forward."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, self.head = shape, shape.width // shape.heads
        keys = self.head * shape.kv_heads
        self.attn_norm, self.ffn_norm = nn.RMSNorm(shape.width, 1e-5), nn.RMSNorm(shape.width, 1e-5)
        self.q, self.k = nn.Linear(shape.width, shape.width, bias=False), nn.Linear(shape.width, keys, bias=False)
        self.v, self.o = nn.Linear(shape.width, keys, bias=False), nn.Linear(shape.width, shape.width, bias=False)
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], cache: list[Tensor] | None) -> Tensor:
        rows, length, _ = x.shape
        h = self.attn_norm(x)
        q = rotate(self.q(h).view(rows, length, -1, self.head), turn).transpose(1, 2)
        k = rotate(self.k(h).view(rows, length, -1, self.head), turn).transpose(1, 2)
        v = self.v(h).view(rows, length, -1, self.head).transpose(1, 2)
        if cache is not None:
            if cache:
                k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
            cache[:] = [k, v]
        share = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        scores = q @ k.transpose(2, 3) * self.head**-0.5  # at 80 tokens several times as fast as the fused kernel
        if length > 1:
            scores = scores + torch.full((length, length), -torch.inf, dtype=scores.dtype).triu(1)
        mixed = scores.softmax(-1).to(v.dtype) @ v
        x = x + self.o(mixed.transpose(1, 2).reshape(rows, length, -1))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    """A llama with tied embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(len(VOCABULARY), shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, 1e-5)
        head = shape.width // shape.heads
        angles = torch.outer(torch.arange(shape.context), 10_000.0 ** (-torch.arange(0, head, 2) / head))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02 if not name.endswith(("o.weight", "down.weight")) else 0.02 / (2 * shape.layers) ** 0.5)

    def forward(self, tokens: Tensor, caches: list[list[Tensor]] | None = None, start: int = 0) -> Tensor:
        """Logits (rows, length, vocabulary) of token ids (rows, length)."""
        turn = self.cos[start : start + tokens.shape[1]], self.sin[start : start + tokens.shape[1]]
        x = self.embed(tokens)
        for index, layer in enumerate(self.layers):
            x = layer(x, turn, caches[index] if caches is not None else None)
        return F.linear(self.norm(x), self.embed.weight)


def grown(base: Llama, shape: Shape) -> Llama:
    """A deeper model that computes what ``base`` does: the new layers on top add nothing until they are trained.

    A model that has learnt to write right steps knows each next digit only in its last layer; to see that a written one
    differs, it needs layers behind that.
    """
    model = Llama(shape)
    model.load_state_dict(base.state_dict(), strict=False)
    for layer in model.layers[base.shape.layers :]:
        nn.init.zeros_(layer.o.weight)
        nn.init.zeros_(layer.down.weight)
    return model


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions over neighbouring pairs, llama.cpp's order for the llama architecture."""
    turned = torch.view_as_complex(x.float().unflatten(-1, (-1, 2))) * torch.complex(*turn)[None, :, None, :]
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


@torch.no_grad()
def sample(model: Llama, prompts: list[list[int]], temperature: float, seed: int, limit: int = 90) -> list[list[int]]:
    """One continuation of each prompt; the prompts have equal lengths. Temperature 0 is greedy."""
    chance = torch.Generator().manual_seed(seed)
    caches: list[list[Tensor]] = [[] for _ in model.layers]
    tokens, start = torch.tensor(prompts), 0
    done = torch.zeros(len(prompts), dtype=torch.bool)
    written: list[Tensor] = []
    while not done.all() and len(written) < limit:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(tokens, caches, start)[:, -1].float()
        start += tokens.shape[1]
        if temperature > 0:
            tokens = torch.multinomial((logits / temperature).softmax(-1), 1, generator=chance)
        else:
            tokens = logits.argmax(-1, keepdim=True)
        tokens[done] = EOS
        done |= tokens[:, 0] == EOS
        written.append(tokens)
    rows = torch.cat(written, 1).tolist()
    return [row[: row.index(EOS)] if EOS in row else row for row in rows]


def export(model: Llama, path: Path, about: dict[str, str]) -> None:
    """Writes the model as a Q8_0 GGUF file with its tokenizer.

    Args:
        model: what to write.
        path: the file; it appears under its name only when complete.
        about: ``name``, ``description``, ``author``, ``license`` and whatever else of general.* is to be kept.
    """
    import gguf

    shape, part = model.shape, path.with_suffix(".part")
    out = gguf.GGUFWriter(part, "llama")
    for key, text in about.items():
        out.add_string(f"general.{key}", text)
    out.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    out.add_context_length(shape.context)
    out.add_embedding_length(shape.width)
    out.add_block_count(shape.layers)
    out.add_feed_forward_length(shape.hidden)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.kv_heads)
    out.add_rope_dimension_count(shape.width // shape.heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(VOCABULARY))
    kinds = gguf.TokenType
    whole = {piece: kinds.USER_DEFINED for piece in _WHOLE}
    special = {"<unk>": kinds.UNKNOWN, "<s>": kinds.CONTROL, "</s>": kinds.CONTROL}
    types = whole | special | dict.fromkeys(_BYTES, kinds.BYTE)
    out.add_tokenizer_model("llama")
    out.add_token_list(VOCABULARY)
    out.add_token_scores([0.0] * len(VOCABULARY))
    out.add_token_types([types.get(piece, kinds.NORMAL) for piece in VOCABULARY])
    out.add_bos_token_id(BOS)
    out.add_eos_token_id(EOS)
    out.add_unk_token_id(0)
    out.add_add_bos_token(True)
    out.add_add_eos_token(False)
    out.add_add_space_prefix(False)
    out.add_chat_template("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}\n\n{% endif %}{% endfor %}")
    names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    for name, weight in model.state_dict().items():
        match name.split("."):
            case ["embed", _]:
                target = "token_embd.weight"
            case ["norm", _]:
                target = "output_norm.weight"
            case ["layers", index, kind, _]:
                target = f"blk.{index}.{names.get(kind, kind)}.weight"
        array = weight.float().numpy()
        if array.ndim == 2:
            packed = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            out.add_tensor(target, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            out.add_tensor(target, array)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    part.replace(path)
