"""What the trainer relies on in TRL, checked at construction: TRL changes private methods in minor releases."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import trl
from packaging.version import Version

from recast_train.model import TrainError

OLDEST = Version("1.11")
LOGS_TRAINED_ROWS = Version(trl.__version__) < Version("1.15")  # the log's texts are decoded from the rows that are left
_OVERRIDDEN = {
    "_generate": ("prompts",),
    "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("inputs",),
    "_prepare_inputs": ("generation_batch",),
    "compute_loss": ("model", "inputs", "return_outputs", "num_items_in_batch"),
}
_ATTRIBUTES = ("_step", "_buffered_inputs", "_metrics", "_logs", "num_generations", "num_iterations", "reward_weights")


class Generated(NamedTuple):
    """What TRL's `_generate` returns, in its order: lists over rows, or None."""

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    tool_mask: list[list[int]] | None
    completions: list[Any]
    logprobs: list[list[float | None]] | None
    extra_fields: dict[str, Any]
    images: list[Any] | None
    tool_images: list[Any]


def check_class(trainer: type) -> None:
    """Raise TrainError, with TRL's version and what differs, unless the class's methods are as this package uses them."""
    if Version(trl.__version__) < OLDEST:
        _fail(f"is older than {OLDEST}")
    for name, expected in _OVERRIDDEN.items():
        found = tuple(inspect.signature(_method(trainer, name)).parameters)[1:]
        if found != expected:
            _fail(f"GRPOTrainer.{name} takes ({', '.join(found)}), expected ({', '.join(expected)})")
    try:
        scorer = _method(trainer, "_get_per_token_logps_and_entropies")
        inspect.signature(scorer).bind(None, "model", "input_ids", "attention_mask", "logits_to_keep", batch_size=1)
        inspect.signature(_method(trainer, "_tokenize_prompts")).bind(None, "prompts")
    except TypeError as error:
        _fail(f"a method of GRPOTrainer cannot be called as before: {error}")
    returned = _returned(_method(trainer, "_generate"))
    if returned != Generated._fields:
        _fail(f"GRPOTrainer._generate returns ({', '.join(returned)}), expected ({', '.join(Generated._fields)})")


def check_instance(trainer: Any) -> None:
    """Raise TrainError unless the trainer has the attributes that are read."""
    missing = [name for name in _ATTRIBUTES if not hasattr(trainer, name)]
    if missing:
        _fail(f"GRPOTrainer has no attribute {', '.join(missing)}")


def _method(trainer: type, name: str) -> Callable[..., Any]:
    if not hasattr(trainer, name):
        _fail(f"GRPOTrainer has no method {name}")
    return getattr(trainer, name)


def _returned(method: Callable[..., Any]) -> tuple[str, ...]:
    """Names in the tuple of a method's last return statement."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(method))))
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    names = values[-1].elts if values and isinstance(values[-1], ast.Tuple) else []
    return tuple(ast.unparse(name) for name in names)


def _fail(reason: str) -> None:
    raise TrainError(f"trl: version {trl.__version__}: {reason}; install 1.11.0 or 1.16.0, which recast is tested with")
