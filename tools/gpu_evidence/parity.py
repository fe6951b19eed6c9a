"""Every operator, dtype and candidate against the reference, on edge shapes and random ones."""

import random

from library import Refused
from problem import Buffers, Problem, error_of, with_dtype

DTYPES = ("f32", "bf16", "f16")
# ||error|| / ||reference||. Products of f32 rounded to TF32 lose 2^-11 each; outputs rounded to bf16 2^-9, to f16 2^-12,
# and attention rounds its weights once more.
LIMITS = {"f32": 4e-6, "tf32": 2e-3, "bf16": 1.2e-2, "f16": 1.6e-3}

FIXED = """
fully_connected m=1 ic=1 oc=1
fully_connected m=1 ic=4096 oc=1000
fully_connected m=3 ic=513 oc=127 activation=gelu_erf
fully_connected m=130 ic=72 oc=264 activation=relu residual=before
fully_connected m=257 ic=1024 oc=520 bias=0
fully_connected m=64 ic=256 oc=128 x_stride=300 y_stride=136 weight_layout=io
fully_connected m=1000 ic=768 oc=3072 activation=silu
conv2d ih=1 iw=1 ic=1 oc=1
conv2d n=2 ih=14 iw=10 ic=64 oc=64 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 activation=relu
conv2d n=3 ih=15 iw=9 ic=24 oc=40 kh=3 kw=3 pad_top=2 pad_right=1 stride_h=2 stride_w=2
conv2d n=2 ih=17 iw=23 ic=120 oc=72 kh=5 kw=3 dilation_h=2 pad_left=3
conv2d n=2 ih=32 iw=32 ic=3 oc=32 kh=7 kw=7 stride_h=2 stride_w=2 pad_top=3 pad_left=3 pad_bottom=3 pad_right=3
conv2d n=2 ih=28 iw=28 ic=128 oc=256 residual=after activation=hardswish
conv2d n=2 ih=14 iw=14 ic=64 oc=96 groups=4 kh=3 kw=3 pad_top=1 pad_bottom=1
conv2d n=2 ih=13 iw=11 ic=32 oc=48 kh=3 kw=3 layout=nchw pad_top=1 pad_left=1
conv2d n=1 ih=9 iw=9 ic=16 oc=8 kh=3 kw=3 weight_layout=oihw x_stride=24 y_stride=20
conv2d n=8 ih=7 iw=7 ic=512 oc=512 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1
conv2d n=2 ih=28 iw=20 ic=96 oc=96 groups=96 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 activation=relu6
conv2d n=2 ih=27 iw=19 ic=40 oc=40 groups=40 kh=5 kw=5 stride_h=2 stride_w=2 pad_top=2 pad_left=2
conv2d n=1 ih=14 iw=14 ic=12 oc=36 groups=12 kh=7 kw=7 layout=nchw pad_top=3 pad_left=3 pad_bottom=3 pad_right=3
separable_conv2d n=2 ih=14 iw=12 ic=64 oc=128 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 depthwise_activation=relu6
separable_conv2d n=1 ih=29 iw=29 ic=72 oc=40 stride_h=2 stride_w=2 pad_top=1 pad_left=1 layout=nchw
separable_conv2d n=2 ih=14 iw=14 ic=32 oc=64 order=pw_dw pad_top=1 pad_left=1 pad_bottom=1 pad_right=1
separable_conv2d n=2 ih=14 iw=14 ic=24 hidden=144 oc=24 order=pw_dw_pw pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 residual=after
additive_attention batch=2 queries=3 keys=5 query_dim=7 key_dim=9 units=11
additive_attention batch=4 queries=70 keys=130 query_dim=64 key_dim=96 units=100 bias=1
additive_attention batch=8 queries=1 keys=513 query_dim=256 key_dim=256 units=256 normalized=1
additive_attention batch=3 queries=33 keys=64 query_dim=32 key_dim=32 units=48 value_dim=40 mask=1 mask_queries=33
multi_head_attention batch=2 num_heads=4 seqlen_q=33 seqlen_kv=65 head_dim=64
multi_head_attention batch=1 num_heads=8 num_kv_heads=2 seqlen_q=128 seqlen_kv=256 head_dim=128 causal=bottom_right
multi_head_attention batch=2 num_heads=2 seqlen_q=100 seqlen_kv=40 head_dim=80 causal=top_left
multi_head_attention batch=1 num_heads=2 seqlen_q=77 seqlen_kv=77 head_dim=40 value_dim=24 layout=bhsd mask=1
multi_head_attention batch=2 num_heads=4 seqlen_q=64 seqlen_kv=300 head_dim=256 window_left=50 window_right=3
multi_head_attention batch=2 num_heads=4 seqlen_q=31 seqlen_kv=200 head_dim=64 alibi=1 bias=1 softcap=20
multi_head_attention batch=4 num_heads=8 num_kv_heads=2 seqlen_q=1 seqlen_kv=2048 head_dim=128
multi_head_attention batch=2 num_heads=8 num_kv_heads=2 seqlen_q=1200 seqlen_kv=1500 head_dim=128 causal=bottom_right
multi_head_attention batch=9 num_heads=16 seqlen_q=130 seqlen_kv=700 head_dim=64 window_left=300 layout=bhsd
multi_head_attention batch=1 num_heads=3 seqlen_q=5 seqlen_kv=5 head_dim=1 value_dim=3
multi_head_attention batch=2 num_heads=4 seqlen_q=48 seqlen_kv=48 head_dim=32 projections=1 model_dim=128
multi_head_attention batch=2 num_heads=4 seqlen_q=20 seqlen_kv=50 head_dim=64 projections=1 model_dim=96 memory_dim=80
""".strip().split("\n")


def random_problems(count, seed):
    """Descriptors of random sizes, every operator in turn."""
    draw = random.Random(seed)
    size, pick = lambda most: draw.randint(1, most), draw.choice

    def window():
        k = pick((1, 2, 3, 5))
        pads = " ".join(f"pad_{side}={draw.randint(0, k)}" for side in ("top", "left", "bottom", "right"))
        return f"kh={k} kw={pick((1, k))} stride_h={size(2)} stride_w={size(2)} {pads}"

    makers = (
        lambda: f"fully_connected m={size(300)} ic={size(600)} oc={size(300)} bias={draw.randint(0, 1)}",
        lambda: f"conv2d n={size(3)} ih={5 + size(20)} iw={5 + size(20)} ic={8 * size(12)} oc={size(90)} {window()}",
        lambda: f"conv2d n={size(2)} ih={5 + size(20)} iw={5 + size(20)} ic={(c := size(70))} oc={c} groups={c} {window()}",
        lambda: f"separable_conv2d n={size(2)} ih={5 + size(15)} iw={5 + size(15)} ic={8 * size(12)} oc={size(90)} {window()}",
        lambda: f"additive_attention batch={size(4)} queries={size(80)} keys={size(200)} query_dim={size(64)} "
                f"key_dim={size(64)} units={size(128)}",
        lambda: f"multi_head_attention batch={size(2)} num_heads={2 * (h := size(2))} num_kv_heads={h} seqlen_q={size(150)} "
                f"seqlen_kv={size(200)} head_dim={8 * size(16)} causal={pick(('none', 'top_left', 'bottom_right'))}")
    return [makers[i % len(makers)]() for i in range(count)]


def limit_of(dtype, implementation):
    return LIMITS["tf32" if dtype == "f32" and implementation.endswith("tf32") else dtype]


def check(library, device, desc, seed, offset):
    """One record per candidate of one problem."""
    problem, dtype = Problem(library, desc, seed, optional=seed % 2 == 0), "f32"
    for word in desc.split():
        dtype = word[6:] if word.startswith("dtype=") else dtype
    want, records = problem.reference(), []
    for name, refusal, _ in library.candidates(desc):
        record = {"desc": desc, "implementation": name, "offset": offset, "seed": seed}
        records.append(record)
        if refusal is not None:
            record["refused"] = refusal
            continue
        try:
            weights, owners = problem.weights()
            op = library.prepare(desc, weights, stream=device.stream, implementation=name)
            del owners
            buffers = Buffers(device, problem, offset)
            bound = op.bind(buffers.addresses())
            op.run(bound)
            device.wait()
            got, fault = buffers.results()
            buffers.reset()
            op.run(bound)
            device.wait()
            again, _ = buffers.results()
        except Refused as refused:
            record["failure"] = str(refused)
            continue
        errors = {n: error_of(got[n], want[n]) for n in want}
        record["error"], record["limit"] = max(errors.values()), limit_of(dtype, name)
        if fault:
            record["failure"] = fault
        elif not record["error"] <= record["limit"]:
            record["failure"] = f"errors {errors} exceed {record['limit']}"
        elif any(got[n].tobytes() != again[n].tobytes() for n in want):
            record["failure"] = "a second run gives other bits: a race"
    return records


def run(library, device, emit, problems=None, dtypes=DTYPES):
    """Checks all; emit(record) is called for each candidate as soon as it is known."""
    problems = problems or FIXED + random_problems(40, seed=2026)
    for number, desc in enumerate(problems):
        for dtype in dtypes:
            # Odd ones lie one element off 16 bytes: what vector loads need must not be taken for granted.
            for record in check(library, device, with_dtype(desc, dtype), seed=number, offset=number % 2):
                emit(record)
