"""Every item's answer as token ids, laid out as the anchors of `recast-train export verl`.

Axis letters: I items, L levels, C codes of a level, S tokens of an answer.
"""

from collections.abc import Sequence

import numpy as np

from recast_train.adapters.verl.parquet_export import AnswerTokens, codes_place
from recast_train.adapters.vllm.answer_trie import Ints
from recast_train.data import DataError
from recast_train.model.sid_names import sid_token


def catalog_answers(codes_IL: Ints, tokens: AnswerTokens, items: Sequence[str]) -> Ints:
    """Answers (I, S) of the items with these codes.

    Raises:
        DataError: the tokenizer lacks a token that an item needs, does not keep it whole, or has none that ends a text.
    """
    first = "".join(sid_token(level, code) for level, code in enumerate(codes_IL[0].tolist()))
    layout = tokens.answer(f"item {items[0]}", first)
    place, levels = codes_place(first, layout)
    table = tokens.tokenizer.get_vocab()
    answers_IS = np.tile(np.array(layout), (len(codes_IL), 1))
    for level in range(levels):
        code_C, item_C, code_I = np.unique(codes_IL[:, level], return_index=True, return_inverse=True)
        names = [sid_token(level, code) for code in code_C.tolist()]
        for name, item in zip(names, item_C.tolist(), strict=True):
            if name not in table:
                raise DataError(
                    f"item {items[item]}: the tokenizer has no token {name!r}; give that of the policy, with its SID tokens"
                )
        answers_IS[:, place + level] = np.array([table[name] for name in names])[code_I]
    return answers_IS
