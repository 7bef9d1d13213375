"""A pretended GPU that computes, so that a machine without one notices code that forgets the device.

Inside `with pretended_gpu():` torch seems to have a CUDA device (with `"mps"`, an Apple one, which has no float64). Its
tensors hold ordinary CPU tensors; every operation is done on these, after the question that a GPU would ask: do all
operands lie on one device? If not, `DeviceError` is raised, with the operation's name. As on a GPU,

- a scalar tensor on the CPU may enter an elementwise operation, and CPU indices may index a tensor on the GPU;
- generators belong to a device, and each device has a default one of its own;
- `numpy()` needs `cpu()` first, `item()` and `tolist()` do not; `torch.load` puts tensors where `map_location` says.

The pretended device's random numbers are those of the CPU for the same seed, so a right result is the CPU's result.
Not pretended: kernels of their own (attention, cuDNN), asynchronous execution, memory, speed, several devices.
`FakeTensorMode` cannot serve here: its tensors have no values, and the library looks at values.

A chapter, or any other script, on the pretended device: `python -m tests.pretended_gpu notebooks/01_vae.py`.
"""

import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CPU_GENERATOR = torch.Generator
GET_DEVICE, GET_IS_CUDA = torch.Tensor.device.__get__, torch.Tensor.is_cuda.__get__

INDEXING = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default,
    aten._unsafe_index.Tensor, aten._unsafe_index_put.default,
}  # fmt: skip
ANY_DEVICES = {  # they carry tensors from one device to another, or look at their form alone
    aten.copy_.default, aten._to_copy.default, aten.copy.default, aten.set_.source_Tensor, aten.is_same_size.default,
    aten._has_compatible_shallow_copy_type.default, aten._local_scalar_dense.default,
}  # fmt: skip


class DeviceError(RuntimeError):
    """What a GPU would have refused."""


class State:
    """The pretended device: its name, its default generator, and the generators that were made for it."""

    def __init__(self, kind: str) -> None:
        self.device = torch.device(kind, 0)
        self.generator = CPU_GENERATOR().manual_seed(0)
        self.made: list[torch.Generator] = []

    def owns(self, generator: torch.Generator) -> bool:
        return any(generator._cdata == mine._cdata for mine in (self.generator, *self.made))

    def names(self, device: object) -> bool:
        """Whether `device` means the pretended one; inside torch's own code it goes by the name of `meta`."""
        kind = torch.device(device).type if isinstance(device, str | torch.device) else None
        return kind in (self.device.type, "meta")


STATE: State | None = None  # set while a device is pretended


def state() -> State:
    assert STATE is not None, "a tensor of a pretended device has left its block"
    return STATE


class OnGpu(torch.Tensor):
    """A tensor on the pretended device. To torch it is a `meta` tensor; `held` has the values."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        form = {"strides": held.stride(), "storage_offset": held.storage_offset(), "layout": held.layout}
        made = torch.Tensor._make_wrapper_subclass(cls, held.size(), dtype=held.dtype, device="meta", **form)
        made.held = held
        return made

    device = property(lambda self: state().device)
    is_cuda = property(lambda self: state().device.type == "cuda")
    is_meta = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})

    def tolist(self):
        with no_dispatch():
            return self.held.tolist()

    def numpy(self, *args, **kwargs):
        raise DeviceError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def data_ptr(self):
        return self.held.data_ptr()

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            with torch.no_grad():
                copied = OnGpu(self.held.detach().clone())
            parameter = isinstance(self, torch.nn.Parameter)
            copied = torch.nn.Parameter(copied, self.requires_grad) if parameter else copied
            memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        return OnGpu, (self.held.detach().clone(),)


def run(operation, args, kwargs):
    """Do one operation on the tensors that are held, if its operands lie where they may."""
    if operation is torch.ops.prim.device.default:
        return state().device
    if operation is aten._efficientzerotensor.default:
        operation = aten.zeros.default
    on_gpu = _refuse_mixtures(operation, args, kwargs)
    if kwargs.get("device") is not None:
        on_gpu = state().names(kwargs["device"])
        kwargs = {**kwargs, "device": torch.device("cpu") if on_gpu else kwargs["device"]}
    generator = next((a for a in tree_leaves((args, kwargs)) if isinstance(a, CPU_GENERATOR)), None)
    draws = torch.Tag.nondeterministic_seeded in operation.tags
    if draws and generator is not None and state().owns(generator) != on_gpu:
        raise DeviceError(f"generator and tensor are not on one device (in {operation})")
    held_args, held_kwargs = tree_map(lambda t: t.held if isinstance(t, OnGpu) else t, (args, kwargs))
    with no_dispatch(), _default_generator() if draws and generator is None and on_gpu else nullcontext():
        out = operation(*held_args, **held_kwargs)
    if state().device.type == "mps" and on_gpu and any(t.dtype == torch.float64 for t in _tensors(out)):
        raise DeviceError(f"the MPS framework doesn't support float64 (in {operation})")
    return _returned(operation, args, kwargs, out, on_gpu)


def _tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _refuse_mixtures(operation, args, kwargs) -> bool:
    """Raise `DeviceError` for operands that a GPU would not take together; else say where the result will lie."""
    tensors = _tensors((args, kwargs))
    on_cpu = [t for t in tensors if not isinstance(t, OnGpu)]
    mixed, first = 0 < len(on_cpu) < len(tensors), args[0] if args else None
    refused = ()
    if operation in ANY_DEVICES:
        if operation is aten.set_.source_Tensor and mixed:
            refused = on_cpu
        if operation is aten._local_scalar_dense.default:
            return False
        return isinstance(first, OnGpu)
    if operation in INDEXING:
        values = args[2:3] if isinstance(first, OnGpu) else args[1]
        refused = [t for t in _tensors(values) if isinstance(t, OnGpu) != isinstance(first, OnGpu)]
        if isinstance(first, OnGpu):
            refused = [t for t in refused if t.ndim > 0]
    elif mixed:
        elementwise = torch.Tag.pointwise in operation.tags or "foreach" in operation.name()
        elementwise |= operation is aten.where.self
        writes_to_cpu = (
            operation._schema.is_mutable and isinstance(first, torch.Tensor) and not isinstance(first, OnGpu)
        )
        refused = on_cpu if writes_to_cpu else [t for t in on_cpu if t.ndim > 0 or not elementwise]
    if len(refused):
        shapes = [tuple(t.shape) for t in refused]
        raise DeviceError(f"expected all tensors on {state().device}, found others of shapes {shapes} (in {operation})")
    return isinstance(first, OnGpu) if operation in INDEXING else len(on_cpu) < len(tensors)


@contextmanager
def _default_generator() -> Iterator[None]:
    """Inside, the CPU's default generator does the work of the pretended device's."""
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(state().generator.get_state())
    try:
        yield
    finally:
        state().generator.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(before)


def _returned(operation, args, kwargs, out, on_gpu: bool):
    """Wrap new tensors; for operations that write into an argument, return that argument itself."""
    written = {}
    for i, argument in enumerate(operation._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name, args[i] if i < len(args) else None)
            written |= dict.fromkeys(argument.alias_info.before_set, value)
            if isinstance(value, OnGpu) and (value.held.shape, value.held.stride()) != (value.shape, value.stride()):
                with no_dispatch(), torch._C.DisableTorchFunction():
                    value.data = OnGpu(value.held)  # it was resized

    def wrapped(result):
        return OnGpu(result) if isinstance(result, torch.Tensor) and on_gpu else result

    def argument_or_new(declared, result):
        name = (
            next(iter(declared.alias_info.before_set)) if declared.alias_info and declared.alias_info.is_write else None
        )
        return written[name] if written.get(name) is not None else tree_map(wrapped, result)

    declared = operation._schema.returns
    if len(declared) == 1:
        return argument_or_new(declared[0], out)
    if any(d.alias_info is not None and d.alias_info.is_write for d in declared):
        return type(out)(argument_or_new(d, result) for d, result in zip(declared, out, strict=True))
    return tree_map(wrapped, out)


class Operations(TorchDispatchMode):
    """Brings operations that create tensors (they have no operand on the device) to `run`."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


class Functions(TorchFunctionMode):
    """What must be caught before torch's own code sees the device's name or the tensor's `meta`."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        gpu, kwargs = state().device, dict(kwargs or {})

        def means_gpu(value) -> bool:
            return isinstance(value, str | torch.device) and _is_device(value) and torch.device(value).type == gpu.type

        if means_gpu(kwargs.get("device")):
            kwargs["device"] = gpu
        first = args[0] if args else None
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (first, _index(args[1]), *args[2:])
        if function is GET_DEVICE:
            device = function(*args)
            return gpu if device.type == "meta" else device
        if function is GET_IS_CUDA:
            return isinstance(first, OnGpu) and gpu.type == "cuda"
        if function is torch.Tensor.__repr__ and isinstance(first, OnGpu):
            with no_dispatch(), torch._C.DisableTorchFunction():
                return f"{gpu}: {first.held!r}"
        if function is torch.Tensor.__format__ and isinstance(first, OnGpu):
            return format(first.item() if first.ndim == 0 else object(), args[1])
        if function is torch.Tensor.cuda:
            return first.to(gpu)
        if function is torch.Tensor.cpu:
            return first.to("cpu")
        if function is torch.Tensor.to:
            args = tuple(gpu if means_gpu(a) else a for a in args)
            if len(args) > 1 and isinstance(args[1], torch.Tensor):  # as another tensor is
                args = (first, args[1].device, args[1].dtype, *args[2:])
            if gpu in (*args[1:], kwargs.get("device")) and GET_DEVICE(first).type in ("meta", gpu.type):
                kinds = [a for a in (*args[1:], kwargs.get("dtype")) if isinstance(a, torch.dtype)]
                if kinds and kinds[0] != first.dtype:
                    return function(first, kinds[0])
                return first.clone() if kwargs.get("copy") else first
        if function is torch.Tensor.new_tensor and GET_DEVICE(first).type == "meta" and kwargs.get("device") is None:
            return torch.tensor(*args[1:], dtype=kwargs.get("dtype", first.dtype)).to(gpu)
        if function in (torch.as_tensor, torch.tensor) and kwargs.get("device") is not None:
            there = kwargs.pop("device")
            return function(*args, **kwargs).to(gpu if state().names(there) else there)
        return function(*args, **kwargs)


def _index(index):
    """An index whose lists are tensors on the CPU: torch would write them to the device by ways that nobody can see."""
    if isinstance(index, tuple):
        return tuple(_index(part) for part in index)
    if isinstance(index, list):
        return torch.tensor(index, dtype=None if index else torch.long)
    return index


def _is_device(value) -> bool:
    try:
        torch.device(value)
    except RuntimeError:
        return False
    return True


class _MadeFor(type):
    def __instancecheck__(cls, instance) -> bool:
        return isinstance(instance, CPU_GENERATOR)


class Generator(metaclass=_MadeFor):
    """In the place of `torch.Generator`: remembers which generators were made for the pretended device."""

    def __new__(cls, device="cpu"):
        made = CPU_GENERATOR()
        if state().names(device):
            state().made.append(made)
        return made


@contextmanager
def pretended_gpu(kind: str = "cuda") -> Iterator[torch.device]:
    """Inside, torch seems to have a device of this kind, `"cuda"` or `"mps"`; nothing of it is left afterwards."""
    global STATE
    pretended, save, load = State(kind), torch.save, torch.load

    def to_cpu_and_save(content, *args, **kwargs):
        on_cpu = tree_map(lambda t: t.detach().to("cpu") if isinstance(t, OnGpu) else t, content)
        return save(on_cpu, *args, **kwargs)

    def load_to(*args, map_location=None, **kwargs):
        if not pretended.names(map_location):
            return load(*args, map_location=map_location, **kwargs)
        content = load(*args, map_location="cpu", **kwargs)
        return tree_map(lambda t: t.to(pretended.device) if isinstance(t, torch.Tensor) else t, content)

    random = {
        "get_rng_state": lambda device=None: pretended.generator.get_state(),
        "set_rng_state": lambda new, device=None: pretended.generator.set_state(new) and None,
        "manual_seed": lambda seed: pretended.generator.manual_seed(seed) and None,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
    }
    patches = [patch.object(torch, "Generator", Generator), patch.object(torch, "save", to_cpu_and_save)]
    patches += [patch.object(torch, "load", load_to)]
    if kind == "mps":
        patches += [patch.object(torch.mps, name, value) for name, value in random.items()]
        patches += [patch.object(torch.backends.mps, "is_available", lambda: True)]
    else:
        cuda = random | {
            "is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: 1,
            "current_device": lambda: 0, "get_device_name": lambda device=None: "Pretended GPU",
            "get_rng_state_all": lambda: [pretended.generator.get_state()],
            "set_rng_state_all": lambda new: pretended.generator.set_state(new[0]) and None,
            "manual_seed_all": lambda seed: pretended.generator.manual_seed(seed) and None,
            "mem_get_info": lambda device=None: (2**31, 2**34), "max_memory_allocated": lambda device=None: 0,
            "memory_reserved": lambda device=None: 0, "memory_allocated": lambda device=None: 0,
            "reset_peak_memory_stats": lambda device=None: None, "is_current_stream_capturing": lambda: False,
            "_is_in_bad_fork": lambda: False, "device": lambda device: nullcontext(),
        }  # fmt: skip
        patches += [patch.object(torch.cuda, name, value) for name, value in cuda.items()]
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ))
        os.environ.pop("VAEKIT_DEVICE", None)  # it would name another device
        for each in patches:
            stack.enter_context(each)
        STATE = pretended
        try:
            with Functions(), Operations():
                yield pretended.device
        finally:
            STATE = None


if __name__ == "__main__":
    from tests.pretended_gpu import pretended_gpu as pretended  # the module that everything else imports, not this copy

    with pretended():
        runpy.run_path(sys.argv[1], run_name="__main__")
