"""vLLM held to a catalog, against recast's own decoder on one tiny model (make test-verl-vllm)."""

import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from sid_world import tiny_catalog, tiny_prompts
from torch import Tensor

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed here; make test-verl-vllm has an environment for it", allow_module_level=True)

from vllm import LLM, SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from recast_sim.configio import ConfigError
from recast_train.adapters.vllm.answer_trie import AnswerError, AnswerTrie, write_answers
from recast_train.adapters.vllm.trie_processor import TrieLogitsProcessor
from recast_train.model import BOS_TOKEN, PAD_TOKEN, ModelConfig, PromptTokens, SidModel, build_model, save_pretrained
from recast_train.rollout import RolloutConfig, sample_rollouts

pytestmark = [pytest.mark.adapters, pytest.mark.verl_vllm]
SHAPE = ModelConfig(
    hidden=64, layers=2, heads=2, feed_forward=96, dropout=0.0, attention_dropout=0.0
)  # heads of 32, vLLM's least
PROMPTS, DRAWS = 4, 2500
END, THOUGHT_END = PAD_TOKEN, BOS_TOKEN  # of the pure SID vocabulary, which has no such tokens of its own
ENGINE = {  # in this process, which ends it; 1 GB for keys and values
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}
PROCESSOR = "recast_train.adapters.vllm.trie_processor:TrieLogitsProcessor"


class World(NamedTuple):
    """A model, its catalog's answers (an SID's tokens, END), prompts, and vLLM with the same weights."""

    model: SidModel
    prompts: PromptTokens
    table_YS: Tensor
    file: Path
    llm: Any

    def ask(self, after: int | None = None, **sampling: Any) -> list[list[Any]]:
        """vLLM's answers to each prompt, each with its tokens and their log-probabilities."""
        held = {"recast": {"answers": str(self.file), "after": after}}
        given = {"logprobs": 0, "max_tokens": self.table_YS.shape[1], "stop_token_ids": [END], "extra_args": held, **sampling}
        tokens = [row[real].tolist() for row, real in zip(self.prompts.tokens_PT, self.prompts.real_PT, strict=True)]
        asked = [{"prompt_token_ids": row} for row in tokens]
        return [found.outputs for found in self.llm.generate(asked, SamplingParams(**given), use_tqdm=False)]

    def exact(self, temperature: float = 1.0, prompts: PromptTokens | None = None) -> list[dict[tuple[int, ...], list[float]]]:
        """recast's own decoder: of each prompt every answer and the log-probabilities of its SID's tokens."""
        config = RolloutConfig(method="beam", temperature=temperature)
        everything = len(self.table_YS)
        found = sample_rollouts(self.model, prompts or self.prompts, everything, torch.Generator(), config)
        answers = self.table_YS[found.leaf_PG].tolist()
        return [
            dict(zip(map(tuple, rows), numbers, strict=True))
            for rows, numbers in zip(answers, found.logprobs_PGL.tolist(), strict=True)
        ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, catalog = tmp_path_factory.mktemp("vllm"), tiny_catalog()
    model = build_model(catalog, SHAPE, seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(4)
    save_pretrained(model, folder / "model")
    leaves = model.table("leaf_tokens")
    table_YS = torch.cat([leaves, torch.full_like(leaves[:, :1], END)], 1)
    write_answers(folder / "answers.safetensors", table_YS.numpy())
    own = {"dtype": "float32", "enforce_eager": True, "max_model_len": 64, "max_num_seqs": 256, "seed": 0}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENGINE.items():
            patch.setenv(name, value)
        llm = LLM(
            str(folder / "model"),
            skip_tokenizer_init=True,
            logprobs_mode="processed_logprobs",
            logits_processors=[PROCESSOR],
            **own,
        )
        yield World(model, tiny_prompts(catalog, PROMPTS), table_YS, folder / "answers.safetensors", llm)
        llm.llm_engine.engine_core.shutdown()


def test_greedy_answers_are_ours(world: World) -> None:
    ours = sample_rollouts(world.model, world.prompts, 1, torch.Generator(), RolloutConfig(method="beam"))
    theirs = [[list(output.token_ids) for output in outputs] for outputs in world.ask(temperature=0)]
    assert theirs == world.table_YS[ours.leaf_PG].tolist()
    free = world.ask(temperature=0, extra_args=None)
    assert any(tuple(outputs[0].token_ids) not in own for outputs, own in zip(free, world.exact(), strict=True))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_draws_follow_our_decoders_distribution(world: World, temperature: float) -> None:
    """10,000 draws: none is no item's, each has our log-probabilities, and their frequencies are those of the exact softmax."""
    exact = world.exact(temperature)
    for outputs, own in zip(world.ask(temperature=temperature, n=DRAWS), exact, strict=True):
        drawn = Counter(tuple(output.token_ids) for output in outputs)
        assert sum(drawn.values()) == DRAWS
        assert set(drawn) <= set(own)
        for output in outputs:
            numbers = logprobs(output)
            assert numbers[:-1] == pytest.approx(own[tuple(output.token_ids)], abs=1e-4)
            assert numbers[-1] == 0
        share = np.exp([sum(numbers) for numbers in own.values()])
        counts = np.array([drawn[answer] for answer in own])
        assert agreement(counts, share) > 1e-3
        assert agreement(counts, np.full(len(own), 1 / len(own))) < 1e-9  # the test could fail


def test_an_answer_follows_the_thought(world: World) -> None:
    """A thought is free, and the answer behind it has our log-probabilities given prompt and thought."""
    S, ended = world.table_YS.shape[1], 0
    outputs = world.ask(after=THOUGHT_END, n=16, max_tokens=12, logit_bias={THOUGHT_END: 4.0}, stop_token_ids=[])
    for place, own in enumerate(outputs):
        asked = world.prompts.tokens_PT[place][world.prompts.real_PT[place]]
        for output in own:
            written = list(output.token_ids)
            at = written.index(THOUGHT_END) + 1 if THOUGHT_END in written else len(written)
            answer = tuple(written[at : at + S])
            if len(answer) < S:
                continue
            ended += 1
            whole = torch.cat([asked, torch.tensor(written[:at])])[None]
            (exact,) = world.exact(prompts=PromptTokens(whole, torch.ones_like(whole, dtype=torch.bool)))
            assert logprobs(output)[at : at + S - 1] == pytest.approx(exact[answer], abs=1e-4)
            assert set(written[at + S :]) <= {END}
    assert ended > 20


def test_requests_of_one_batch_are_held_each_to_its_own(world: World, tmp_path: Path) -> None:
    """Free requests, requests of two catalogs and of several lengths come and go in a batch that is too small for all."""
    few = {tuple(row) for row in world.table_YS[:3].tolist()}
    write_answers(tmp_path / "few", world.table_YS[:3].numpy())
    every = {tuple(row) for row in world.table_YS.tolist()}
    kinds: list[dict[str, Any] | None] = [None, {"answers": str(world.file)}, {"answers": str(tmp_path / "few")}]
    asked, params = [], []
    for place in range(900):
        own = kinds[place % 3]
        asked.append({"prompt_token_ids": [BOS_TOKEN]})
        params.append(SamplingParams(max_tokens=4 if own else 1 + place % 7, extra_args=own and {"recast": own}))
    found = [tuple(one.outputs[0].token_ids) for one in world.llm.generate(asked, params, use_tqdm=False)]
    assert set(found[1::3]) <= every
    assert len(set(found[1::3])) > 3
    assert set(found[2::3]) == few
    assert [len(one) for one in found[::3]] == [1 + place % 7 for place in range(0, 900, 3)]
    assert any(one not in every for one in found[::3] if len(one) == 4)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"recast": {"answers": "/none"}}, "/none: there is no such file of answers; write it with recast-train export vllm"),
        ({"recast": {"after": 3}}, r"SamplingParams.extra_args\[\"recast\"\]: {'after': 3} names no file of answers"),
        ({"recast": "answers"}, r"SamplingParams.extra_args\[\"recast\"\]: 'answers' names no file of answers"),
        ({"recast": {"answers": "a", "before": 3}}, "key 'before': AnswerConfig has none; fix its name"),
        ({"recast": {"answers": "a", "after": -1}}, "AnswerConfig.after: -1 must be at least 0"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_alone(world: World, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(VLLMValidationError, match=said):
        world.ask(extra_args=asked)
    assert len(world.ask(temperature=0)) == PROMPTS  # the engine goes on


@pytest.mark.parametrize("clash", [{"min_tokens": 2}, {"allowed_token_ids": [3]}])
def test_what_may_rule_out_every_answer_is_refused(world: World, clash: dict[str, Any]) -> None:
    with pytest.raises(
        VLLMValidationError, match=rf"SamplingParams.{next(iter(clash))}: .* may rule out every token of an answer"
    ):
        world.ask(**clash)


def processor(own: Any = None, vocabulary: int = 16) -> TrieLogitsProcessor:
    config = SimpleNamespace(get_vocab_size=lambda: vocabulary)
    return TrieLogitsProcessor(SimpleNamespace(model_config=config, additional_config=own or {}), torch.device("cpu"), False)


def update(**changes: Any) -> BatchUpdate:
    return BatchUpdate(**{"batch_size": 4, "removed": [], "added": [], "moved": [], **changes})


def test_requests_keep_their_place_when_the_batch_is_laid_anew(tmp_path: Path) -> None:
    """vLLM's interface by hand: added, moved, swapped, removed; tokens that it learns of late."""
    write_answers(tmp_path / "a", np.array([[1, 4, 9], [2, 5, 9]]))
    params = SamplingParams(extra_args={"recast": {"answers": str(tmp_path / "a")}})
    held, free, written = processor(), SamplingParams(), [[], [], []]
    assert not held.is_argmax_invariant()

    def legal() -> list[list[int]]:
        logits = held.apply(torch.zeros(3, 16))
        return [torch.isfinite(row).nonzero()[:, 0].tolist() for row in logits]

    every = list(range(16))
    held.update_state(update(added=[(0, params, [7], written[0]), (1, free, [7], written[1]), (2, params, [7], written[2])]))
    assert legal() == [[1, 2], every, [1, 2]]
    for own, token in zip(written, (1, 3, -1), strict=True):
        own.append(token)
    held.update_state(None)
    written[2][-1] = 2  # known before logits are processed
    assert legal() == [[4], every, [5]]
    held.update_state(update(moved=[(0, 1, MoveDirectionality.SWAP)]))
    assert legal() == [every, [4], [5]]
    held.update_state(update(removed=[1], moved=[(2, 1, MoveDirectionality.UNIDIRECTIONAL)]))
    assert legal() == [every, [5], every]
    held.update_state(update(added=[(1, free, [7], [])]))
    assert legal() == [every, every, every]


def test_the_engines_own_setting_holds_for_requests_that_say_nothing(tmp_path: Path) -> None:
    write_answers(tmp_path / "a", np.array([[1, 4, 9]]))
    held = processor({"recast": {"answers": str(tmp_path / "a")}})
    nothing, opted_out = SamplingParams(), SamplingParams(extra_args={"recast": None})
    held.update_state(update(added=[(0, nothing, [7], []), (1, opted_out, [7], [])]))
    assert torch.isfinite(held.apply(torch.zeros(2, 16))).sum(1).tolist() == [1, 16]
    with pytest.raises(ConfigError, match=r"SamplingParams\.min_tokens: 2 may rule out every token"):
        held.update_state(update(added=[(0, SamplingParams(min_tokens=2), [7], [])]))
    with pytest.raises(AnswerError, match=f"{tmp_path}/none: there is no such file"):
        processor({"recast": {"answers": str(tmp_path / "none")}})
    with pytest.raises(ConfigError, match=r"additional_config\[\"recast\"\]: {} names no file"):
        processor({"recast": {}})
    with pytest.raises(AnswerError, match=f"{tmp_path}/a: has token 9, the model has 8; export it with its tokenizer"):
        processor({"recast": {"answers": str(tmp_path / "a")}}, vocabulary=8)


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    held, path = processor(), tmp_path / "a"
    params = SamplingParams(extra_args={"recast": {"answers": str(path)}})
    for table in ([[1, 9]], [[2, 9], [3, 9]]):
        trie: AnswerTrie = write_answers(path, np.array(table))
        held.update_state(update(added=[(0, params, [7], [])]))
        assert int(torch.isfinite(held.apply(torch.zeros(1, 16))).sum()) == trie.answers


def logprobs(output: Any) -> list[float]:
    return [float(near[token].logprob) for token, near in zip(output.token_ids, output.logprobs, strict=True)]


def agreement(counts_Y: np.ndarray, share_Y: np.ndarray) -> float:
    """p-value of Pearson's chi-square; answers of which fewer than 5 are expected count as one."""
    expected = share_Y / share_Y.sum() * counts_Y.sum()
    rare = expected < 5
    pooled = [np.append(numbers[~rare], numbers[rare].sum()) for numbers in (counts_Y, expected)]
    observed, expected = (numbers if rare.any() else numbers[:-1] for numbers in pooled)
    return float(chisquare(observed, expected).pvalue)
