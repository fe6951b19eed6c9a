"""Prepared operators. One class has the mechanism; its five subclasses are names, and what their tensors are called."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike, fspath
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy

from . import _lamina
from ._lamina import Array, Context
from .problems import describe


class Tensor(Protocol):
    """What goes in: a NumPy array, a torch.Tensor, a lamina.Array, ..."""

    def __dlpack__(self, *, stream: Any = ...) -> Any: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


class Slot(NamedTuple):
    """A weight, input or output of a problem."""
    name: str
    dtype: str  # "f32"
    role: str  # "weight", "input" or "output"
    optional: bool
    shape: tuple[int, ...]


# NumPy has no bf16.
_NUMPY: dict[str, numpy.dtype[Any]] = {"f32": numpy.dtype("float32"), "f16": numpy.dtype("float16")}
Self = TypeVar("Self", bound="Operator")


class Operator:
    """A layer, prepared: checked, its implementation chosen, its weights packed (the caller's may be freed).

    desc: the descriptor, as text or as {field: value}; weights by name. Immutable: any number of threads may run it.
    Raises InvalidArgument with the rule that was broken, and NotBuilt with every candidate's reason where none accepts.
    """

    _name: ClassVar[str]
    _positional: ClassVar[tuple[str, ...]]  # inputs that a call takes without their names

    def __init__(self, desc: str | Mapping[str, Any], *, context: Context | None = None,
                 **weights: Tensor | None):
        text = desc if isinstance(desc, str) else describe(self._name, **desc)
        self._check(text)
        self._op = _lamina.Operator(text, weights, context or Context())

    def __call__(self, *inputs: Tensor | None, out: Tensor | None = None, returns: Sequence[str] = (),
                 **tensors: Tensor | int | None) -> Any:
        """The output, or a tuple of it and the optional outputs that `returns` names.

        Inputs come in order or by name. out: where the output is written; else it is a new dense array, NumPy's where
        the first input is, else a lamina.Array.
        """
        names, main = self._call
        if len(inputs) > len(names):
            raise TypeError(f"{type(self).__name__} takes {' '.join(names)} in order, got {len(inputs)} tensors")
        for name, value in zip(names, inputs):
            if tensors.get(name) is not None:
                raise TypeError(f"tensor {name} is given twice")
            tensors[name] = value
        if out is not None:
            tensors[main] = out
        for name in (main, *returns):
            if tensors.get(name) is None:
                tensors[name] = self._new(name, isinstance(tensors.get(names[0]), numpy.ndarray))
        self._op.run(tensors)
        return (tensors[main], *(tensors[name] for name in returns)) if returns else tensors[main]

    def run(self, **tensors: Tensor | int | None) -> None:
        """Computes the outputs that are given, by name as the inputs; allocates none."""
        self._op.run(tensors)

    def reshape(self: Self, **fields: Any) -> Self:
        """The same operator for other run-time sizes (batch, image, pads, rows, lengths, strides), in microseconds.

        It shares the packed weights. Raises InvalidArgument where another field differs.
        """
        return self._of(self._op.reshape(describe(self._op.desc, **fields)))

    def save_packed(self, path: str | PathLike[str]) -> None:
        """Writes the packed weights into a file, which load_packed maps in a later process instead of packing them.

        It must not change while an operator uses it. For backend "cpu".
        """
        self._op.save_packed(fspath(path))

    @classmethod
    def load_packed(cls: type[Self], path: str | PathLike[str], *, context: Context | None = None) -> Self:
        """The operator whose weights save_packed wrote; processes that load one file share its memory.

        Raises InvalidArgument for a file that was cut short or altered, or is of another machine or version.
        """
        return cls._of(_lamina.Operator.load_packed(fspath(path), context or Context()))

    def explain(self) -> str:
        """Every candidate with its predicted time or the reason of its refusal; * is this one."""
        return self._op.explain()

    @cached_property
    def tensors(self) -> dict[str, Slot]:
        """The weights, inputs and outputs by name, with their shapes."""
        return {name: Slot(name, dtype, role, optional, tuple(shape))
                for name, dtype, role, optional, shape in _lamina.tensors_of(self._op.desc)}

    @property
    def desc(self) -> str:
        """The descriptor's text, fields at their defaults left out."""
        return self._op.desc

    @property
    def implementation(self) -> str:
        """What runs, as "cpu/AVX3/implicit_gemm"."""
        return self._op.implementation

    @property
    def packed_bytes(self) -> int:
        """Memory that the packed weights take."""
        return self._op.packed_bytes

    @property
    def scratch_bytes(self) -> int:
        """Memory that a run needs, and takes from an arena of its thread."""
        return self._op.scratch_bytes

    def __repr__(self) -> str:
        return f"<lamina.{type(self).__name__} {self.desc!r} on {self.implementation}>"

    @classmethod
    def _check(cls, desc: str) -> None:
        if desc.split()[:1] != [cls._name]:
            raise _lamina.InvalidArgument(f"{desc}: {cls.__name__} takes problems of {cls._name}")

    @classmethod
    def _of(cls: type[Self], op: _lamina.Operator) -> Self:
        cls._check(op.desc)
        operator = object.__new__(cls)
        operator._op = op
        return operator

    @cached_property
    def _call(self) -> tuple[list[str], str]:
        """The inputs that a call takes in order, and the output that it gives."""
        outputs = [s.name for s in self.tensors.values() if s.role == "output" and not s.optional]
        return [name for name in self._positional if name in self.tensors], outputs[0]

    def _new(self, name: str, like_numpy: bool) -> numpy.ndarray | Array:
        slot = self.tensors.get(name)
        if slot is None or slot.role != "output":
            raise _lamina.InvalidArgument(f"{self.desc}: no output is called {name}")
        if like_numpy and slot.dtype in _NUMPY:
            return numpy.empty(slot.shape, _NUMPY[slot.dtype])
        return _lamina.empty(slot.shape, slot.dtype)


class Conv2d(Operator):
    """Convolution; weights w, bias. Called with x (and residual).

    Formula and fields: include/lamina/conv2d.h.
    """
    _name = "conv2d"
    _positional = ("x", "residual")


class SeparableConv2d(Operator):
    """Depthwise-separable convolution; weights expand_w, depthwise_w, project_w and their biases, those that the order
    has. Called with x (and residual).

    Formula and fields: include/lamina/separable_conv2d.h.
    """
    _name = "separable_conv2d"
    _positional = ("x", "residual")


class FullyConnected(Operator):
    """A fully connected layer; weights w, bias. Called with x (and residual).

    Formula and fields: include/lamina/fully_connected.h.
    """
    _name = "fully_connected"
    _positional = ("x", "residual")


class AdditiveAttention(Operator):
    """Bahdanau's attention; weights query_w, key_w, v, bias, g. Called with query, keys (and values); key_lengths, mask
    and prepared_keys by name; returns=("weights",) gives those too.

    Formula and fields: include/lamina/additive_attention.h.
    """
    _name = "additive_attention"
    _positional = ("query", "keys", "values")

    def prepare_keys(self, keys: Tensor, key_lengths: Tensor | None = None) -> Array:
        """Does once per sentence what depends on the keys alone; calls take it as prepared_keys.

        The results have the same bits as without. Not for backend "cuda".
        """
        return self._op.prepare_keys({"keys": keys, "key_lengths": key_lengths})


class MultiHeadAttention(Operator):
    """Scaled dot-product attention. Called with q, k, v; with projections, whose weights are wq, wk, wv, wo, bq, bk,
    bv, bo, with x (and memory). By name: key_lengths, mask, bias, alibi_slopes, k_cache, v_cache, position (an int).
    returns=("lse", "weights") gives those too.

    Formula and fields: include/lamina/multi_head_attention.h.
    """
    _name = "multi_head_attention"
    _positional = ("q", "k", "v", "x", "memory")
