"""A language model of half a megabyte whose answer is known, for tests.

`python -m tests.tiny_model FILE` writes a Llama of two layers as GGUF, or, where FILE is a directory, the
same weights as safetensors with config and tokenizer, as transformers and vLLM read them. The weights
come from a seed (uniform draws only, so that no C library's logarithm enters) and the files' bytes are
always the same. The embedding and the output matrix are laid so that the greedy chain after the token that
ends the chat template is `ANSWER` and then the end-of-text token: a chat takes few tokens, which
matters where floating point is emulated, and a wrong weight gives a wrong answer.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from tests.gguf_to_safetensors import convert

NAME = "tiny"
ANSWER = "Hello from the tiny model."
CHAT_TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}<|answer|>"

SEED = 20260101
LAYERS = 2
WIDTH = 64
HEADS = 2
KV_HEADS = 1
HEAD_WIDTH = WIDTH // HEADS
"""32: the least that vLLM computes with on a CPU."""
FEED_FORWARD = 128
CONTEXT = 2048
NORM_EPSILON = 1e-5
OUTPUT_GAIN = 5.0
"""Logit of the next token of a chain over its rivals: about 40 to 15, so that sampling at
temperature 1 gives the greedy answer too."""

END = "<|end|>"
ANSWER_STARTS = "<|answer|>"
WORDS = ("Hello", "Ġfrom", "Ġthe", "Ġtiny", "Ġmodel", "Ġis", "Ġa", "Ġof", "ĠWhat", "Say", "Ġhello", "Name")
"""Whole-word tokens (`Ġ` is a space, as in GPT-2's vocabulary); other text falls into bytes."""

CHAIN = (ANSWER_STARTS, "Hello", "Ġfrom", "Ġthe", "Ġtiny", "Ġmodel", ".", END)

Array = npt.NDArray[np.float32]


def byte_tokens() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes, in the order of the bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def merges() -> list[str]:
    """The byte-pair merges that build each of WORDS from its letters, left to right."""
    found: dict[str, None] = {}
    for word in WORDS:
        for end in range(1, len(word)):
            found[f"{word[:end]} {word[end]}"] = None
    return list(found)


def vocabulary() -> list[str]:
    """All tokens: the bytes, every step of the merges, and the two control tokens."""
    return [*byte_tokens(), *(pair.replace(" ", "") for pair in merges()), ANSWER_STARTS, END]


def weights() -> dict[str, Array]:
    """The tensors by GGUF name, float32, in llama.cpp's layout."""
    random = np.random.RandomState(SEED)

    def draw(*shape: int, scale: float) -> Array:
        return ((random.random_sample(shape) * 2 - 1) * scale).astype(np.float32)

    tokens = vocabulary()
    embedding = draw(len(tokens), WIDTH, scale=1.0)
    output = np.zeros_like(embedding)
    follower = {tokens.index(now): tokens.index(then) for now, then in itertools.pairwise(CHAIN)}
    # Outside the chain, each printable token is followed by some other one: any prompt gives text.
    printable = [i for i, t in enumerate(tokens) if t.isascii() and t not in (ANSWER_STARTS, END)]
    free = [i for i in printable if i not in follower.values()]
    for now, then in zip(random.permutation(free), free, strict=True):
        follower.setdefault(int(now), then)
    for now, then in follower.items():
        direction = embedding[now]
        output[then] = direction / np.sqrt((direction**2).sum()) * OUTPUT_GAIN

    found = {"token_embd.weight": embedding, "output.weight": output, "output_norm.weight": _ones()}
    for layer in range(LAYERS):
        small = 0.02  # the layers compute, and leave the chain in place
        found |= {
            f"blk.{layer}.attn_norm.weight": _ones(),
            f"blk.{layer}.attn_q.weight": draw(WIDTH, WIDTH, scale=small),
            f"blk.{layer}.attn_k.weight": draw(KV_HEADS * HEAD_WIDTH, WIDTH, scale=small),
            f"blk.{layer}.attn_v.weight": draw(KV_HEADS * HEAD_WIDTH, WIDTH, scale=small),
            f"blk.{layer}.attn_output.weight": draw(WIDTH, WIDTH, scale=small),
            f"blk.{layer}.ffn_norm.weight": _ones(),
            f"blk.{layer}.ffn_gate.weight": draw(FEED_FORWARD, WIDTH, scale=small),
            f"blk.{layer}.ffn_up.weight": draw(FEED_FORWARD, WIDTH, scale=small),
            f"blk.{layer}.ffn_down.weight": draw(WIDTH, FEED_FORWARD, scale=small),
        }
    return found


def _ones() -> Array:
    return np.ones(WIDTH, dtype=np.float32)


def write(path: Path) -> Path:
    """Write the model to `path` as GGUF and return it."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(NAME)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens = vocabulary()
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if t in (ANSWER_STARTS, END) else normal for t in tokens])
    writer.add_token_merges(merges())
    writer.add_eos_token_id(tokens.index(END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, tensor in weights().items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_safetensors(directory: Path) -> Path:
    """Write the same model to `directory` as transformers and vLLM read it, and return it."""
    with tempfile.TemporaryDirectory() as temporary:
        return convert(write(Path(temporary, "tiny.gguf")), directory)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    print(write_safetensors(target) if target.is_dir() else write(target))
