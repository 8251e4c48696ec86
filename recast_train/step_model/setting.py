"""What a step is: model, prompts, rows and how they are computed. Units: tokens, rows, cards; bytes an element."""

from dataclasses import dataclass
from math import ceil

from recast_train.model import require
from recast_train.step_model.net import Net


@dataclass(frozen=True)
class StepSetting:
    """One training step; all lengths are those of every prompt and row.

    Attributes:
        prompt: tokens of a prompt.
        response: tokens of a row behind the prompt and its thought; the last one is predicted, never read.
        group_size: rows that are rolled out for a prompt (G); `kept` of them reach the passes after the rewards.
        prompts: groups of the whole step, spread evenly over `cards`.
        thought: tokens sampled once a prompt before its rows; part of what every row repeats.
        codes: tokens that a row's own logits are over.
        shared: a prompt is computed once for its rows, else in each of them.
        every_position: training passes compute logits over the whole vocabulary at every position, as verl's do.
        updates, mini_batches: as in `RlConfig`; together the optimiser steps of the step.
        reference: there is a KL term and so a reference pass.
        old: there is a pass for the old log-probabilities.
        recompute: gradient checkpointing.
        pass_tokens: positions of one pass at most, 0 for no limit; a prompt with its rows, or a row, is never cut.
        sharded: FSDP2, else a whole model on every card (DDP).
        engine: rollouts come from an engine with a copy of its own, synced once a step; else from the trained model itself,
            whose shards are gathered in every pass.
        held: bytes of a parameter, its gradient and each of AdamW's averages; `computed`: bytes in passes and on the wire.
        resident: bytes that something else holds on every card for the whole step (an inference engine's pool).

    Raises:
        TrainError: a count below 1 or more rows kept than drawn.
    """

    net: Net
    prompt: int
    response: int
    group_size: int
    kept: float
    prompts: int
    cards: int = 1
    thought: int = 0
    codes: int = 0
    shared: bool = True
    every_position: bool = False
    updates: int = 1
    mini_batches: int = 1
    reference: bool = True
    old: bool = True
    recompute: bool = False
    pass_tokens: int = 0
    sharded: bool = True
    engine: bool = False
    held: int = 4
    computed: int = 4
    resident: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prompt", "response", "group_size", "prompts", "cards", "updates", "mini_batches"):
            value = getattr(self, name)
            require(value >= 1, f"StepSetting.{name}", value, "must be at least 1")
        fits = 0 < self.kept <= self.group_size
        require(fits, "StepSetting.kept", self.kept, f"must lie above 0 and at most at group_size ({self.group_size})")

    @property
    def shards(self) -> int:
        """Parts that parameters and optimiser state are in."""
        return self.cards if self.sharded else 1

    @property
    def groups(self) -> int:
        """Prompts of the card that has most."""
        return ceil(self.prompts / self.cards)

    @property
    def before(self) -> int:
        """Tokens before a row's own: prompt and thought."""
        return self.prompt + self.thought

    @property
    def own(self) -> int:
        """Tokens of a row that are read behind the prompt."""
        return self.response - 1

    @property
    def positions(self) -> float:
        """Positions of one pass over a card's kept rows."""
        rows = self.groups * self.kept
        return self.groups * self.before + rows * self.own if self.shared else rows * (self.before + self.own)

    @property
    def attended(self) -> float:
        """Pairs that the masks of that pass let through (`packed_pairs`, `repeated_pairs`), rows without a common prefix."""
        rows, prompt, own = self.groups * self.kept, self.before, self.own
        behind = own * prompt + own * (own + 1) / 2
        return (self.groups if self.shared else rows) * prompt * (prompt + 1) / 2 + rows * behind

    @property
    def states(self) -> float:
        """Hidden states of that pass that logits are of: a shared prompt's last one serves all its rows."""
        rows = self.groups * self.kept
        if self.every_position:
            return self.positions
        return self.groups + rows * self.own if self.shared else rows * self.response

    @property
    def logits(self) -> int:
        """Tokens that logits of a training pass are over."""
        return self.net.vocabulary if self.every_position else self.codes or self.net.vocabulary

    @property
    def unit(self) -> float:
        """Positions of the smallest pass: a prompt with its rows where they share it, else a row."""
        return self.positions / self.groups if self.shared else self.before + self.own

    def pass_positions(self, positions: float) -> float:
        """Positions of the largest of the passes that go over so many."""
        if not self.pass_tokens or positions <= self.pass_tokens:
            return positions
        return min(positions, max(1, self.pass_tokens // self.unit) * self.unit)

    def passes(self, positions: float) -> int:
        """Passes over so many positions."""
        return max(1, ceil(positions / self.pass_positions(positions) - 1e-9))
