"""Exact metrics over the whole catalog by a wide tree search that proves its own exactness.

A search keeps the best W nodes of each level, and all targets. An item below a pruned node cannot be likelier than the node
itself, so where the best target is likelier than every pruned node its rank is exact, and with k better items found it is out
of the top k. Prompts where neither holds are searched again, wider. Axis letters: P or N prompts, T targets (-1 where a prompt
has fewer), G rollouts, W kept nodes, B children, I items, Y leaves, L levels.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_sim.configio import Checked
from recast_sim.field_types import Distinct, GroupSize
from recast_sim.runs import derive_seed
from recast_sim.signal import regime_shares
from recast_train.data import Prompts
from recast_train.data.references import CUTS, Policy, best_target, metrics_from_rank, policy_of, repeats
from recast_train.engine import Engine
from recast_train.model import PromptTokens, SidModel, TrainError, require
from recast_train.model.shared_prompts import PromptCache
from recast_train.rollout import sample_rollouts
from recast_train.rollout.frontier import Children, Frontier
from recast_train.rollout.targets import path_logprobs, target_leaves

K = 10  # of the metrics that methods are compared on
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EvaluationConfig(Checked, error=TrainError):
    """What is measured at the end.

    Attributes:
        prompts: test prompts, drawn without replacement; 0 takes all.
        train_prompts: train prompts behind the all-zero share.
        group_size: rollouts behind the all-zero share.
        width: nodes of a level that a search keeps at first. Changes the time, not the result.
        learning_prompts: test prompts, and as many validation prompts, on which learning is told from sharpening; 0 does not.
        batch: prompts searched at once.
        cuts: the k of the ranking metrics; ranks are exact down to the largest. 10 is one of them: methods are compared there.
    """

    prompts: NonNegativeInt = 0
    train_prompts: PositiveInt = 1000
    group_size: GroupSize = 32
    width: PositiveInt = 48
    batch: PositiveInt = 128
    learning_prompts: NonNegativeInt = 256
    cuts: Distinct[PositiveInt] = CUTS

    def __post_init__(self) -> None:
        super().__post_init__()
        require(K in self.cuts, "EvaluationConfig.cuts", self.cuts, f"must have {K} among them: methods are compared there")


QUICK = EvaluationConfig(cuts=(1, K))  # during training


@dataclass(frozen=True)
class PromptScores:
    """Figures of each test prompt, (N,), of its target or targets.

    Attributes:
        rank_seen_filtered_N, rank_unfiltered_N: of the best target, among unseen and among all items; other targets are no
            rivals (`target_rank`). A rank up to the largest of `EvaluationConfig.cuts` is exact.
        bound_seen_filtered_N, bound_unfiltered_N: 1 where a rank beyond it is a lower bound, since the search did not look at
            all better items; 0 where it is exact.
        repeats_N: share of the prompt's targets that the user had seen before.
        probability_N: that one draw is any of the targets.
        greedy_N: 1 where the greedy item is any of them.
    """

    user_N: NDArray[np.int64]
    rank_seen_filtered_N: Floats
    rank_unfiltered_N: Floats
    bound_seen_filtered_N: Floats
    bound_unfiltered_N: Floats
    repeats_N: Floats
    probability_N: Floats
    greedy_N: Floats
    wider: int = 0  # prompts that needed more than the first width

    def columns(self) -> dict[str, NDArray[Any]]:
        """The figures by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "wider"}

    @property
    def policy(self) -> Policy:
        """The policy of `hr` and `ndcg`: unfiltered where users come back to items."""
        return policy_of(self.repeats_N)

    def metric_rows(self) -> dict[str, Floats]:
        """The value of each reported metric on each prompt; a metric is the mean of its row."""
        rank = getattr(self, f"rank_{self.policy}_N")
        return {
            f"hr@{K}": (rank <= K).astype(float),
            f"ndcg@{K}": np.where(rank <= K, 1.0 / np.log2(1.0 + rank), 0.0),
            f"pass@{K}": (self.rank_unfiltered_N <= K).astype(float),
            "pass_at_1_sampled": self.probability_N,
            "pass_at_1_greedy": self.greedy_N,
        }

    def means(self) -> dict[str, float]:
        """Each reported metric."""
        return {name: float(row.mean()) for name, row in self.metric_rows().items()}

    def summary(self, cuts: tuple[int, ...] = CUTS) -> dict[str, Any]:
        """The reported metrics, those of each cut under the name of each policy, the policy that counts, and why."""
        ranks = {name: metrics_from_rank(getattr(self, f"rank_{name}_N"), cuts) for name in get_args(Policy)}
        why = {"policy": self.policy, "targets_seen_before": float(self.repeats_N.mean())}
        return {**ranks[self.policy], **self.means(), **ranks, **why}


def score_prompts(
    model: SidModel,
    catalog: Catalog,
    prompts: Prompts,
    config: EvaluationConfig,
    on_batch: Callable[[int], None] = lambda prompts: None,
    temperatures: tuple[float, ...] = (),
) -> PromptScores:
    """Exact figures of every prompt; `temperatures` divide the logits of the levels. `on_batch` hears how many prompts a batch
    had. Where items share an SID, ranks are those of SIDs (`recast_train.data.references`).

    Raises:
        TrainError: a probability is not finite.
    """
    parts = []
    for start in range(0, len(prompts), config.batch):
        rows = np.arange(start, min(start + config.batch, len(prompts)))
        parts.append(_exact(model, catalog, prompts.take(rows), max(config.cuts), config.width, temperatures))
        on_batch(len(rows))
    columns = {name: np.concatenate([part.columns()[name] for part in parts]) for name in parts[0].columns()}
    return PromptScores(**columns, wider=sum(part.wider for part in parts))


def score_over_ranks(
    engine: Engine,
    model: SidModel,
    catalog: Catalog,
    prompts: Prompts,
    config: EvaluationConfig,
    on_batch: Callable[[int], None] = lambda prompts: None,
) -> PromptScores:
    """`score_prompts`, each rank on its own part of the prompts; the same on all ranks. `model` is `Engine.replica`'s."""
    mine = own_part(engine, len(prompts))
    found = score_prompts(model, catalog, prompts.take(mine), config, on_batch)
    columns = {name: joined_rows(engine, row, len(prompts)) for name, row in found.columns().items()}
    return PromptScores(**columns, wider=int(engine.all_sum(found.wider)[0]))


def target_logprobs_over_ranks(engine: Engine, model: SidModel, catalog: Catalog, prompts: Prompts) -> Floats:
    """`target_logprobs`, spread like `score_over_ranks`."""
    own = target_logprobs(model, catalog, prompts.take(own_part(engine, len(prompts))))
    return joined_rows(engine, own, len(prompts))


def own_part(engine: Engine, count: int) -> NDArray[np.int64]:
    """This rank's prompts; the last one stands again where the ranks do not divide them."""
    size = -(-count // engine.world)
    return np.arange(engine.rank * size, (engine.rank + 1) * size).clip(max=count - 1)


def joined_rows(engine: Engine, row: NDArray[Any], count: int) -> NDArray[Any]:
    """The figures of all prompts from each rank's own."""
    return engine.gather(torch.from_numpy(row)).numpy()[:count]


@torch.no_grad()
def target_logprobs(model: SidModel, catalog: Catalog, prompts: Prompts, batch: int = 256) -> Floats:
    """Log-probability (N,) that one trie-constrained draw is any of a prompt's targets.

    Raises:
        TrainError: one is not finite.
    """
    parts = []
    for start in range(0, len(prompts), batch):
        chunk = prompts.take(slice(start, start + batch))
        tokens = model.vocabulary.encode(chunk.history_NH, chat_P=chunk.chat_N)
        logprob_PT = path_logprobs(model, tokens, target_leaves(catalog, chunk)).sum(2)
        parts.append(logprob_PT.double().logsumexp(1).clamp(max=0.0).cpu().numpy())  # a sum of rounded terms may pass 1
        _require_finite(parts[-1])
    return np.concatenate(parts)


def _require_finite(logprob_N: Floats) -> None:
    if not np.isfinite(logprob_N).all():
        raise TrainError("probabilities: not finite; the model has diverged, lower learning_rate")


def expected_all_zero(probability_N: Floats, group_size: int) -> float:
    """Share of groups of G i.i.d. rollouts without a hit that is expected: the mean of (1 - p)^G."""
    return float(((1 - probability_N) ** group_size).mean())


def sampled_regimes(
    model: SidModel, catalog: Catalog, prompts: Prompts, config: EvaluationConfig, seed: int
) -> dict[str, float]:
    """Shares of sampled groups by their hits of any target, one group a prompt. A batch's draws depend on the seed and its
    place alone."""
    hits = []
    for start in range(0, len(prompts), config.batch):
        chunk = prompts.take(slice(start, start + config.batch))
        generator = torch.Generator().manual_seed(derive_seed(seed, "all-zero share", start))
        tokens = model.vocabulary.encode(chunk.history_NH, chat_P=chunk.chat_N).to(model.device)
        leaf_PG = sample_rollouts(model, tokens, config.group_size, generator).leaf_PG.cpu()
        hits.append((leaf_PG[:, :, None] == target_leaves(catalog, chunk)[:, None]).any(2).sum(1))
    hits_N = torch.cat(hits)
    return asdict(regime_shares(hits_N, torch.full_like(hits_N, config.group_size)))


def _exact(
    model: SidModel, catalog: Catalog, prompts: Prompts, depth: int, width: int, temperatures: tuple[float, ...] = ()
) -> PromptScores:
    """Scores of some prompts, ranks exact to `depth`; those whose bound fails are searched again, four times as wide."""
    target_PT = target_leaves(catalog, prompts).to(model.device)
    tokens = model.vocabulary.encode(prompts.history_NH, chat_P=prompts.chat_N).to(model.device)
    logprob_PY, pruned, greedy = search(model, tokens, target_PT, width, temperatures)
    scores_PI = logprob_PY.double().cpu().numpy()[:, catalog.leaf_of_item_I]
    there_PT = target_PT >= 0
    own_PT = logprob_PY.gather(1, target_PT.clamp(min=0)).masked_fill(~there_PT, -torch.inf).double().cpu().numpy()
    _require_finite(own_PT[there_PT.cpu().numpy()])
    sid_I = catalog.leaf_of_item_I if catalog.collisions else None
    filtered_P, unseen_P = best_target(scores_PI, prompts, True, sid_I)
    unfiltered_P, own_P = best_target(scores_PI, prompts, False, sid_I)
    # where seen items are filtered the best target may be another, and less likely: each rank has a proof of its own
    bound_P = pruned.double().cpu().numpy()
    open_filtered_P, open_unfiltered_P = bound_P >= unseen_P, bound_P >= own_P
    found = PromptScores(
        user_N=prompts.user_N,
        rank_seen_filtered_N=filtered_P,
        rank_unfiltered_N=unfiltered_P,
        bound_seen_filtered_N=(open_filtered_P & np.isfinite(filtered_P)).astype(np.float64),
        bound_unfiltered_N=open_unfiltered_P.astype(np.float64),
        repeats_N=repeats(prompts),
        probability_N=np.minimum(np.exp(own_PT).sum(1), 1.0),  # a sum of rounded terms may pass 1
        greedy_N=(greedy[:, None] == target_PT).any(1).double().cpu().numpy(),
    )
    proven = (~open_filtered_P | (filtered_P > depth)) & (~open_unfiltered_P | (unfiltered_P > depth))
    open_rows = np.flatnonzero(~proven)
    if not len(open_rows):
        return found
    again = _exact(model, catalog, prompts.take(open_rows), depth, width * 4, temperatures)
    for name in ("rank_seen_filtered_N", "rank_unfiltered_N", "bound_seen_filtered_N", "bound_unfiltered_N"):
        getattr(found, name)[open_rows] = getattr(again, name)
    return replace(found, wider=len(open_rows))


@torch.no_grad()
def search(
    model: SidModel, prompts: PromptTokens, target_PT: Tensor, width: int, temperatures: tuple[float, ...] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the leaves below the best `width` nodes of each level; `temperatures` divide the levels' logits.

    The nodes on the paths of the targets (leaves, -1 where there are fewer) and of the greedy leaf are always kept.

    Returns:
        log-probabilities (P, Y), -inf where pruned; the largest log-probability of a pruned node (P,), -inf where nothing was
        pruned; the leaf of level-wise greedy decoding (P,).
    """
    cache, cool = PromptCache(model, prompts), temperatures or (1.0,) * model.levels
    beam = Frontier.at_root(cache)
    greedy_P, pruned_P = beam.node_PW[:, 0], torch.full_like(beam.logprob_PW[:, 0], -torch.inf)
    for level in range(model.levels - 1):
        children = beam.children(model, level, cool[level])
        greedy_P = _greedy_child(beam, children, greedy_P)
        wanted_PT = model.table("leaf_nodes")[target_PT.clamp(min=0), level].masked_fill(target_PT < 0, -2)
        kept, best_left_out_P = _choose(children, greedy_P, wanted_PT, max(width, 1 + target_PT.shape[1]))
        pruned_P = torch.maximum(pruned_P, best_left_out_P)
        beam = beam.descend(children, kept).read(cache, level + 1)
    children = beam.children(model, model.levels - 1, cool[-1])
    leaves = model.nodes[-1]
    place = children.node_PWB.masked_fill(children.node_PWB < 0, leaves).flatten(1)
    scores = torch.full((len(target_PT), leaves + 1), -torch.inf, device=model.device)
    scores = scores.scatter(1, place, children.logprob_PWB.flatten(1))
    return scores[:, :leaves], pruned_P, _greedy_child(beam, children, greedy_P)


def _greedy_child(beam: Frontier, children: Children, greedy_P: Tensor) -> Tensor:
    """The likeliest child (P,) of the greedy node, which the beam holds."""
    off_path = ~torch.isfinite(beam.logprob_PW) | (beam.node_PW != greedy_P[:, None])
    best = children.step_PWB.masked_fill(off_path[..., None], -torch.inf).flatten(1).argmax(1)
    return children.node_PWB.flatten(1).gather(1, best[:, None])[:, 0]


def _choose(children: Children, greedy_P: Tensor, wanted_PT: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Columns of the best children, `greedy_P` and `wanted_PT` among them, and the best log-probability left out (P,)."""
    child, total = children.node_PWB.flatten(1), children.logprob_PWB.flatten(1)
    forced = child == greedy_P[:, None]
    for wanted_P in wanted_PT.T:  # not all at once: the children are many
        forced |= child == wanted_P[:, None]
    kept = total.masked_fill(forced, torch.inf).topk(min(width, total.shape[1]), 1).indices
    return kept, total.scatter(1, kept, -torch.inf).amax(1)
