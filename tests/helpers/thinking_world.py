"""The real trainer's model with few thoughts: each can be listed, and computed by plain forwards of transformers."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from rollout_cases import wordy_world
from torch import Tensor

from recast_sim.thought_methods import ThoughtMethod, parse_thought_method
from recast_train.model import PromptTokens, SidModel
from recast_train.rl.rl_config import RlConfig, ThoughtGroups
from recast_train.rl.rollout_groups import TrainPrompts
from recast_train.rollout import RolloutConfig, ThoughtConfig, Thoughts

END, BEGIN = 14, (15,)
WORDS = (16, 17)  # the others that a thought may hold
# the third prompt has one target, the others two
TARGETS = torch.tensor([[0, 3], [1, 7], [2, -1]])


def thinking_world(prompts: int = 3) -> tuple[SidModel, TrainPrompts]:
    """A thought is of END and WORDS. Weights are scaled until it matters: p behind one is three times p behind another."""
    model, tokens = wordy_world(prompts)
    model.vocabulary = replace(model.vocabulary, begin=BEGIN, suffix=BEGIN, thought_suffix=(), thought_end=END)
    model.not_text = torch.ones(model.lm.lm_head.weight.shape[0], dtype=torch.bool)
    model.not_text[[END, *WORDS]] = False
    with torch.no_grad():
        model.lm.get_input_embeddings().weight[[END, *WORDS]] *= 6
        model.lm.lm_head.weight[: min(END, *BEGIN)] *= 4
        for name, weight in model.named_parameters():
            if "v_proj" in name or "o_proj" in name:
                weight *= 3
    return model, TrainPrompts(tokens, TARGETS.repeat(-(-prompts // 3), 1)[:prompts])


def rl_config(
    line: str, group_size: int = 2, longest: int = 1, temperatures: tuple[float, float] = (1.0, 1.0), **more: Any
) -> RlConfig:
    """The keys of a method in the words of `parse_thought_method`; `temperatures` are those of SIDs and of thoughts."""
    method = parse_thought_method(line)
    rollout = RolloutConfig("iid", temperatures[0], ThoughtConfig(longest, temperatures[1]))
    assert method.kind != "supervision"
    groups = ThoughtGroups(method.kind, method.answer, method.by_target)
    return RlConfig(rollout=rollout, thoughts=groups, group_size=group_size, **more)


def method_of(config: RlConfig, line: str) -> ThoughtMethod:
    method = config.thought_method(parse_thought_method(line).constructor)
    assert method is not None
    return method


def every_thought(longest: int) -> list[list[int]]:
    """All thoughts of so many tokens at most."""
    found = []
    for length in range(1, longest + 1):
        for words in itertools.product(WORDS, repeat=length - 1):
            found += [[*words, last] for last in (END, *(WORDS if length == longest else ()))]
    return found


def as_sampled(chosen: list[list[int]], longest: int) -> Thoughts:
    """Given thoughts in the shape of sampled ones; nothing reads their log-probabilities."""
    tokens = torch.tensor([[*own, *[END] * (longest - len(own))] for own in chosen])
    sampled = torch.arange(longest) < torch.tensor([len(own) for own in chosen])[:, None]
    return Thoughts(tokens, sampled, torch.zeros(tokens.shape))


def behind(prompts: PromptTokens, thoughts: Thoughts) -> PromptTokens:
    """Prompts with a thought and BEGIN, put together row by row."""
    rows = []
    for row in range(len(prompts.tokens_PT)):
        own = thoughts.tokens_PS[row][thoughts.sampled_PS[row]].tolist()
        rows.append([*prompts.tokens_PT[row][prompts.real_PT[row]].tolist(), *own, *BEGIN])
    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return PromptTokens(tokens, torch.arange(width) >= torch.tensor([width - len(row) for row in rows])[:, None])


def plain_logprobs(
    model: SidModel, prompt: list[int], thought: list[int], leaf: int, temperatures: tuple[float, float] = (1.0, 1.0)
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the thought's tokens (S,) and of the leaf's codes (L,), with gradient: one forward, all logits."""
    sid = model.table("leaf_tokens")[leaf].tolist()
    logits_TV = model.lm(input_ids=torch.tensor([[*prompt, *thought, *BEGIN, *sid]])).logits[0]
    words = [END, *WORDS]
    start = len(prompt) - 1
    free = (logits_TV[start : start + len(thought), words] / temperatures[1]).log_softmax(1)
    of_thought = free.gather(1, torch.tensor([[words.index(token)] for token in thought]))[:, 0]
    steps, parent, start = [], 0, len(prompt) + len(thought) + len(BEGIN) - 1
    for level, child in enumerate(model.table("leaf_nodes")[leaf].tolist()):
        first, last = model.table("first_child", level)[parent : parent + 2].tolist()
        legal = model.table("code_token", level)[model.table("node_code", level + 1)[first:last]]
        steps.append((logits_TV[start + level, legal] / temperatures[0]).log_softmax(0)[child - first])
        parent = child
    return of_thought, torch.stack(steps)


def flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def gradient_of(model: SidModel) -> Tensor:
    """What a backward pass has left, 0 where it has left nothing."""
    return flat([torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()])
