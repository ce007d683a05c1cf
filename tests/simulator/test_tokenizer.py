# SPDX-License-Identifier: Apache-2.0
"""The tokenizer counts as the recorded model's does, and loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.simulator.prompts import render_chat
from llm_gateway.simulator.story import SENTENCES, Story
from llm_gateway.simulator.tokenizer import END, START, Tokenizer

_TOKENIZER = Tokenizer()
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("hello world", [266, 276, 81, 510]),
        ("<|im_start|>hi", [1, 74, 75]),
        ("héé ü", [74, 130, 105, 130, 105, 223, 130, 123]),
        ("word word", [89, 290, 70, 322, 70]),
    ],
)
def test_known_texts_have_the_tokens_that_vllm_gave_them(text: str, tokens: list[int]) -> None:
    assert tokens == _TOKENIZER.encode(text)


@given(_TEXTS)
def test_decoding_undoes_encoding(text: str) -> None:
    assert text == _TOKENIZER.decode(_TOKENIZER.encode(text), special=True)


@given(_TEXTS)
def test_pieces_add_up_to_the_text(text: str) -> None:
    shown = text.replace("<|im_start|>", "").replace("<|im_end|>", "").replace("<|endoftext|>", "")

    assert shown == "".join(_TOKENIZER.pieces(_TOKENIZER.encode(text)))


@given(_TEXTS, st.integers(0, 20))
def test_a_limit_saves_work_but_changes_no_token(text: str, limit: int) -> None:
    whole = _TOKENIZER.encode(text)

    assert whole[: limit + 1] == _TOKENIZER.encode(text, limit)[: limit + 1]


def test_special_tokens_are_shown_only_on_demand() -> None:
    tokens = [START, 74, END]

    assert _TOKENIZER.decode(tokens) == "h"
    assert _TOKENIZER.decode(tokens, special=True) == "<|im_start|>h<|im_end|>"


def test_broken_utf8_is_shown_as_such() -> None:
    first_half = _TOKENIZER.encode("é")[:1]

    assert _TOKENIZER.decode(first_half) == "\ufffd"


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_word_of_the_story_is_one_token(sentence: str) -> None:
    words = sentence.replace(",", " ,").replace(".", " .").split()

    assert len(words) == len(_TOKENIZER.encode(sentence))


def test_the_story_begins_at_the_beginning_and_elsewhere_with_a_sentence() -> None:
    story = Story(_TOKENIZER)

    told = [_TOKENIZER.decode(story.whole[story.start(seed) :]) for seed in range(len(SENTENCES) + 1)]

    assert told == ["".join(SENTENCES[i:]) for i in (*range(len(SENTENCES)), 0)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"messages": [{"role": "user", "content": "hi"}]},
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            {"messages": [{"role": "user", "content": ["a", {"type": "text", "text": "b"}]}]},
            "<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            {"messages": [{"role": "tool", "content": None}], "add_generation_prompt": False},
            "<|im_start|>tool\n<|im_end|>\n",
        ),
        (
            {
                "messages": [{"role": "assistant", "content": "so"}],
                "continue_final_message": True,
                "add_generation_prompt": False,
            },
            "<|im_start|>assistant\nso",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
            '<|im_start|>assistant\n<tool_call>{"name": "f", "arguments": {}}</tool_call><|im_end|>\n'
            "<|im_start|>assistant\n",
        ),
    ],
)
def test_messages_become_the_prompt_of_the_chat_template(body: dict[str, object], expected: str) -> None:
    assert expected == render_chat(body, "sim")
