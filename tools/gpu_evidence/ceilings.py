"""What the card reaches: copies, PyTorch's matrix products, the cost of a launch in a graph."""

import torch

from measure import GraphTimer, in_turns


def facts():
    p = torch.cuda.get_device_properties(0)
    return {"card": p.name, "capability": f"{p.major}.{p.minor}", "multiprocessors": p.multi_processor_count,
            "memory_bytes": p.total_memory, "l2_bytes": p.L2_cache_size, "torch": torch.__version__,
            "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}


def run(emit):
    """One record a ceiling: bytes or operations per second, or microseconds."""
    emit({"facts": facts()})
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
