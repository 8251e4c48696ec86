"""What passes of a model compute, move and call: counts, no seconds.

A pass goes over positions (tokens of all sequences); pairs are (query, key) pairs that attention computes, which are all pairs
of a masked pass, and half of those of a causal one.
"""

from dataclasses import dataclass

from recast_train.step_model.net import BACKWARD_CALLS, FORWARD_CALLS, Net

SOFTMAX_MOVES = 8  # elements moved for a logit: written, divided, masked, its log-softmax and a gather, each read and written
ADAM_MOVES, ADAM_CALLS = 21, 10  # elements that torch's AdamW moves for a parameter, operations for a tensor
CACHE_MOVES = 3  # of a cached element in a decoding pass: copied as the cache grows (read, written), read by attention


@dataclass(frozen=True)
class Work:
    """FLOPs, elements moved, operations called, and passes; they add up."""

    flops: float = 0.0
    moved: float = 0.0
    calls: float = 0.0
    passes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.moved + other.moved, self.calls + other.calls, self.passes + other.passes)

    def times(self, count: float) -> "Work":
        """The same work so many times."""
        return Work(count * self.flops, count * self.moved, count * self.calls, count * self.passes)


def forward(net: Net, positions: float, pairs: float, cached: float = 0.0) -> Work:
    """One forward pass through the layers; `cached` tokens have their keys and values in a cache that it reads and extends.

    2 FLOPs a weight and position, 4 * head_dim a query head and pair (scores and weighted sum).
    """
    flops = 2 * net.layers * (net.layer_weights * positions + 2 * net.queries * pairs)
    moved = net.layers * (net.moved_forward * positions + net.layer_weights) + CACHE_MOVES * cached * net.cached
    return Work(flops, moved, net.layers * FORWARD_CALLS, 1)


def backward(net: Net, positions: float, pairs: float, recompute: bool = False) -> Work:
    """The backward pass of the same positions and pairs, twice the FLOPs; `recompute`: each layer goes forward once more.

    A pass of its own: the loss, the graph and the gradient's bookkeeping.
    """
    flops = 4 * net.layers * (net.layer_weights * positions + 2 * net.queries * pairs)
    moved = net.layers * (net.moved_backward * positions + 2 * net.layer_weights)
    own = Work(flops, moved, net.layers * BACKWARD_CALLS, 1)
    if not recompute:
        return own
    again = forward(net, positions, pairs)
    return own + Work(again.flops, again.moved, again.calls)


def readout(net: Net, states: float, codes: float, gradient: bool = False) -> Work:
    """Log-probabilities over `codes` tokens from `states` hidden states; `gradient` adds the backward pass, whose gradient of
    the output matrix has a row for every token of the vocabulary."""
    flops, moved = 2 * states * net.hidden * codes, SOFTMAX_MOVES * states * codes + (states + codes) * net.hidden
    if not gradient:
        return Work(flops, moved)
    return Work(3 * flops, 3 * moved + net.vocabulary * net.hidden)


def adam(net: Net, shards: int = 1) -> Work:
    """One AdamW step on a rank's share of the parameters."""
    return Work(0.0, ADAM_MOVES * net.parameters / shards, ADAM_CALLS * net.tensors)


def gradient_norm(net: Net, shards: int = 1) -> Work:
    """The norm of the gradient, which is read once."""
    return Work(0.0, net.parameters / shards, net.tensors)
