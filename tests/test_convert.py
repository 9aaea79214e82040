"""Published checkpoints with a value head, converted: the scores are those of the reference implementation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_rewards import said, value

from rsd_local.config import RoleConfig, Trio
from rsd_local.prompt import Prompt
from rsd_local.reasoner import Reasoner
from rsd_local.rewards.reading import ReadReward

torch = pytest.importorskip("torch", reason="the reference needs torch: pip install torch transformers tokenizers")
transformers = pytest.importorskip("transformers", reason="the reference needs transformers: pip install torch transformers tokenizers")
tokenizers = pytest.importorskip("tokenizers", reason="the reference needs tokenizers: pip install torch transformers tokenizers")

SCRIPT = Path(__file__).parent.parent / "scripts" / "convert_prm.py"
WIDTH = 64
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN2_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QUESTION = "Tom has 3 apples and buys 4 more. How many?"
STEPS = ["He has 3 apples.", "He buys 4, so 3 + 4 = 7.", "The answer is \\boxed{7}."]


def checkpoint(folder: Path, family: str) -> None:
    """A small random model in the published format: Qwen2's tensors, the head's, a byte-level BPE and its settings."""
    from safetensors.torch import save_file

    folder.mkdir()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"]
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    words = tokenizers.pre_tokenizers.Split(tokenizers.Regex(QWEN2_WORDS), "isolated")
    bytes_ = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([words, bytes_])
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=specials, initial_alphabet=alphabet)
    made.train_from_iterator([QUESTION, *STEPS], trainer)
    made.save(str(folder / "tokenizer.json"))
    about = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    config = transformers.Qwen2Config(
        vocab_size=320, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512, rope_theta=10_000.0, initializer_range=0.25,
    )  # fmt: skip
    config.save_pretrained(folder)
    torch.manual_seed(3)
    body = transformers.Qwen2Model(config).eval()
    for name, weight in body.named_parameters():
        if weight.ndim == 1 and "norm" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    tensors = {f"model.{name}": weight for name, weight in body.state_dict().items()}
    if family == "skywork":
        tensors |= {"v_head.summary.weight": torch.randn(1, WIDTH) / 8, "v_head.summary.bias": torch.randn(1)}
    elif family == "trl":
        tensors |= {"score.weight": torch.randn(2, WIDTH) / 16, "score.bias": torch.randn(2)}
    else:
        tensors |= {"score.0.weight": torch.randn(WIDTH, WIDTH) / 8, "score.0.bias": torch.randn(WIDTH)}
        tensors |= {"score.2.weight": torch.randn(2, WIDTH) / 4, "score.2.bias": torch.randn(2)}
    save_file({name: weight.contiguous().to(torch.bfloat16) for name, weight in tensors.items()}, folder / "model.safetensors")


def reference(folder: Path, family: str) -> list[float]:
    """The rewards as the published code computes them."""
    from safetensors.torch import load_file

    tensors = {name: weight.float() for name, weight in load_file(folder / "model.safetensors").items()}
    body = transformers.Qwen2Model(transformers.Qwen2Config.from_pretrained(folder)).eval()
    body.load_state_dict({name.removeprefix("model."): weight for name, weight in tensors.items() if name.startswith("model.")})
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    if family == "skywork":
        ids, places = encode("<|endoftext|>" + QUESTION + "\n"), []
        for step in STEPS:
            ids += [*encode(step), encode("\n\n")[-1]]
            places.append(len(ids) - 1)
    elif family == "trl":
        ids, places = encode("<|endoftext|>") + encode(QUESTION), []
        for step in STEPS:
            ids += encode(step) + encode("\n\n")
            places.append(len(ids) - 1)
    else:
        chat: list[dict[str, Any]] = [
            {"role": "system", "content": "Please reason step by step, and put your final answer within \\boxed{}."},
            {"role": "user", "content": QUESTION},
        ]
        head = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in chat) + "<|im_start|>assistant\n"
        ids = encode(head + "".join(step + "<extra_0>" for step in STEPS))
        places = [place for place, token in enumerate(ids) if token == tokenizer.token_to_id("<extra_0>")]
    with torch.no_grad():
        hidden = body(torch.tensor([ids])).last_hidden_state[0, places]
        if family == "skywork":
            values = torch.nn.functional.linear(hidden, tensors["v_head.summary.weight"], tensors["v_head.summary.bias"])
            return [float(value) for value in torch.sigmoid(values[:, 0])]
        if family == "trl":
            values = torch.nn.functional.linear(hidden, tensors["score.weight"], tensors["score.bias"])
            return [float(value) for value in values.softmax(-1)[:, 1]]
        inner = torch.relu(torch.nn.functional.linear(hidden, tensors["score.0.weight"], tensors["score.0.bias"]))
        values = torch.nn.functional.linear(inner, tensors["score.2.weight"], tensors["score.2.bias"])
        return [float(value) for value in values.softmax(-1)[:, 1]]


@pytest.mark.parametrize("family", ["skywork", "qwen-prm", "trl"])
def test_converted_models_score_as_the_reference_does(tmp_path: Path, family: str) -> None:
    folder = tmp_path / "Random-PRM"
    checkpoint(folder, family)
    call = [sys.executable, str(SCRIPT), str(folder), "--out", str(tmp_path / "out"), "--quantize", "Q8_0"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head, body, small = map(Path, done.stdout.split())
    wanted = reference(folder, family)
    assert max(wanted) - min(wanted) > 0.03, "a slip of one position would not be seen"
    for file, close in ((body, 1e-2), (small, 5e-2)):
        role = RoleConfig(file, flash_attention="off")
        with Reasoner.open(Trio(role, role, role, "value-head", head=head)) as opened:
            reward = opened.trio.reward(Prompt.of(QUESTION))
            scores = []
            for step in STEPS:
                reward.start_score(said("A wrong turn.")).result()
                reward.forget()
                scores.append(value(reward.start_score(said(step)).result()))
            np.testing.assert_allclose(scores, wanted, atol=close)
            assert isinstance(reward, ReadReward)
            assert reward.counters()["reward"].evaluated_tokens < 2 * len(reward._sequence)
            reward.close()
