"""Groups of thoughts: drawn, rewarded by what stands behind each, and made into rows by the signal module.

A row is a sequence of prompt, thought and SID. Its plan has two numbers a row, one for the thought's tokens and one for the
SID's. Axis letters: P prompts of the batch, G thoughts of each, T targets (1 for a sampled SID), U distinct thoughts behind the
prompts of one rank, R thoughts of one rank, S tokens of a thought at most, N rows, L levels.
"""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recast_sim.runs import derive_seed
from recast_sim.signal import Signal, UpdatePlan, construct
from recast_sim.thought_methods import ThoughtMethod, row_coefficients, thought_signal
from recast_train.engine import Engine, OwnRows, split_plan
from recast_train.model import PromptTokens
from recast_train.rl.micro_batches import RankBatch
from recast_train.rl.rl_config import RlConfig
from recast_train.rl.rollout_groups import TrainPrompts, thought_markers
from recast_train.rl.thought_rows import ThoughtRows
from recast_train.rollout import Part, Thoughts, sample_rollouts, sample_thoughts

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class DrawnThoughts:
    """Groups of one step, on the CPU. What has an axis P is of the whole batch and the same on all ranks, the rest this rank's.

    Attributes:
        prompt_P: the prompts' numbers.
        prompts: each distinct thought of a prompt once, behind it (U).
        of_R: which of them each thought is.
        thoughts: as they were sampled (R).
        begin: tokens between a thought and the SID.
        leaf_RT: what stands behind each: the sampled SID's leaf, or those of the targets, -1 where there are fewer.
        score_PGT: 1 where the sampled SID is a target, else 0; or log p(target | prompt, thought), -inf where there is none.
        length_PG: tokens of each thought.
        distinct: share of the batch's thoughts that no other one of their group repeats, one of equal ones counted.
        reward_seconds: the time that `score_PGT` took, the sampling of an SID left out.
    """

    prompt_P: Tensor
    prompts: PromptTokens
    of_R: Tensor
    thoughts: Thoughts
    begin: int
    leaf_RT: Tensor
    score_PGT: Tensor
    length_PG: Tensor
    distinct: float
    reward_seconds: float = 0.0


def draw_thoughts(
    engine: Engine, model: nn.Module, train: TrainPrompts, method: ThoughtMethod, config: RlConfig, seed: int
) -> DrawnThoughts:
    """Groups of one step; `seed` is the step's own. Prompts are those of `draw_groups`. Each rank samples its own share.

    Raises:
        TrainError: `prompts_per_step` is not a multiple of the ranks, a vocabulary without thoughts, a model that has diverged.
    """
    P, G = config.prompts_per_step, config.group_size
    generator = torch.Generator().manual_seed(derive_seed(seed, 0))
    prompt_P, share = torch.randint(len(train), (P,), generator=generator), engine.share(P)
    part = Part(share.start * G, P * G)
    own = train.tokens.take(prompt_P[share].repeat_interleave(G)).to(engine.device)
    markers = thought_markers(engine.unwrap(model).vocabulary)
    longer, thoughts = model(sample_thoughts, own, config.rollout.thought, markers, generator, part)
    if method.kind != "hard":
        return scored_thoughts(engine, model, train, config, prompt_P, longer, thoughts)
    sampled = model(sample_rollouts, longer, 1, generator, config.rollout, part)
    return scored_thoughts(engine, model, train, config, prompt_P, longer, thoughts, sampled.leaf_PG)


def scored_thoughts(
    engine: Engine,
    model: nn.Module,
    train: TrainPrompts,
    config: RlConfig,
    prompt_P: Tensor,
    longer: PromptTokens,
    thoughts: Thoughts,
    sampled_R1: Tensor | None = None,
) -> DrawnThoughts:
    """Groups of this rank's thoughts, `longer` being prompts and thoughts; where no SID was sampled, the soft rewards."""
    begun, group = time.perf_counter(), (-1, config.group_size)
    longer, thoughts = longer.to(_CPU), thoughts.to(_CPU)
    target_RT = train.target_leaf_NT[prompt_P[engine.share(len(prompt_P))].repeat_interleave(config.group_size)]
    first_U, of_R = _distinct(thoughts, config.group_size)
    prompts = longer.take(first_U)
    if sampled_R1 is None:
        leaf_RT, score_RT = target_RT, _logprobs(engine, model, prompts, target_RT[first_U], config)[of_R]
    else:
        leaf_RT = sampled_R1.cpu()
        score_RT = (leaf_RT == target_RT).any(1, keepdim=True).float()
    score_PGT = engine.gather(score_RT.unflatten(0, group))
    return DrawnThoughts(
        prompt_P=prompt_P,
        prompts=prompts,
        of_R=of_R,
        thoughts=thoughts,
        begin=len(engine.unwrap(model).vocabulary.begin),
        leaf_RT=leaf_RT,
        score_PGT=score_PGT,
        length_PG=engine.gather(thoughts.length_P.unflatten(0, group)),
        distinct=engine.all_sum(len(first_U))[0] / score_PGT[..., 0].numel(),
        reward_seconds=time.perf_counter() - begun,
    )


def _distinct(thoughts: Thoughts, group_size: int) -> tuple[Tensor, Tensor]:
    """The first of equal thoughts of each prompt (U,), and for each thought (R,) its place among those: what is equal is
    computed once, and so has equal rewards to the last digit."""
    tokens_RS = thoughts.tokens_PS.masked_fill(~thoughts.sampled_PS, -1)
    group_R = torch.arange(len(tokens_RS)) // group_size
    rows, of_R = torch.cat([group_R[:, None], tokens_RS], 1).unique(dim=0, return_inverse=True)
    first_U = torch.full((len(rows),), len(of_R)).scatter_reduce(0, of_R, torch.arange(len(of_R)), "amin")
    return first_U, of_R


def _logprobs(engine: Engine, model: nn.Module, prompts: PromptTokens, leaf_UT: Tensor, config: RlConfig) -> Tensor:
    """log p of each target behind each thought, float64 (U, T), -inf where there is none."""
    there_UT = leaf_UT >= 0
    rows = (there_UT.nonzero()[:, 0], leaf_UT[there_UT], config.rollout.temperature, config.micro_batch_tokens)
    found_N = RankBatch(engine, prompts, *rows).fixed_logprobs(model).double().sum(1).cpu()
    return torch.full(leaf_UT.shape, -torch.inf, dtype=torch.float64).masked_scatter(there_UT, found_N)


def thought_plan(drawn: DrawnThoughts, method: ThoughtMethod, config: RlConfig, levels: int) -> tuple[UpdatePlan, Signal]:
    """The rows of the whole batch, and the signal of the thoughts.

    A row is one of (P, G * T). Its two numbers are the thought's, on the row of the first target alone, and the SID's; a row
    with neither is left out. Several targets are any of them unless `by_target`: a number on the log of their sum is shared
    out by their parts of it.

    Raises:
        SignalError: see `thought_signal`.
    """
    P, G, T = drawn.score_PGT.shape
    length_PG = drawn.length_PG + levels
    if method.kind == "hard":
        rewards_PG = drawn.score_PGT[..., 0]
        signal = construct(method.constructor, rewards_PG, config=config.signal, length_PG=length_PG)
        thought_PG = row_coefficients(signal)
        answer_PGT = thought_PG[..., None]
    elif method.by_target:
        logprob_PTG = drawn.score_PGT.transpose(1, 2)
        there_PT = torch.isfinite(logprob_PTG[..., 0])
        length_NG = length_PG[:, None].expand(P, T, G)[there_PT]
        signal, answer_NG = thought_signal(logprob_PTG[there_PT], method, config.signal, length_NG)
        of_groups = (row_coefficients(signal), answer_NG)
        thought_PTG, answer_PTG = (torch.zeros_like(logprob_PTG).index_put((there_PT,), own) for own in of_groups)
        thought_PG, answer_PGT = thought_PTG.sum(1), answer_PTG.transpose(1, 2)
    else:
        signal, answer_PG = thought_signal(drawn.score_PGT.logsumexp(2), method, config.signal, length_PG)
        thought_PG, answer_PGT = row_coefficients(signal), answer_PG[..., None] * drawn.score_PGT.softmax(2)
    numbers_PGT2 = torch.stack([torch.zeros_like(answer_PGT), answer_PGT], 3)
    numbers_PGT2[:, :, 0, 0] = thought_PG
    numbers_R2 = numbers_PGT2.flatten(0, 2)
    rows_N = numbers_R2.any(1).nonzero()[:, 0]
    advantages_N2 = (numbers_R2[rows_N] * signal.plan.normaliser).float()
    nothing_N = torch.zeros(len(rows_N))
    return UpdatePlan(rows_N, advantages_N2, nothing_N + 1, nothing_N.bool(), signal.plan.normaliser), signal


def rank_rows(
    engine: Engine, drawn: DrawnThoughts, plan: UpdatePlan, config: RlConfig, levels: int
) -> tuple[RankBatch, OwnRows]:
    """This rank's rows of the plan, and how they are computed; each token of a row has its number."""
    P, G, T = drawn.score_PGT.shape
    rows = split_plan(plan, G * T, engine.share(P))
    thought_N, target_N = rows.plan.rows_N // T, rows.plan.rows_N % T
    sampled_NS = drawn.thoughts.sampled_PS[thought_N]
    of_thought_N, of_sid_N = rows.plan.advantages_NL.unbind(1)
    numbers = torch.cat([of_thought_N[:, None] * sampled_NS, of_sid_N[:, None].expand(-1, levels)], 1)
    thoughts = ThoughtRows(
        drawn.thoughts.tokens_PS[thought_N], sampled_NS.sum(1), numbers != 0, drawn.begin, config.rollout.thought.temperature
    )
    leaf_N = drawn.leaf_RT[thought_N, target_N]
    how = (config.rollout.temperature, config.micro_batch_tokens, thoughts)
    batch = RankBatch(engine, drawn.prompts, drawn.of_R[thought_N], leaf_N, *how)
    return batch, OwnRows(replace(rows.plan, advantages_NL=numbers), rows.own_N)


def thought_row(drawn: DrawnThoughts, method: ThoughtMethod) -> dict[str, float]:
    """A step's columns on its thoughts."""
    row = {"thought_length": float(drawn.length_PG.double().mean()), "thought_distinct": drawn.distinct}
    if method.kind == "hard":
        return {**row, "hit_rate": float(drawn.score_PGT.mean())}
    logprob_PG = drawn.score_PGT.logsumexp(2)
    return {**row, "soft_reward": float(logprob_PG.exp().mean()), "soft_reward_log": float(logprob_PG.mean())}
