"""How a policy that thinks first may be trained: a reward for its thoughts, numbers for them, and for the SID behind them.

"supervision"    "grpo: hard constructor=grpo"    "verifree: soft constructor=rloo answer=psr"

Simulator and trainer share it. Axes: P prompts, N groups (a prompt, or a prompt and one of its targets), G thoughts of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recast_sim.comparing import parse_line
from recast_sim.configio import Checked
from recast_sim.errors import RecastError
from recast_sim.signal import Signal, SignalConfig, construct, get_constructor

Kind = Literal["supervision", "hard", "soft", "log"]
EVERY_ROW = "sft"  # as `answer`: the target behind each thought, all thoughts alike


class ThoughtError(RecastError):
    """A method or a setting that does not fit; the message names it and the fix."""


@dataclass(frozen=True)
class ThoughtMethod(Checked, error=ThoughtError):
    """One way to train.

    Attributes:
        name: what tables call it.
        kind: "supervision": the likelihood of the targets, all thoughts summed out. "hard": thought and SID are sampled, and
            the reward is 1 on a hit. "soft": thoughts alone are sampled, and each one's reward is the probability of the
            targets behind it, summed over them; "log": its logarithm.
        constructor: turns the rewards of a group into numbers for the thoughts; of a "hard" one, for thought and SID.
        answer: for soft and log rewards, what weighs the log-probability of the targets behind each thought: a constructor on
            the plain probabilities ("psr": the probability itself, as VeriFree, arXiv 2505.21493), "sft" (all thoughts alike),
            or "" (the SID is not trained).
        by_target: a prompt's every target is a group of its own over the same thoughts, in place of their sum.
        thoughts: of this method's policy; 0 is the setting's number, 1 is no thought at all.
    """

    name: str
    kind: Kind
    constructor: str = ""
    answer: str = ""
    by_target: bool = False
    thoughts: Annotated[int, Field(ge=0, le=64)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.kind == "supervision") == bool(self.constructor):
            fix = "takes no constructor; leave it out" if self.constructor else "needs a constructor, for example rloo"
            raise ThoughtError(f"method {self.name!r}: kind {self.kind!r} {fix}")
        if self.kind in ("supervision", "hard") and (self.answer or self.by_target):
            raise ThoughtError(f"method {self.name!r}: answer and by_target are of kinds 'soft' and 'log', not {self.kind!r}")
        for name in filter(None, (self.constructor, "" if self.answer == EVERY_ROW else self.answer)):
            constructor = get_constructor(name)
            if constructor.inputs or constructor.redraws:
                what = f"reads {', '.join(constructor.inputs)}" if constructor.inputs else "redraws groups"
                raise ThoughtError(
                    f"method {self.name!r}: constructor {name!r} {what}; thoughts take one that reads rewards alone, as rloo"
                )


def parse_thought_method(line: str) -> ThoughtMethod:
    """Read a method from "kind key=value ...", or from "name: kind key=value ...".

    Raises:
        ConfigError: a word that is no key=value, or an unknown key.
        ThoughtError: a value that does not fit.
        SignalError: an unknown constructor.
    """
    name, _, told = line.rpartition(": ")
    keys = [field.name for field in fields(ThoughtMethod) if field.name not in ("name", "kind")]
    kind, values = parse_line(told, keys)
    return ThoughtMethod(name or told, kind, **values)  # type: ignore[arg-type]


def parse_thought_methods(lines: Sequence[str]) -> dict[str, ThoughtMethod]:
    """Methods by name, in their order. Raises ThoughtError where a name stands twice."""
    methods = [parse_thought_method(line) for line in lines]
    found = {method.name: method for method in methods}
    if len(found) < len(methods):
        raise ThoughtError(f"methods: names must differ, got {[method.name for method in methods]}")
    return found


def thought_signal(
    logprob_NG: Tensor, method: ThoughtMethod, config: SignalConfig | None = None, length_NG: Tensor | None = None
) -> tuple[Signal, Tensor]:
    """Numbers for sampled thoughts, and for the targets behind them, from log p(targets | prompt, thought) alone.

    Args:
        method: of kind "soft" or "log".
        length_NG: tokens of each row, for normaliser "tokens".

    Returns:
        the signal of the thoughts; the factor on grad log p(targets | prompt, thought) of each, (N, G).

    Raises:
        SignalError: a constructor that does not take such rewards, as one that divides by the mean a log.
    """
    probability_NG, given = logprob_NG.exp(), {"config": config, "length_PG": length_NG}
    signal = construct(method.constructor, probability_NG if method.kind == "soft" else logprob_NG, **given)
    if method.answer == EVERY_ROW:
        return signal, torch.full_like(logprob_NG, 1 / logprob_NG.numel())
    if not method.answer:
        return signal, torch.zeros_like(logprob_NG)
    return signal, row_coefficients(construct(method.answer, probability_NG, **given))


def row_coefficients(signal: Signal) -> Tensor:
    """The factor on grad log pi of every row by the signal's plan, (N, G); 0 where it keeps no row."""
    factor_R = torch.zeros_like(signal.before.rewards_PG).flatten()
    factor_R[signal.plan.rows_N] = signal.plan.coefficients_N
    return factor_R.view_as(signal.before.rewards_PG)
