"""A Llama in GGUF as the folder that transformers and vLLM read: the same weights, the same tokenizer.

For tests that hold engines against each other. Quantised tensors are dequantised to float32, exactly as
llama.cpp does it. `python tests/gguf_to_safetensors.py FILE FOLDER`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

TENSORS = {
    "token_embd": "model.embed_tokens",
    "output": "lm_head",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""transformers' names of llama.cpp's tensors."""

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": BYTE_LEVEL,
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
    },
}
"""How text is cut before the merges, by `tokenizer.ggml.pre`."""


def convert(source: Path, directory: Path) -> Path:
    """Write the model in `source` to `directory`, which is made, and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    names = {tensor.name for tensor in reader.tensors}
    config = _config(fields, tied="output.weight" not in names)
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    end = fields["tokenizer.ggml.eos_token_id"]
    documents: dict[str, object] = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": end},
        "tokenizer.json": _tokenizer(fields),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": tokens[end],
            "model_max_length": config["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            "chat_template": fields["tokenizer.chat_template"],
        },
    }
    for name, document in documents.items():
        (directory / name).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    (directory / "model.safetensors").write_bytes(_safetensors(dict(_tensors(reader, config["head_dim"]))))
    return directory


def dequantise(source: Path, target: Path) -> Path:
    """Write the same GGUF with its tensors in float32, so that llama.cpp computes with floats too."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(str(target), reader.fields["general.architecture"].contents())
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _config(fields: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    heads, width = fields["llama.attention.head_count"], fields["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": width,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": width // heads,
        "hidden_act": "silu",
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 9),  # float32 in the file
        "rope_theta": fields.get("llama.rope.freq_base", 10000.0),
        "tie_word_embeddings": tied,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
    }


def _tensors(reader: gguf.GGUFReader, head_width: int) -> Iterator[tuple[str, Array]]:
    """The tensors by transformers' names. llama.cpp turns pairs of neighbours by position, transformers pairs
    of the two halves of a head: rows of the query and key matrices change their places."""
    for tensor in reader.tensors:
        value = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        words = tensor.name.removesuffix(".weight").split(".")
        prefix = f"model.layers.{words[1]}." if words[0] == "blk" else ""
        if words[-1] in ("attn_q", "attn_k"):
            pairs = value.reshape(-1, head_width // 2, 2, value.shape[-1])
            value = np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(value.shape))
        yield f"{prefix}{TENSORS[words[-1]]}.weight", value


def _safetensors(tensors: dict[str, Array]) -> bytes:
    """The safetensors format: length of the header, header in JSON, the tensors one after the other."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    parts, place = [], 0
    for name, tensor in sorted(tensors.items()):
        raw = tensor.astype("<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [place, place + len(raw)],
        }
        parts.append(raw)
        place += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _tokenizer(fields: dict[str, Any]) -> dict[str, object]:
    """The tokenizer as the library `tokenizers` keeps it: byte-level pair encoding."""
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, **flags}
            for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == gguf.TokenType.CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZERS[fields["tokenizer.ggml.pre"]],
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [pair.split(" ") for pair in fields["tokenizer.ggml.merges"]],
        },
    }


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))
