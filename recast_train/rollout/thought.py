"""Thoughts: free tokens between the prompt and the SID, the first of OpenOneRec's two stages.

Axis letters: P prompts, S tokens of a thought at most, T tokens of a prompt, V vocabulary, D hidden width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recast_train.model import PromptTokens, SidModel, TrainError, on, require
from recast_train.model.shared_prompts import PromptCache
from recast_train.rollout.iid import inverse_cdf
from recast_train.rollout.rollout_config import ThoughtConfig
from recast_train.rollout.rollouts import Part


@dataclass(frozen=True)
class ThoughtMarkers:
    """Token ids around a thought: `end` closes it, `begin` (possibly none) stands between it and the SID."""

    end: int
    begin: tuple[int, ...] = ()


@dataclass(frozen=True)
class Thoughts:
    """One thought a prompt, (P, S), S = `max_tokens`.

    Attributes:
        tokens_PS: as sampled, the end token included; the end token after it.
        sampled_PS: true where a token was sampled.
        logprobs_PS: log-probability of each sampled token under the behaviour softmax, in nats; 0 elsewhere.
    """

    tokens_PS: Tensor
    sampled_PS: Tensor
    logprobs_PS: Tensor

    @property
    def length_P(self) -> Tensor:
        return self.sampled_PS.sum(1)

    def to(self, device: torch.device) -> "Thoughts":
        return Thoughts(*(on(table, device) for table in (self.tokens_PS, self.sampled_PS, self.logprobs_PS)))


@torch.no_grad()
def sample_thoughts(
    model: SidModel,
    prompts: PromptTokens,
    config: ThoughtConfig,
    markers: ThoughtMarkers,
    generator: torch.Generator,
    part: Part | None = None,
) -> tuple[PromptTokens, Thoughts]:
    """Sample one thought for each prompt, until its end token or `max_tokens`, and put it behind the prompt.

    A prompt's rollouts and its anchor share the thought; `part` as in `sample_rollouts`.
    As in OpenOneRec a thought that ran out of tokens gets no end token.

    Returns:
        the prompts (P, up to T + S + begin) for the SID stage: prompt, thought, `begin`, padded on the left; the thoughts.

    Raises:
        TrainError: `max_tokens` is 0, a marker that cannot be, or a probability that is not finite.
    """
    require(config.max_tokens >= 1, "ThoughtConfig.max_tokens", config.max_tokens, "must be at least 1 to sample thoughts")
    _check_markers(model, markers)
    P, S, device = len(prompts.tokens_PT), config.max_tokens, model.device
    uniform_SP = on((part or Part(0, P)).uniform((S, P), 1, generator, torch.float64), device)
    tokens_PS = torch.full((P, S), markers.end, dtype=torch.int64, device=device)
    sampled_PS = torch.zeros(P, S, dtype=torch.bool, device=device)
    logprobs_PS = torch.zeros(P, S, device=device)
    cache, open_P = PromptCache(model, prompts), torch.ones(P, dtype=torch.bool, device=device)
    hidden_PD, diverged_P = cache.last_PD, torch.zeros_like(open_P)
    for step in range(S):
        logprobs_PV = free_logprobs(model, hidden_PD, config.temperature)
        diverged_P = diverged_P | (open_P & ~torch.isfinite(logprobs_PV.amax(1)))
        # a long tail of unlikely tokens needs more digits than a node's children
        token_P = inverse_cdf(logprobs_PV.double()[:, None], uniform_SP[step, :, None])[:, 0]
        tokens_PS[:, step] = torch.where(open_P, token_P, markers.end)
        logprobs_PS[:, step] = logprobs_PV.gather(1, token_P[:, None])[:, 0].masked_fill(~open_P, 0.0)
        sampled_PS[:, step] = open_P
        open_P = open_P & (token_P != markers.end)
        if step == S - 1 or not bool(open_P.any()):
            break
        before = torch.ones(P, 1, step, dtype=torch.bool, device=device)
        hidden_PD = cache.feed(tokens_PS[:, step, None], (prompts.length_P + step)[:, None], before)[:, 0]
    if bool(diverged_P.any()):
        raise TrainError("probabilities: not finite; the model has diverged, lower learning_rate")
    thoughts = Thoughts(tokens_PS, sampled_PS, logprobs_PS)
    return _extended(prompts, thoughts, markers.begin), thoughts


def free_logprobs(model: SidModel, hidden_D: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-softmax (..., V) over the tokens of text, float32; -inf for those of SIDs and around them, and for no token.

    With a tokenizer these are also its SID tokens that the catalog does not use, and the rows of the output matrix beyond it.
    """
    logits = model.lm.lm_head(hidden_D).float() / temperature
    not_text, beyond = model.table("not_text"), model.vocabulary.tokenizer is not None
    not_text_V = torch.nn.functional.pad(not_text, (0, logits.shape[-1] - len(not_text)), value=beyond)
    return logits.masked_fill(not_text_V, -torch.inf).log_softmax(-1)


def _extended(prompts: PromptTokens, thoughts: Thoughts, begin: tuple[int, ...]) -> PromptTokens:
    """Prompt, thought and `begin` in a row; what is no token moves to the left."""
    begin_PB = torch.tensor(begin, dtype=torch.int64, device=prompts.tokens_PT.device).expand(len(prompts.tokens_PT), -1)
    tokens = torch.cat([prompts.tokens_PT, thoughts.tokens_PS, begin_PB], 1)
    real = torch.cat([prompts.real_PT, thoughts.sampled_PS, torch.ones_like(begin_PB, dtype=torch.bool)], 1)
    order = real.int().sort(dim=1, stable=True).indices
    return PromptTokens(tokens.gather(1, order), real.gather(1, order)).take(slice(None))


def _check_markers(model: SidModel, markers: ThoughtMarkers) -> None:
    vocabulary = model.lm.lm_head.weight.shape[0]
    for token in (markers.end, *markers.begin):
        require(0 <= token < vocabulary, "ThoughtMarkers", token, f"must lie in 0..{vocabulary - 1}, the model's vocabulary")
    of_sid = any(bool((tokens == markers.end).any()) for tokens in model.vocabulary.level_tokens)
    require(not of_sid, "ThoughtMarkers.end", markers.end, "must not be an SID token, which no thought holds")
