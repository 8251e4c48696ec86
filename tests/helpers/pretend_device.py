"""An accelerator that computes on the CPU: what runs on it meets the rules of a card, and is told where a card would wait.

    device = install()                  # once a process, for good: only in a process of its own
    with pretending() as trace:
        ...                             # torch.device("pretend") now behaves like a card
    print(trace.told())

A tensor of the device is a wrapper around a CPU tensor. As on a card, it refuses a tensor, an index or a generator of another
device. What a card would have to wait for is counted by operation and by the line of ours that asked for it.
"""

import copy
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

NAME = "pretend"
CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
OURS = tuple(f"{ROOT / package}/" for package in ("recast_sim", "recast_train"))

# results that are Python values, so that the host waits for them
_VALUES = {"aten::_local_scalar_dense", "aten::item", "aten::equal", "aten::is_nonzero"}
# the size of the result is a number on the device, which the host has to know
_SIZED = {
    "aten::nonzero",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::masked_select",
    "aten::bincount",
}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
_COPIES = {"aten::copy_", "aten::_to_copy"}
# they take no number of the CPU, as pointwise operations do
_NO_CPU_NUMBER = {
    *("aten::gather", "aten::index_select", "aten::embedding", "aten::take", "aten::cat", "aten::stack", "aten::index_copy"),
    *("aten::index_copy_", "aten::index_add", "aten::index_add_", "aten::scatter", "aten::scatter_", "aten::scatter_reduce"),
    *("aten::scatter_reduce_", "aten::index_fill_", "aten::masked_scatter", "aten::equal"),
}
# autocast of the CPU computes these in the lower precision
_LOWER = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "scaled_dot_product_attention")


class DeviceMismatch(RuntimeError):
    """A tensor, an index or a generator of another device, where a card would refuse it."""


@dataclass
class Trace:
    """What was asked of the device: counts by operation, those that a card waits for also by the line of ours.

    Attributes:
        dispatched: every operation on the device.
        to_host: copies to the CPU, and values that Python reads.
        to_device: copies from the CPU that are not `non_blocking`; torch waits for these as well.
        sized: results whose size depends on the data (`nonzero`, an index by a mask): the host reads the size.
    """

    dispatched: Counter[str] = field(default_factory=Counter)
    to_host: Counter[tuple[str, str]] = field(default_factory=Counter)
    to_device: Counter[tuple[str, str]] = field(default_factory=Counter)
    sized: Counter[tuple[str, str]] = field(default_factory=Counter)

    def clear(self) -> None:
        for counter in (self.dispatched, self.to_host, self.to_device, self.sized):
            counter.clear()

    def waits(self) -> dict[str, dict[str, int]]:
        """Of each kind how often a card would wait, by file and function of ours."""
        found: dict[str, dict[str, int]] = {}
        for kind in ("to_host", "to_device", "sized"):
            found[kind] = {}
            for (_, line), count in sorted(getattr(self, kind).items()):
                where = line.split(":")[0] + " " + line.rsplit(" ", 1)[1]
                found[kind][where] = found[kind].get(where, 0) + count
        return found

    def told(self) -> str:
        """The counts as text, line by line."""
        rows = [f"{self.dispatched.total()} operations, {len(self.dispatched)} different"]
        for kind in ("to_host", "to_device", "sized"):
            counter: Counter[tuple[str, str]] = getattr(self, kind)
            rows.append(f"{kind}: {counter.total()}")
            rows += [
                f"  {count:4d}  {line}  {name}" for (name, line), count in sorted(counter.items(), key=lambda row: row[0][1])
            ]
        return "\n".join(rows)


_trace = Trace()  # of the last `pretending`: backward passes run in threads of their own


def install() -> torch.device:
    """Register the device in this process, which cannot be undone, and return it.

    Raises:
        ImportError: a torch whose private names are others.
    """
    try:
        from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

        class Backend(_DummyBackendModule):
            def get_amp_supported_dtype(self) -> list[torch.dtype]:
                return [torch.bfloat16]

            def _lazy_init(self) -> None: ...

        _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
        _install_autocast()
    except (ImportError, AttributeError) as error:
        mend = "pretend_device.py was written for 2.11 to 2.13: look for the new names of torch's Python backend"
        raise ImportError(f"torch {torch.__version__}: {error}; {mend}") from error
    torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter's data cannot become of another class
    return torch.device(NAME, 0)


@contextmanager
def pretending() -> Iterator[Trace]:
    """Let the device be used, and count what is asked of it."""
    global _trace
    before, _trace = _trace, Trace()
    try:
        with _Dispatch(), _Functions():
            yield _trace
    finally:
        _trace = before


def to_cpu(value: Any) -> Any:
    """Tensors of the device anywhere in a tree as CPU tensors, to compare results after `pretending`; nothing is counted."""
    return tree_map(lambda leaf: leaf.inner.detach() if isinstance(leaf, Remote) else leaf, value)


class Remote(torch.Tensor):
    """A CPU tensor that says it lives on the device."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, requires_grad: bool = False) -> "Remote":
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        self.inner = inner
        return self

    def __repr__(self, **_: Any) -> str:
        return f"Remote({self.inner!r})"

    def __tensor_flatten__(self) -> Any:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, context: Any, size: Any, stride: Any) -> "Remote":
        return Remote(inner["inner"])

    def __deepcopy__(self, memo: Any) -> "Remote":
        twin = Remote(copy.deepcopy(self.inner.detach(), memo), self.requires_grad)
        if getattr(self, "_is_param", False):
            twin._is_param = True
        memo[id(self)] = twin
        return twin

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    """Factory functions, which no tensor of the device leads here."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes seconds, to leave this out of it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """`torch.tensor` and the like leave the dispatcher before they reach a device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.tolist:
            return func(args[0].detach().cpu())
        if func is torch.Tensor.new_tensor:
            kwargs.setdefault("device", args[0].device)
            func, args = torch.tensor, args[1:]
        if func not in (torch.tensor, torch.as_tensor, torch.asarray) or kwargs.get("device") is None:
            return func(*args, **kwargs)
        device, dtype = torch.device(kwargs.pop("device")), kwargs.get("dtype")
        value = args[0] if isinstance(args[0], Tensor) else func(*args, **kwargs)
        return value.to(device) if dtype is None else value.to(device, dtype)


@dataclass
class _Operands:
    """The arguments of an operation, with the inner tensors in place of the device's; what was among them."""

    tensors: list[Tensor] = field(default_factory=list)
    remote: bool = False
    cpu_generator: bool = False

    def inside(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            self.tensors.append(value)
            if isinstance(value, Remote):
                self.remote = True
                return value.inner
        elif type(value) in (list, tuple):
            return type(value)(map(self.inside, value))
        elif isinstance(value, torch.device):
            return CPU if value.type == NAME else value
        elif isinstance(value, torch.Generator):
            self.cpu_generator |= value.device.type == "cpu"
        return value


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation, on the inner tensors; the result is of the device where a card's would be."""
    name, writes = _schema(func)
    operands, asked = _Operands(), kwargs.get("device")
    local_args = [operands.inside(value) for value in args]
    local_kwargs = {key: operands.inside(value) for key, value in kwargs.items()}
    remote = operands.remote
    if name == "aten::copy_":
        on_device = isinstance(args[0], Remote)
    elif asked is not None:
        on_device = torch.device(asked).type == NAME
    else:
        on_device = remote and name not in _VALUES
        if remote:
            _check_tensors(name, args, operands.tensors)
    if on_device and operands.cpu_generator:
        raise DeviceMismatch(f"{name}: a generator of the CPU, for a tensor of the device{_at()}")
    if remote or on_device:
        _count(name, args, kwargs, operands.tensors, on_device)
    out = func(*local_args, **local_kwargs)
    if writes:
        return _written(func, writes, args, kwargs, out)
    return _outside(out) if on_device else out


@cache
def _schema(func: Any) -> tuple[str, tuple[tuple[int, str], ...]]:
    """Name of an operation, and place and name of the arguments that it returns after it wrote to them."""
    schema = func._schema
    if not schema.is_mutable or any(result.alias_info is None for result in schema.returns):
        return schema.name, ()
    places = enumerate(schema.arguments)
    return schema.name, tuple((at, one.name) for at, one in places if one.alias_info is not None and one.alias_info.is_write)


def _check_tensors(name: str, args: Any, tensors: list[Tensor]) -> None:
    """Tensors of the CPU beside tensors of the device: a card takes numbers in pointwise operations, and indices."""
    whole = tensors
    if name in _INDEXING:
        if not isinstance(args[0], Remote):
            raise DeviceMismatch(f"{name}: an index or a value of the device, for a tensor of the CPU{_at()}")
        whole = [args[0], *[value for value in args[2:3] if isinstance(value, Tensor)]]  # an index may be of the CPU
    for tensor in whole:
        if not isinstance(tensor, Remote) and (tensor.ndim or name in _NO_CPU_NUMBER):
            raise DeviceMismatch(f"{name}: a tensor of the CPU, of shape {tuple(tensor.shape)}, meets one of the device{_at()}")


def _count(name: str, args: Any, kwargs: Any, tensors: list[Tensor], on_device: bool) -> None:
    _trace.dispatched[name] += 1
    source = args[1] if name == "aten::copy_" else tensors[0] if tensors else None
    from_device = isinstance(source, Remote)
    waits = not (kwargs.get("non_blocking") or (name == "aten::copy_" and len(args) > 2 and args[2]))
    waits = waits and source is not None and source.numel() > 0
    if name in _VALUES or (name in _COPIES and from_device and not on_device):
        _trace.to_host[name, _line()] += 1
    if name in _COPIES and on_device and not from_device and waits:
        _trace.to_device[name, _line()] += 1
    if name in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        if any(not isinstance(index, Remote) for index in indices):
            _trace.to_device[name, _line()] += 1
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            _trace.sized[name, _line()] += 1
    if name in _SIZED or (name == "aten::repeat_interleave" and kwargs.get("output_size") is None):
        _trace.sized[name, _line()] += 1


def _outside(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if isinstance(value, Remote) else Remote(value)
    return type(value)(map(_outside, value)) if type(value) in (list, tuple) else value


def _written(func: Any, writes: tuple[tuple[int, str], ...], args: Any, kwargs: Any, out: Any) -> Any:
    """The arguments that an operation wrote to, in place of the inner tensors that it returns."""
    written = [args[at] if at < len(args) else kwargs.get(key) for at, key in writes]
    for tensor in written:
        if isinstance(tensor, Remote) and tensor.shape != tensor.inner.shape:
            raise NotImplementedError(
                f"{func}: changes the shape of its argument, which the pretended device cannot show{_at()}"
            )
    if out is None:
        return None
    return written[0] if isinstance(out, Tensor) or len(written) == 1 else type(out)(written)


def _line() -> str:
    """The innermost line of ours that is running: file:line function."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(OURS):
            return f"{Path(file).relative_to(ROOT)}:{frame.f_lineno} {frame.f_code.co_qualname}"
        frame = frame.f_back
    return "elsewhere:0 elsewhere"


def _at() -> str:
    found = _line()
    return "" if found.startswith("elsewhere") else f" ({found})"


_autocast: tuple[Any, Any] | None = None  # what libraries register goes with them


def _install_autocast() -> None:
    """Autocast for the device, by the CPU's list of operations in the lower precision."""
    global _autocast
    rest = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    rest.fallback(torch.library.fallthrough_kernel)
    listed = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    _autocast = rest, listed
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def lowered(packet: Any) -> Any:
        def cast(value: Any) -> Any:
            floats = isinstance(value, Tensor) and value.dtype == torch.float32 and isinstance(value, Remote)
            return value.to(torch.get_autocast_dtype(NAME)) if floats else value

        def kernel(*args: Any, **kwargs: Any) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(keys):
                args, kwargs = tree_map(cast, (args, kwargs))
                return packet(*args, **kwargs)

        return kernel

    for name in _LOWER:
        listed.impl(name, lowered(getattr(torch.ops.aten, name)))
