"""What the paper claims (arXiv 2604.22169), its figures, and the rule by which a measurement of ours is judged."""

from dataclasses import dataclass

ALL_ZERO, NEAR = 0.85, 0.02  # claim 1: share of all-zero groups, and how near ours must lie
LEAST_GAIN = 0.091  # claim 2: the smallest gain of its five tasks
BUDGET = 0.041  # claim 3: share of the baseline's rollouts
PERSISTS = 0.5  # claim 9: above this share the regime persists; ours, the paper shows a figure
ACTOR, STEP, MEMORY, MFU = 211.04 / 12.71, 371.54 / 77.00, 16.5, 14.2  # claims 5 and 6 as ratios, 7 and 8 in percent
ACTOR_TOKENS = 6.93 / 0.47  # claim 5: tokens a step, before over after
ENOUGH = 0.9  # claims 5 to 8: share of the paper's factor that counts as reaching it


@dataclass(frozen=True)
class Claim:
    """One claim: its number, what it says, the paper's figure, and when a measurement meets it."""

    number: int
    says: str
    figure: str
    rule: str


CLAIMS = (
    Claim(
        1,
        "Most rollout groups of the baseline hold no hit (G = 32)",
        "85 % all-zero, 13 % single-hit, 2 % multi-hit",
        f"the all-zero share lies within {100 * NEAR:g} points of 85 %",
    ),
    Claim(
        2,
        "ReCast ends with a better Pass@1 than the baseline",
        "+9.1 % to +36.6 % on five tasks",
        "the interval of the relative gain over grpo lies above 0",
    ),
    Claim(
        3,
        "ReCast reaches the baseline's final performance with few rollouts",
        "4.1 % of its rollouts",
        f"the interval of the ratio reaches {100 * BUDGET:.1f} % and lies below 100 %; only below 100 % is 'holds where'",
    ),
    Claim(
        4,
        "The advantage at a matched budget widens with model scale",
        "wider from 1.7B to 8B to 14B",
        "the interval of the slope of log(recast / grpo) over sizes lies above 0, and recast is ahead on the largest",
    ),
    Claim(
        5,
        "The actor's update is faster",
        f"211.04 s to 12.71 s, {ACTOR:.2f}x (6.93 M to 0.47 M tokens, {ACTOR_TOKENS:.1f}x)",
        f"the factor is at least {100 * ENOUGH:g} % of the paper's; above 1 is 'holds where'",
    ),
    Claim(
        6,
        "The whole step is faster",
        f"371.54 s to 77.00 s, {STEP:.2f}x",
        f"the factor is at least {100 * ENOUGH:g} % of the paper's; above 1 is 'holds where'",
    ),
    Claim(
        7,
        "Peak allocated memory falls",
        f"-{MEMORY} %",
        f"the saving is at least {100 * ENOUGH:g} % of the paper's; any saving is 'holds where'",
    ),
    Claim(
        8,
        "The actor's MFU rises",
        f"+{MFU} %",
        f"the gain is at least {100 * ENOUGH:g} % of the paper's; any gain is 'holds where'",
    ),
    Claim(
        9,
        "The all-zero regime persists through baseline training; ReCast relieves it",
        "a figure",
        f"grpo's all-zero share in the last tenth of the steps lies above {PERSISTS:g}; recast's minus grpo's lies below 0",
    ),
    Claim(
        10,
        "Repair triggers often at first, then fades",
        "a figure",
        "the interval of the repaired share in the last tenth over that in the first lies below 1",
    ),
    Claim(
        11,
        "Boundary-focused updates stabilise optimisation",
        "a figure",
        "minus grpo's, the noise's share of a step, the deepest fall of greedy Pass@1, norm spikes or the scatter lies below 0",
    ),
    Claim(
        12,
        "Repair alone can turn negative on a strong backbone",
        "an ablation",
        "the interval of repair_only's relative gain over grpo lies below 0; a strong backbone is a larger policy",
    ),
)
