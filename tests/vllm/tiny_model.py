# SPDX-License-Identifier: Apache-2.0
"""Writes a tiny chat model with random weights (0.6 MB) into a directory: `tiny_model.py DIRECTORY`.

It needs numpy, safetensors and tokenizers, and no network. The same SEED gives the same bytes. The model babbles in
English words and ends a reply after about 60 tokens on average, so that a server treats it as any other chat model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np  # type: ignore[import-not-found]  # of vLLM's environment, not of ours
from safetensors.numpy import save_file  # type: ignore[import-not-found]  # as above
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # type: ignore[import-not-found]  # as above

SEED = 1
VOCAB, HIDDEN, LAYERS, HEADS, FFN, CONTEXT = 512, 64, 2, 2, 128, 8192
BOS, END, EOS = "<|im_start|>", "<|im_end|>", "<|endoftext|>"

# How likely a token is, whatever the context: whole words 0, all others OTHER_BIAS, but for these. A reply or a JSON
# string ends by itself after some time, and JSON made to a schema is closed at once and not padded with blanks.
OTHER_BIAS = -10
BIAS = {END: 0.6, '"': 0.6, "}": -5, "]": -5, " ": -20, "\n": -20, "\t": -20, "\r": -20}

VOCABULARY = """
    a about after again all an and any are as ask at back be because before best
    both but by call can cat city clear close cold come count day deep do dog door
    each early end even every far few fire first five for four from gate get give
    go good green hand hear help her high home house how if in into is it just
    keep kind know land last late leave left light line list little long look
    made make many may more most move much near never new next night no not now
    of off old on one only open or other our out over own part place plan point
    put queue quick quiet rain read red rest right river road room round run say
    sea see send she ship show side slow small so some song soon stand star start
    stay still stone stop stream street sun take talk tell ten than that the then
    there they this three time to token tree true turn two under up use wait walk
    wall want warm water way we well west what when where which while white who
    why will wind with word work world write year yes you
"""
WORDS = VOCABULARY.split()

CHAT_TEMPLATE = """\
{%- if tools %}<|im_start|>system
Tools: {{ tools | tojson }}
Call one as <tool_call>{"name": ..., "arguments": {...}}</tool_call>.<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content or '' }}
{%- for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def make_tokenizer(rng: np.random.Generator) -> Tokenizer:
    """A byte-level BPE, so that it can encode any text and spell any JSON."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[EOS, BOS, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" " + " ".join(rng.choice(WORDS, 40)) + "." for _ in range(500)], trainer)
    return tokenizer


def make_weights(rng: np.random.Generator, tokenizer: Tokenizer) -> dict[str, Any]:
    """Random weights of a Llama whose first residual channel is constant, so that `lm_head` has a bias a token."""

    def normal(rows: int, columns: int, scale: float) -> Any:
        return rng.normal(0, scale, (rows, columns)).astype(np.float32)

    ones = np.ones(HIDDEN, np.float32)
    weights = {
        "model.embed_tokens.weight": normal(VOCAB, HIDDEN, 1.0),
        "model.norm.weight": ones.copy(),
        "lm_head.weight": normal(VOCAB, HIDDEN, 0.2),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weights[f"{prefix}self_attn.{name}.weight"] = normal(HIDDEN, HIDDEN, 0.15)
        weights[f"{prefix}mlp.gate_proj.weight"] = normal(FFN, HIDDEN, 0.15)
        weights[f"{prefix}mlp.up_proj.weight"] = normal(FFN, HIDDEN, 0.15)
        weights[f"{prefix}mlp.down_proj.weight"] = normal(HIDDEN, FFN, 0.15)
        weights[f"{prefix}input_layernorm.weight"] = ones.copy()
        weights[f"{prefix}post_attention_layernorm.weight"] = ones.copy()
        # Channel 0 stays what the embedding put there, ...
        weights[f"{prefix}self_attn.o_proj.weight"][0] = 0
        weights[f"{prefix}mlp.down_proj.weight"][0] = 0
    weights["model.embed_tokens.weight"][:, 0] = 8
    # ... so that the head's column 0 is the bias.
    head = weights["lm_head.weight"]
    bias = {f" {word}": 0 for word in WORDS} | BIAS
    for token in range(VOCAB):
        text = tokenizer.decode([token], skip_special_tokens=False)
        if text in BIAS:
            head[token] = 0  # nothing but the bias
        head[token, 0] = bias.get(text, OTHER_BIAS)
    return weights


def configurations(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """The JSON files of the model, by name; `config.json` last, for it says that the model is whole."""
    end, eos, bos = (tokenizer.token_to_id(token) for token in (END, EOS, BOS))
    return {
        "generation_config.json": {"bos_token_id": bos, "eos_token_id": [end, eos]},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
            "eos_token": END,
            "pad_token": EOS,
            "chat_template": CHAT_TEMPLATE,
        },
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "float32",
            "vocab_size": VOCAB,
            "hidden_size": HIDDEN,
            "intermediate_size": FFN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
            "bos_token_id": bos,
            "eos_token_id": end,
            "pad_token_id": eos,
        },
    }


def main(directory: Path) -> None:
    """Write the model."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    tokenizer = make_tokenizer(rng)
    weights = make_weights(rng, tokenizer)
    tokenizer.save(str(directory / "tokenizer.json"))
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    for name, value in configurations(tokenizer).items():
        (directory / name).write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
