"""A logits processor of vLLM's V1 engine by which a request writes an item of the catalog, or nothing that looks like one.

`logits_processors=["recast_train.adapters.vllm.trie_processor:TrieLogitsProcessor"]` of the engine loads it. A request says
what it is held to in `SamplingParams(extra_args={"recast": {"answers": FILE, "after": TOKEN}})`; one that says nothing
follows the engine's `additional_config={"recast": {...}}`, and is free where that says nothing either. Every process of the
engine reads the file.
"""
# pyright: reportMissingImports=false
# vLLM lives in an environment of its own (`make test-verl-vllm`)

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from recast_sim.configio import Checked, ConfigError, override
from recast_train.adapters.vllm.answer_trie import AnswerError, AnswerTrie, read_answers
from recast_train.adapters.vllm.answer_walk import AnswerWalk, hold_to_answers

try:
    from vllm.v1.sample.logits_processor import LogitsProcessor
    from vllm.v1.sample.logits_processor.builtin import process_dict_updates
except ImportError as error:
    raise ImportError(f"{__name__} needs vLLM's V1 engine ({error}); pip install 'recast-rl[vllm]'") from error

KEY = "recast"
_CLASHES = ("min_tokens", "bad_words", "allowed_token_ids", "structured_outputs")  # each may rule out all that an answer needs


@dataclass(frozen=True)
class AnswerConfig(Checked):
    """What a request is held to.

    Attributes:
        answers: a file that `recast-train export vllm` wrote.
        after: the token behind which the answer begins, the end of a thought; None: it begins behind the prompt.
    """

    answers: str = ""
    after: NonNegativeInt | None = None


class TrieLogitsProcessor(LogitsProcessor):
    """The softmax over the tokens with which an answer goes on, at every place of it; all others have probability 0.

    That is recast's own rollout, at any temperature. Log-probabilities are those of the draw with
    `logprobs_mode="processed_logprobs"`. A thought is left free, and one that does not end before `max_tokens` has no answer.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        """Raises ConfigError or AnswerError where the engine's own setting does not fit."""
        self._vocabulary = int(vllm_config.model_config.get_vocab_size())
        self._walks: dict[int, AnswerWalk] = {}
        self._default: AnswerConfig | None = None
        own = vllm_config.additional_config
        if isinstance(own, dict) and own.get(KEY) is not None:
            self._default = _config(own[KEY], "additional_config")
            self._trie(self._default)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """In vLLM's front end, where an error reaches the request alone.

        Raises ConfigError or AnswerError, which are ValueErrors: the file, a key, or a setting that does not go with it.
        """
        if (config := _asked(sampling_params, None)) is not None:
            _check_params(sampling_params)
            _trie_of(config)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        process_dict_updates(self._walks, batch_update, self._walk)

    def apply(self, logits: Tensor) -> Tensor:
        return hold_to_answers(logits, self._walks)

    def _walk(self, params: Any, _: list[int] | None, written: list[int]) -> AnswerWalk | None:
        config = _asked(params, self._default)
        if config is None:
            return None
        _check_params(params)
        return AnswerWalk(self._trie(config), config.after, written)

    def _trie(self, config: AnswerConfig) -> AnswerTrie:
        trie, size = _trie_of(config), self._vocabulary
        if trie.largest >= size:
            raise AnswerError(f"{config.answers}: has token {trie.largest}, the model has {size}; export it with its tokenizer")
        return trie


def _asked(params: Any, default: AnswerConfig | None) -> AnswerConfig | None:
    """A request's own setting, None to be free, or else the engine's."""
    own = params.extra_args or {}
    if KEY not in own:
        return default
    return None if own[KEY] is None else _config(own[KEY], "SamplingParams.extra_args")


def _config(given: Any, where: str) -> AnswerConfig:
    if not isinstance(given, dict) or not given.get("answers"):
        raise ConfigError(
            f'{where}["{KEY}"]: {given!r} names no file of answers; give {{"answers": FILE, "after": TOKEN or None}}'
        )
    try:
        return override(AnswerConfig(), given)
    except ConfigError as error:
        raise ConfigError(f'{where}["{KEY}"]: {error}') from error


def _check_params(params: Any) -> None:
    for name in _CLASHES:
        if value := getattr(params, name, None):
            raise ConfigError(f"SamplingParams.{name}: {value!r} may rule out every token of an answer; leave it out")


def _trie_of(config: AnswerConfig) -> AnswerTrie:
    path = Path(config.answers)
    try:
        state = path.stat()
    except OSError:
        return read_answers(path)  # says what is wrong with it
    return _read_once(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _read_once(path: Path, changed_ns: int, size: int) -> AnswerTrie:
    return read_answers(path)
