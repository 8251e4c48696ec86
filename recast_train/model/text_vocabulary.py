"""The vocabulary of a text tokenizer: its SID tokens, whatever numbers they have, and the prompt's text around a history.

The text is tokenised once, around one item, and cut there: SID tokens are added tokens, which a tokenizer splits off before
anything else, so that what stands around them does not depend on them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recast_sim.catalog import Catalog
from recast_train.model.chat import chat_text
from recast_train.model.model_config import CHAT, SLOT, TrainError, first_line, require
from recast_train.model.sid_names import BEGIN, END, SidNames
from recast_train.model.vocabulary import Vocabulary

THOUGHT_END = "</think>"
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


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
    """The vocabulary of `tokenizer`, to which levels of SID tokens that it does not know are added in place.

    Raises:
        TrainError: a level that the tokenizer knows lacks an item's token, a tokenizer that does not keep SID tokens whole, or
            prompts that are chats and no template.
    """
    from transformers import AddedToken

    chat, mend = prompt == CHAT, f"has no chat template, which prompt {CHAT} needs; save one with the tokenizer"
    require(not chat or bool(tokenizer.chat_template), "ModelConfig.tokenizer", tokenizer.name_or_path, mend)
    known, table = _size(tokenizer), tokenizer.get_vocab()
    names = SidNames.of(catalog, table, tokenizer.name_or_path)
    new = [AddedToken(name, normalized=False) for name in names.lacking(catalog.sizes) if name not in table]
    tokenizer.add_tokens(new)
    table = tokenizer.get_vocab()
    level_tokens = names.level_tokens(catalog, table)
    begin, end = ((table[BEGIN],), (table[END],)) if names.around else ((), ())
    sid = tuple(int(tokens[code]) for tokens, code in zip(level_tokens, catalog.codes_IL[0], strict=True))
    item = (*begin, *sid, *end)
    written = _Written(tokenizer, (SLOT if chat else prompt).replace(SLOT, _text(tokenizer, item)), item, (*begin, sid[0]))
    prefix, suffix = written.around(thought=False)
    pad = next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)
    around = (prefix, (*suffix, *begin), begin, end)
    vocabulary = Vocabulary(catalog.codes_IL, level_tokens, pad, *around, _size(tokenizer), tokenizer, known, chat=chat)
    if not tokenizer.chat_template or THOUGHT_END not in table:
        return vocabulary
    return replace(vocabulary, thought_suffix=written.around(thought=True)[1], thought_end=table[THOUGHT_END])


@dataclass(frozen=True)
class _Written:
    """The prompt around one item, and behind it the tokens with which the next one begins."""

    tokenizer: Any
    text: str
    item: tuple[int, ...]
    answer: tuple[int, ...]

    def around(self, thought: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tokens before and after the history; a closing special token that the tokenizer adds is cut off."""
        tokens = self._tokens(thought)
        last = max(_places(tokens, self.answer), default=0)
        starts = _places(tokens[:last], self.item)
        mend = "survive the chat template; expected the one of the slot"
        require(len(starts) == 1, "ModelConfig.prompt", f"{len(starts)} histories", mend)
        return tuple(tokens[: starts[0]]), tuple(tokens[starts[0] + len(self.item) : last])

    def _tokens(self, thought: bool) -> list[int]:
        answer = _text(self.tokenizer, self.answer)
        if not self.tokenizer.chat_template:
            return self.tokenizer(self.text + answer)["input_ids"]
        chat = chat_text(self.tokenizer, [{"role": "user", "content": self.text}], thought)
        return self.tokenizer(chat + answer, add_special_tokens=False)["input_ids"]


def _places(tokens: list[int], part: tuple[int, ...]) -> list[int]:
    return [at for at in range(len(tokens)) if tuple(tokens[at : at + len(part)]) == part]


def _text(tokenizer: Any, tokens: tuple[int, ...]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(list(tokens)))


def _size(tokenizer: Any) -> int:
    return max(tokenizer.get_vocab().values()) + 1
