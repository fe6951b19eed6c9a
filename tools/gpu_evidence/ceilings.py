"""What the card reaches: copies, PyTorch's matrix products, the cost of a launch in a graph; and, from its data sheet, the
rate of its special functions."""

import pathlib
import re

import torch

from measure import GraphTimer, in_turns

SPECIAL_FUNCTIONS = 16  # exp2, tanh, reciprocals per clock of a multiprocessor, since compute capability 7.0


def driver():
    """The kernel module's version, as its file words it: "NVRM version: ... Kernel Module  580.65.06  ..."."""
    try:
        text = pathlib.Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return "unknown"
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else "unknown"


def facts():
    p = torch.cuda.get_device_properties(0)
    return {"card": p.name, "capability": f"{p.major}.{p.minor}", "multiprocessors": p.multi_processor_count,
            "clock_hz": 1e3 * getattr(p, "clock_rate", 0),  # 0: a PyTorch that does not say
            "memory_bytes": p.total_memory, "l2_bytes": p.L2_cache_size, "driver": driver(), "torch": torch.__version__,
            "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}


def run(emit):
    """One record a ceiling: bytes or operations per second, or microseconds."""
    known = facts()
    emit({"facts": known})
    if known["clock_hz"]:
        emit({"ceiling": "special", "per_second": SPECIAL_FUNCTIONS * known["multiprocessors"] * known["clock_hz"]})
    stream = torch.cuda.Stream()
    a = torch.randn(1 << 29, device="cuda")
    b = torch.empty_like(a)
    copied = in_turns({"copy": GraphTimer(torch, stream, [lambda: b.copy_(a)])})["copy"]
    emit({"ceiling": "copy", "per_second": 2 * a.numel() * 4 / copied * 1e6})
    del a, b
    small = torch.zeros(32, device="cuda")
    emit({"ceiling": "launch_us", "value": in_turns({"launch": GraphTimer(torch, stream, [lambda: small.add_(1)])})["launch"]})
    n = 8192
    for name, dtype, tf32 in (("bf16", torch.bfloat16, False), ("f16", torch.float16, False), ("tf32", torch.float32, True),
                              ("f32", torch.float32, False)):
        x, y = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))

        def product(x=x, y=y, tf32=tf32):
            torch.backends.cuda.matmul.allow_tf32 = tf32
            return x @ y
        emit({"ceiling": name, "per_second": 2 * n**3 / in_turns({name: GraphTimer(torch, stream, [product])})[name] * 1e6})
