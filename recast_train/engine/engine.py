"""The engine: what differs between one process and many, behind one object.

Every method but `share`, `unwrap` and the properties is called by all ranks, in the same order.
"""

import atexit
import copy
import json
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from recast_sim.runs import RunError
from recast_train.engine.devices import chosen_device
from recast_train.engine.engine_config import EngineConfig, launched_world
from recast_train.engine.full_state import State, gather_state, scatter_state
from recast_train.engine.sharding import shard
from recast_train.model import SidModel, TrainError, require

_CAUSE = "recast/stopped by"  # key in the launcher's store


class Engine:
    """Use it as a context around a whole run: a rank that leaves it by an exception stops the others with its message.

    One engine at a time in a process.
    """

    def __init__(self, config: EngineConfig, device: str = "cpu") -> None:
        """Join the other ranks; `device` "cpu" (gloo), "cuda" (nccl, the card of the local rank) or "auto" (`chosen_device`).

        Raises:
            TrainError: the launcher started several processes for "single", or asks for another precision or strategy; no
                such device.
        """
        self._world = launched_world(config)
        on_cpu = chosen_device(device) == "cpu"
        from accelerate import Accelerator

        precision = {"fp32": "no", "bf16": "bf16"}[config.precision]
        self._accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision)
        atexit.register(_leave)  # not before: a group of ranks that was left is not reliably joined again
        self._config = config
        self._spare: WeakKeyDictionary[SidModel, SidModel] = WeakKeyDictionary()  # whole copies of models that are sharded
        found = self._accelerator.num_processes
        require(
            found == self._world, "WORLD_SIZE", self._world, f"but accelerate sees {found}; use accelerate launch or torchrun"
        )

    @property
    def world(self) -> int:
        """Number of ranks over all nodes."""
        return self._world

    @property
    def rank(self) -> int:
        """This process's number, 0 to world - 1."""
        return self._accelerator.process_index

    @property
    def is_main(self) -> bool:
        """True on rank 0, the only one that writes."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The device of this rank."""
        return self._accelerator.device

    def prepare(self, model: SidModel) -> nn.Module:
        """The model on its device, wrapped; build the optimiser on the returned model's parameters.

        A model that no parameter of requires a gradient (a reference) is sharded as well. Copy a model before, not after.

        Raises:
            TrainError: the ranks' parameters differ.
        """
        own = torch.stack([weight.detach().double().norm() for weight in model.parameters()]).sum().cpu()
        sums = self.gather(own[None])
        require(torch.allclose(sums, own, rtol=1e-9), "model", sums.tolist(), "norms differ over ranks; build it from one seed")
        if self._config.strategy == "fsdp2" and self.world > 1:
            if any(weight.requires_grad for weight in model.parameters()):
                self._spare[model] = copy.deepcopy(model)
            shard(model.to(self.device), model.lm, self.device, self.world, self._config.precision == "bf16")
        plain = self._config.strategy != "ddp" or not any(weight.requires_grad for weight in model.parameters())
        wrapped = self._accelerator.prepare_model(model, evaluation_mode=plain)
        if isinstance(wrapped, nn.parallel.DistributedDataParallel):
            wrapped.broadcast_buffers = False  # the trie's tables never change
        self._accelerator.free_memory()  # it keeps every model that it has prepared
        return wrapped

    def unwrap(self, model: nn.Module) -> SidModel:
        """The model behind `prepare`, for its tables and sizes; passes go through the wrapped one."""
        inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        assert isinstance(inner, SidModel)
        return inner

    def replica(self, model: nn.Module) -> SidModel:
        """A whole model of the present parameters on every rank, whose passes concern no other rank: for evaluation."""
        inner = self.unwrap(model)
        if inner not in self._spare:
            return inner
        spare = self._spare[inner].to(self.device)
        self.load(self.state(model), spare)
        return spare

    def share(self, count: int) -> slice:
        """This rank's part of `count` prompts (or windows), contiguous, all parts equally long.

        Raises:
            TrainError: `count` is not a multiple of the world size.
        """
        require(count % self.world == 0, "prompts a step", count, f"must be a multiple of the {self.world} processes")
        size = count // self.world
        return slice(self.rank * size, (self.rank + 1) * size)

    def gather(self, tensor: Tensor) -> Tensor:
        """All ranks' tensors, of one shape, joined along axis 0 in rank order; on the CPU."""
        if self.world == 1:
            return tensor.cpu()
        joined: Any = self._accelerator.gather(tensor.to(self.device))
        return joined.cpu()

    def all_sum(self, *values: float) -> list[float]:
        """Each number summed over the ranks."""
        return self.gather(torch.tensor([values], dtype=torch.float64)).sum(0).tolist()

    def mean(self, value: float, weight: float) -> float:
        """Mean over the ranks' values by their weights; a rank of weight 0 may have NaN. 0 where all weights are 0."""
        total, weights = self.all_sum(value * weight if weight else 0.0, weight)
        return total / weights if weights else 0.0

    def barrier(self) -> None:
        """Wait for all ranks."""
        self._accelerator.wait_for_everyone()

    def on_main(self, work: Callable[[], Any]) -> Any:
        """Run `work` on rank 0 (reading, writing) while the others wait; what it returns, JSON values only, on all ranks.

        Raises:
            TrainError: on the other ranks, where `work` raised; rank 0 raises its own exception.
        """
        if self.world == 1:
            return work()
        outcome, raised = {}, None
        if self.is_main:
            try:
                outcome = {"value": work()}
            except Exception as error:
                outcome, raised = {"error": _line(error)}, error
        outcome = self._from_main(outcome)
        if raised is not None:
            raise raised
        if "error" in outcome:
            raise TrainError(f"rank 0 stopped the run: {outcome['error']}")
        return outcome["value"]

    def backward(self, loss: Tensor) -> None:
        """Gradient of the sum of all ranks' losses (the wrappers average over the ranks, hence the factor)."""
        (loss * self.world).backward()

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float = torch.inf) -> float:
        """Norm of the whole gradient, the same on all ranks; it is cut to `max_norm`."""
        norm: Any = nn.utils.clip_grad_norm_(parameters, max_norm)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def descend(
        self, model: nn.Module, loss: Tensor, optimiser: torch.optim.Optimizer, max_norm: float = torch.inf
    ) -> tuple[float, float]:
        """One optimiser step down the sum of the ranks' losses; returns that sum and the gradient's norm before it was cut.

        Raises:
            TrainError: on all ranks, the sum or its gradient is not finite; the model is left as it was.
        """
        optimiser.zero_grad()
        self.backward(loss)
        return self.step(model, float(loss.detach()), optimiser, max_norm)

    def step(
        self, model: nn.Module, loss: float, optimiser: torch.optim.Optimizer, max_norm: float = torch.inf
    ) -> tuple[float, float]:
        """`descend` once `backward` was called, on one loss or on several that add up to this rank's `loss`."""
        norm, (total,) = self.clip(model.parameters(), max_norm), self.all_sum(loss)
        if not (abs(total) < torch.inf and norm < torch.inf):
            raise TrainError(f"loss: {total} with gradient norm {norm}; lower learning_rate")
        optimiser.step()
        return total, norm

    def state(self, model: nn.Module, optimiser: torch.optim.Optimizer | None = None) -> State:
        """Whole plain tensors on rank 0, empty on the others: for a checkpoint, or the best state so far."""
        return gather_state(model, optimiser)

    def load(self, state: State, model: nn.Module, optimiser: torch.optim.Optimizer | None = None) -> None:
        """Put rank 0's state into every rank's model and optimiser; what the other ranks pass does not matter.

        It may come from any strategy and number of ranks. The optimiser keeps its own learning rate and settings.

        Raises:
            RunError, on other ranks TrainError: names or shapes that do not fit the model.
        """
        names = _optimiser_names(self.unwrap(model), optimiser)
        stepped = self.on_main(lambda: _check_fits(state, self.unwrap(model), names))
        scatter_state(state if self.is_main else State(), model, optimiser, names if stepped else [], self.world)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        from accelerate.state import AcceleratorState

        if error is None:
            self.barrier()
        AcceleratorState._reset_state(reset_partial_state=True)  # else no later engine of another precision
        if error is not None and self.world > 1:
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        """Say why to the other ranks, or say why they stopped this one.

        The first rank to stop leaves its message in the launcher's store. Under gloo the others then lose the connection and
        find it there; nccl's calls do not return, there the launcher ends the other ranks.
        """
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import _get_default_store

        rank = dist.get_rank()
        mine = f"rank {rank} stopped the run: {_line(error)}"
        try:
            first = _get_default_store().compare_set(_CAUSE, "", mine).decode()
        except RuntimeError:  # the store died with the rank that held it
            first = f"another rank stopped the run; this is rank {rank}: {_line(error)}"
        atexit.unregister(_leave)  # nccl would wait for the calls that the others left open
        if dist.get_backend() == "gloo":
            dist.destroy_process_group()
        if isinstance(error, RuntimeError) and first != mine:
            raise TrainError(first) from error

    def _from_main(self, value: Any) -> Any:
        from accelerate.utils import broadcast

        text = json.dumps(value, allow_nan=False).encode() if self.is_main else b""
        length: Any = broadcast(torch.tensor([len(text)], device=self.device))
        page = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if self.is_main:
            page.copy_(torch.tensor(list(text), dtype=torch.uint8))
        received: Any = broadcast(page)
        return json.loads(bytes(received.tolist()))


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _optimiser_names(model: SidModel, optimiser: torch.optim.Optimizer | None) -> list[str]:
    name_of = {weight: name for name, weight in model.named_parameters()}
    groups = optimiser.param_groups if optimiser is not None else []
    return [name_of[weight] for group in groups for weight in group["params"]]


def _check_fits(state: State, model: SidModel, names: list[str]) -> bool:
    """True where the state holds an optimiser that has taken a step."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.model.items()}
    for name in sorted(shapes.keys() | found.keys()):
        if shapes.get(name) != found.get(name):
            raise RunError(f"checkpoint: {name} has shape {found.get(name)}, the model {shapes.get(name)}; use its own config")
    slots = {key.rsplit(".", 1)[0] for key in state.optimiser}
    if names and slots and slots != set(names):
        raise RunError(f"checkpoint: optimiser state of {sorted(slots ^ set(names))[0]} does not fit; use its own config")
    return bool(slots)
