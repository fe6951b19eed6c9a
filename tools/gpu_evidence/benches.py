"""Ours and the peers in one process: every accepted candidate of each problem, and what PyTorch has for it."""

import torch

import peers
from library import BF16, BOOL, F16, F32, I32, OUTPUT, WEIGHT, Refused
from measure import GraphTimer, HostTimer, in_turns, sets_for
from problem import fields, with_dtype

TORCH = {F32: torch.float32, BF16: torch.bfloat16, F16: torch.float16, I32: torch.int32, BOOL: torch.bool}
SAME3 = "kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1"


def cases():
    """(name, descriptor, dtypes): the shapes that the targets name, batch 1, 32 and 256 where there is one."""
    for size in (4096, 8192):
        yield f"GEMM {size}^3", f"fully_connected m={size} ic={size} oc={size} bias=0", ("bf16", "f16", "f32")
    yield "FC 128x768x3072", "fully_connected m=128 ic=768 oc=3072", ("bf16", "f32")
    yield "GEMV 4096^2", "fully_connected m=1 ic=4096 oc=4096", ("bf16", "f32")
    for c, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        for n in (1, 32, 256):
            yield (f"conv 3x3 {size}x{size}x{c} n{n}",
                   f"conv2d n={n} ih={size} iw={size} ic={c} oc={c} {SAME3} activation=relu", ("bf16",) if n > 1 else ("bf16", "f32"))
    for c, size in ((128, 56), (256, 28), (512, 14)):
        for n in (1, 32, 256):
            shape = f"n={n} ih={size} iw={size} ic={c} oc={c}"
            yield f"pointwise {size}x{size}x{c} n{n}", f"conv2d {shape} activation=relu", ("bf16",)
            yield (f"depthwise 3x3 {size}x{size}x{c} n{n}", f"conv2d {shape} groups={c} {SAME3} activation=relu",
                   ("bf16", "f32"))
            yield (f"dw_pw {size}x{size}x{c} n{n}",
                   f"separable_conv2d {shape} {SAME3} depthwise_activation=relu project_activation=relu", ("bf16",))
    for d in (64, 128, 256):
        for causal in ("none", "bottom_right"):
            for s, b in ((2048, 8), (8192, 2)):
                heads = 2048 // d
                yield (f"attention d{d} s{s} {causal}",
                       f"multi_head_attention batch={b} num_heads={heads} seqlen_q={s} seqlen_kv={s} head_dim={d} causal={causal}",
                       ("bf16",))
    yield ("decode b8 h32/8 s8192 d128",
           "multi_head_attention batch=8 num_heads=32 num_kv_heads=8 seqlen_q=1 seqlen_kv=8192 head_dim=128", ("bf16",))
    yield "decode b1 h16 s2048 d128", "multi_head_attention num_heads=16 seqlen_q=1 seqlen_kv=2048 head_dim=128", ("bf16",)
    for b, q, k, u in ((32, 512, 512, 512), (8, 50, 100, 512), (32, 1, 512, 512)):
        yield (f"additive b{b} q{q} t{k} u{u}",
               f"additive_attention batch={b} queries={q} keys={k} query_dim={u} key_dim={u} units={u}", ("f32", "bf16"))


def floor_us(cost, dtype, ceilings):
    """The largest of arithmetic, special functions and traffic over what this card was measured to reach. A formula that
    needs fewer special functions than the operator's definition may be below it."""
    rate = ceilings.get({"f32": "tf32"}.get(dtype, dtype), 1e12)
    return 1e6 * max(cost["flops"] / rate, cost["transcendentals"] / ceilings.get("special", 1e12),
                     (cost["weight_bytes"] + cost["activation_bytes"]) / ceilings.get("copy", 1e12))


class Bench:
    def __init__(self, library, device="cuda"):
        self.library, self.device = library, device
        self.cuda = device == "cuda"
        self.stream = torch.cuda.Stream() if self.cuda else None
        self.l2 = torch.cuda.get_device_properties(0).L2_cache_size if self.cuda else 1

    def tensors(self, slots, seed):
        generator = torch.Generator(self.device).manual_seed(seed)
        made = {}
        for s in slots:
            made[s.name] = torch.randn(s.shape, generator=generator, device=self.device, dtype=torch.float32).to(TORCH[s.dtype])
            if s.role == WEIGHT and len(s.shape) > 1:
                made[s.name] /= made[s.name][0].numel() ** 0.5
        return made

    def timer(self, calls):
        return GraphTimer(torch, self.stream, calls) if self.cuda else HostTimer(calls)

    def ours(self, desc, slots, sets):
        """{candidate: timer}, or the sentence with which it was refused."""
        timers, address = {}, self.stream.cuda_stream if self.cuda else None
        weights = {s: sets[0][s.name].cpu() for s in slots if s.role == WEIGHT}
        for name, refusal, predicted in self.library.candidates(desc):
            if refusal is not None:
                continue
            op = self.library.prepare(desc, {s: w.data_ptr() for s, w in weights.items()}, stream=address, implementation=name)
            bound = [op.bind({s: t[s.name].data_ptr() for s in slots if s.role != WEIGHT}) for t in sets]
            timers[name] = self.timer([lambda op=op, b=b: op.run(b) for b in bound]), predicted
        return timers

    def run(self, name, desc, dtype, ceilings, emit):
        desc = with_dtype(desc, dtype)
        slots = [s for s in self.library.slots(desc) if not s.optional]
        cost = self.library.cost(desc)
        count = sets_for(cost["activation_bytes"] + cost["weight_bytes"], self.l2) if self.cuda else 1
        sets = [self.tensors(slots, seed) for seed in range(count)]
        timers, predictions = {}, {}
        for candidate, (timer, predicted) in self.ours(desc, slots, sets).items():
            timers[candidate], predictions[candidate] = timer, predicted
        for peer in getattr(peers, desc.split()[0])(fields(desc), sets[0]):
            try:
                calls = [getattr(peers, desc.split()[0])(fields(desc), t)[peer] for t in sets]
                timers[peer] = self.timer(calls)
            except (RuntimeError, Refused) as error:  # a backend that does not take the shape
                emit({"case": name, "dtype": dtype, "desc": desc, "contender": peer, "absent": str(error).split("\n")[0][:200]})
        for contender, microseconds in in_turns(timers).items():
            emit({"case": name, "dtype": dtype, "desc": desc, "contender": contender, "us": round(microseconds, 3),
                  "floor_us": round(floor_us(cost, dtype, ceilings), 3), "sets": count,
                  **({"predicted_us": round(predictions[contender] / 1e3, 3)} if contender in predictions else {})})


def run(library, ceilings, emit, device="cuda", chosen=None):
    torch.backends.cudnn.benchmark = True
    bench = Bench(library, device)
    for name, desc, dtypes in chosen or cases():
        for dtype in dtypes:
            try:
                bench.run(name, desc, dtype, ceilings, emit)
            except (RuntimeError, Refused) as error:
                emit({"case": name, "dtype": dtype, "desc": desc, "failure": str(error).split("\n")[0][:300]})
            if device == "cuda":
                torch.cuda.empty_cache()
