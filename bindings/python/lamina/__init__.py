"""Lamina: kernels for the layers that make neural networks efficient.

Functions compute a layer at once; classes prepare one (check, choose an implementation, pack the weights) and then run
it any number of times, from any number of threads, without the GIL.

    conv = lamina.Conv2d("conv2d ih=56 iw=56 ic=64 oc=64 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1",
                         w=w, bias=b)
    y = conv(x)

Tensors are NumPy arrays or anything with __dlpack__ (PyTorch's, JAX's, lamina.Array), never copied: slices with strides
are fine, and what cannot be read as it lies is refused. Results are new NumPy arrays where the first input is one, else
lamina.Array, which any library takes by its from_dlpack.
"""

from ._lamina import (Array, Context, DeviceError, Error, InternalError, InvalidArgument, NotBuilt, OutOfMemory,
                      UnsupportedHardware, build_info, empty, from_dlpack)
from .functions import additive_attention, conv2d, fully_connected, multi_head_attention, separable_conv2d
from .operators import (AdditiveAttention, Conv2d, FullyConnected, MultiHeadAttention, Operator, SeparableConv2d, Slot,
                        Tensor)
from .problems import Candidate, Cost, candidates, cost, describe, explain

__version__ = build_info()["version"]
__all__ = [
    "AdditiveAttention", "Array", "Candidate", "Context", "Conv2d", "Cost", "DeviceError", "Error", "FullyConnected",
    "InternalError", "InvalidArgument", "MultiHeadAttention", "NotBuilt", "Operator", "OutOfMemory", "SeparableConv2d",
    "Slot", "Tensor", "UnsupportedHardware", "additive_attention", "build_info", "candidates", "conv2d", "cost",
    "describe", "empty", "explain", "from_dlpack", "fully_connected", "multi_head_attention", "separable_conv2d",
    "show_config"
]

# Users know one module: messages and reprs should say lamina.InvalidArgument.
for _public in (Array, Context, DeviceError, Error, InternalError, InvalidArgument, NotBuilt, OutOfMemory,
                UnsupportedHardware):
    _public.__module__ = "lamina"


def show_config() -> None:
    """Prints what this build has and what this machine offers: build_info(), a line each."""
    for name, value in build_info().items():
        print(f"{name}: {' '.join(value) if isinstance(value, list) else value}")
