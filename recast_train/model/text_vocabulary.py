"""The vocabulary of a text tokenizer: SID tokens as OpenOneRec names them, and the prompt's text around a history.

The text is tokenised once, around one item, and cut there: SID tokens are added tokens, which a tokenizer splits off before
anything else, so that what stands around them does not depend on them.
"""

from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from recast_sim.catalog import Catalog
from recast_train.model.chat import BEGIN, chat_text
from recast_train.model.model_config import CHAT, SLOT, TrainError, first_line, require
from recast_train.model.vocabulary import Vocabulary

END, THOUGHT_END = "<|sid_end|>", "</think>"
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def sid_token(level: int, code: int) -> str:
    """Name of a code's token: <s_a_0>, <s_a_1>, ... of the first level, <s_b_0> of the second."""
    return f"<s_{ascii_lowercase[level]}_{code}>"


def load_tokenizer(folder: Path) -> Any:
    """A tokenizer of a local folder, never of a hub.

    Raises:
        TrainError: no such folder, no tokenizer in it, or one that does not load.
    """
    from transformers import AutoTokenizer

    found = any((folder / name).is_file() for name in _FILES)
    require(found, "ModelConfig.tokenizer", folder, f"holds none of {', '.join(_FILES)}; give a folder with a saved tokenizer")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise TrainError(
            f"ModelConfig.tokenizer: {folder} does not load ({first_line(error)}); save the tokenizer again"
        ) from error


def text_vocabulary(catalog: Catalog, tokenizer: Any, prompt: str) -> Vocabulary:
    """The vocabulary of `tokenizer`, to which the SID tokens that it lacks are added in place.

    A level that the tokenizer knows must have at least the catalog's codes; one that it does not know is added whole.

    Raises:
        TrainError: fewer codes of a level than the catalog's, a level whose tokens are not contiguous, a tokenizer that does
            not keep SID tokens whole, or prompts that are chats and no template.
    """
    chat, mend = prompt == CHAT, f"has no chat template, which prompt {CHAT} needs; save one with the tokenizer"
    require(not chat or bool(tokenizer.chat_template), "ModelConfig.tokenizer", tokenizer.name_or_path, mend)
    known = _size(tokenizer)
    _add_missing(catalog.sizes, tokenizer)
    table = tokenizer.get_vocab()
    offset = tuple(_offset(table, level, size) for level, size in enumerate(catalog.sizes))
    begin, end = (table[BEGIN],), (table[END],)
    item = "".join([BEGIN, *(sid_token(level, 0) for level in range(catalog.levels)), END])
    text, sid = (SLOT if chat else prompt).replace(SLOT, item), (*begin, *offset, *end)
    prefix, suffix = _around(_prompt_tokens(tokenizer, text), sid)
    pad = next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)
    around = (prefix, suffix, begin, end)
    vocabulary = Vocabulary(catalog.codes_IL, offset, pad, *around, _size(tokenizer), tokenizer, known, chat=chat)
    if not tokenizer.chat_template or THOUGHT_END not in table:
        return vocabulary
    thinking = _around(_prompt_tokens(tokenizer, text, thought=True), sid)[1][: -len(begin)]
    return replace(vocabulary, thought_suffix=thinking, thought_end=table[THOUGHT_END])


def _add_missing(sizes: tuple[int, ...], tokenizer: Any) -> None:
    from transformers import AddedToken

    table, names = tokenizer.get_vocab(), [BEGIN, END]
    for level, size in enumerate(sizes):
        prefix = f"<s_{ascii_lowercase[level]}_"
        have = sum(name.startswith(prefix) for name in table)
        mend = f"has {have} codes of level {level} ({prefix}...>), the catalog {size}; make SIDs of at most {have} codes there"
        require(have == 0 or have >= size, "ModelConfig.tokenizer", tokenizer.name_or_path, mend)
        names += [sid_token(level, code) for code in range(size)] if have == 0 else []
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in names if name not in table])


def _offset(table: dict[str, int], level: int, size: int) -> int:
    first = table.get(sid_token(level, 0))
    for code in range(size):
        own = table.get(sid_token(level, code))
        good = own is not None and first is not None and own == first + code
        mend = f"is not right after the code before it; recast needs the tokens of level {level} in a row: renumber them"
        require(good, "ModelConfig.tokenizer", f"token {sid_token(level, code)} (id {own})", mend)
    assert first is not None
    return first


def _prompt_tokens(tokenizer: Any, text: str, thought: bool = False) -> list[int]:
    """Tokens of the whole prompt up to and with the token that begins the next SID, or that stands where a thought begins."""
    if not tokenizer.chat_template:
        return tokenizer(text + BEGIN)["input_ids"]
    chat = chat_text(tokenizer, [{"role": "user", "content": text}], thought)
    return tokenizer(chat + BEGIN, add_special_tokens=False)["input_ids"]


def _around(tokens: list[int], item: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    starts = [at for at in range(len(tokens)) if tuple(tokens[at : at + len(item)]) == item]
    require(
        len(starts) == 1,
        "ModelConfig.prompt",
        f"{len(starts)} histories",
        "survive the chat template; expected the one of the slot",
    )
    rest = tokens[starts[0] + len(item) :]
    last = len(rest) - rest[::-1].index(item[0]) if item[0] in rest else 0
    require(
        last > 0, "ModelConfig.tokenizer", BEGIN, "is lost at the prompt's end; use a tokenizer that keeps added tokens whole"
    )
    return tuple(tokens[: starts[0]]), tuple(rest[:last])  # a closing special token that the tokenizer adds is cut off


def _size(tokenizer: Any) -> int:
    return max(tokenizer.get_vocab().values()) + 1
