"""Messages as prompts, through a tokenizer's chat template.

Axis letters: P prompts, T tokens of a prompt.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Chat = Sequence[dict[str, Any]]  # messages with a role and a content: a string, or parts with a text each


def chat_text(tokenizer: Any, messages: Chat, thought: bool) -> str:
    """The prompt's text up to where the answer begins, or with `thought` where a thought does.

    Qwen3's template closes an empty thought where none is wanted, so that the answer comes next; others do not look at it.
    """
    joined = [{"role": message["role"], "content": _content(message)} for message in messages]
    return tokenizer.apply_chat_template(joined, tokenize=False, add_generation_prompt=True, enable_thinking=thought)


def chat_tokens(tokenizer: Any, chats: Sequence[Chat], end: Sequence[int], thought: bool, pad: int) -> tuple[Tensor, Tensor]:
    """Tokens (P, T) of chats, padded on the left, and which are real; they end with the tokens `end`, which begin an SID."""
    texts = [chat_text(tokenizer, messages, thought) for messages in chats]
    rows = [[*row, *end] for row in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    width = max(map(len, rows))
    tokens_PT = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    length_P = torch.tensor([len(row) for row in rows])
    return tokens_PT, torch.arange(width) >= width - length_P[:, None]


def _content(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
