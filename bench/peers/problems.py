"""The rows to time: descriptors as in bench/suite.txt and bench/networks/*.txt, their inputs, their steps.

Layouts are Lamina's (include/lamina/*.h): images [n, h, w, c], convolution weights [oc, kh, kw, ic / groups], fully
connected weights [oc, ic], attention [batch, heads, rows, dim]. With layout=nchw an engine gets the same image as
[n, c, h, w] and gives such a one back; results are compared as [n, h, w, c] all the same.
"""

import dataclasses
import math
import pathlib
import re

import numpy as np

from peers import ROOT


@dataclasses.dataclass
class Problem:
    """One descriptor; absent fields take the defaults of the operator's header."""
    op: str
    fields: dict
    layer: bool = False  # of a network: weights are scaled so that values neither grow nor vanish

    def int(self, name, otherwise=0):
        return int(self.fields.get(name, otherwise))

    def text(self, name, otherwise="none"):
        return self.fields.get(name, otherwise)

    def __str__(self):
        return " ".join([self.op] + [f"{k}={v}" for k, v in self.fields.items()])

    @property
    def planes(self):
        """Whether images are [n, c, h, w]."""
        return self.text("layout") == "nchw"

    def in_planes(self):
        return dataclasses.replace(self, fields=self.fields | {"layout": "nchw"})

    def weight_scale(self, terms):
        return 1 / math.sqrt(terms) if self.layer else 1.0


@dataclasses.dataclass
class Conv:
    """A convolution, or a step of a separable one; seed is that of its weights, seed + 1 that of its bias."""
    n: int
    ih: int
    iw: int
    ic: int
    oc: int
    kh: int
    kw: int
    stride: tuple
    dilation: tuple
    pads: tuple  # top, left, bottom, right
    groups: int
    bias: bool
    activation: tuple  # kind, alpha, beta
    residual: str
    seed: int
    scale: float

    @property
    def oh(self):
        return (self.ih + self.pads[0] + self.pads[2] - self.dilation[0] * (self.kh - 1) - 1) // self.stride[0] + 1

    @property
    def ow(self):
        return (self.iw + self.pads[1] + self.pads[3] - self.dilation[1] * (self.kw - 1) - 1) // self.stride[1] + 1

    def weights(self):
        """[oc, kh, kw, ic / groups]"""
        shape = (self.oc, self.kh, self.kw, self.ic // self.groups)
        return uniform(self.seed, shape, self.scale)

    def bias_values(self):
        """[oc], or None"""
        return uniform(self.seed + 1, (self.oc,)) if self.bias else None


def parse(text):
    words = text.split()
    return Problem(words[0], dict(word.split("=", 1) for word in words[1:]))


def read_list(path):
    """[(name, count, Problem)] of a suite or a network; lines of `extra` and `scaling` are none of ours."""
    layers = []
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        match = re.match(r"([\w.]+)(?: x(\d+))?: (.*)", line)
        if match:
            layers.append((match[1], int(match[2] or 1), parse(match[3])))
    return layers


def suite():
    return {name: problem for name, _, problem in read_list(ROOT / "bench" / "suite.txt")}


def network(name):
    """The layers in order, each as often as it stands in the network."""
    layers = []
    for _, count, problem in read_list(ROOT / "bench" / "networks" / f"{name}.txt"):
        layers += [dataclasses.replace(problem, layer=True)] * count
    return layers


def networks():
    return sorted(path.stem for path in (ROOT / "bench" / "networks").glob("*.txt"))


def activation(text):
    """("clamp", 0.0, 6.0) of "clamp(0,6)"; relu and relu6 are told as the clamps that they are."""
    if text == "relu":
        return "clamp", 0.0, math.inf
    if text == "relu6":
        return "clamp", 0.0, 6.0
    kind, _, arguments = text.partition("(")
    numbers = [float(a) for a in arguments.rstrip(")").split(",") if a] + [0.0, 0.0]
    return kind, numbers[0], numbers[1]


def conv_steps(p):
    """The convolutions of a conv2d or a separable_conv2d, in order."""
    pads = tuple(p.int(f"pad_{side}") for side in ("top", "left", "bottom", "right"))
    k = 1 if p.op == "conv2d" else 3
    conv = Conv(p.int("n", 1), p.int("ih"), p.int("iw"), p.int("ic"), p.int("oc"), p.int("kh", k), p.int("kw", k),
                (p.int("stride_h", 1), p.int("stride_w", 1)), (p.int("dilation_h", 1), p.int("dilation_w", 1)), pads,
                p.int("groups", 1), p.int("bias", 1) != 0, activation(p.text("activation")), p.text("residual"), 2, 1)
    if p.op == "conv2d":
        return [dataclasses.replace(conv, scale=p.weight_scale(conv.kh * conv.kw * conv.ic // conv.groups))]

    def pointwise(before, ic, oc, name, seed):
        return Conv(conv.n, before[0], before[1], ic, oc, 1, 1, (1, 1), (1, 1), (0, 0, 0, 0), 1,
                    p.int(f"{name}_bias", 1) != 0, activation(p.text(f"{name}_activation")), "none", seed,
                    p.weight_scale(ic))

    order, multiplier, steps, channels = p.text("order", "dw_pw"), p.int("depth_multiplier", 1), [], conv.ic
    if order != "dw_pw":
        hidden = conv.oc // multiplier if order == "pw_dw" else p.int("hidden")
        steps.append(pointwise((conv.ih, conv.iw), channels, hidden, "expand", 6))
        channels = hidden
    depthwise = dataclasses.replace(
        conv, ic=channels, groups=channels, oc=channels * multiplier, bias=p.int("depthwise_bias", 1) != 0,
        activation=activation(p.text("depthwise_activation")), residual="none",
        scale=p.weight_scale(conv.kh * conv.kw))
    steps.append(depthwise)
    if order != "pw_dw":
        steps.append(pointwise((depthwise.oh, depthwise.ow), depthwise.oc, conv.oc, "project", 4))
    steps[-1] = dataclasses.replace(steps[-1], residual=conv.residual)
    return steps


def uniform(seed, shape, scale=1.0):
    """float32 values in (-1, 1) times scale: 24 bits of SplitMix64 of a counter, as Uniform in protocol.cc."""
    count = math.prod(shape)
    with np.errstate(over="ignore"):
        z = (np.uint64(seed) << np.uint64(32)) + np.arange(1, count + 1, dtype=np.uint64)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    values = (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return (values * np.float32(scale)).reshape(shape)


def attention_inputs(p):
    """q, k, v: [batch, heads, rows, head_dim]"""
    if p.int("projections") or p.text("layout", "bshd") != "bhsd":
        raise NotImplementedError("attention in another layout than bhsd is not set up here")
    b, h, d = p.int("batch", 1), p.int("num_heads", 1), p.int("head_dim")
    sq, skv = p.int("seqlen_q"), p.int("seqlen_kv")
    return uniform(1, (b, h, sq, d)), uniform(2, (b, h, skv, d)), uniform(3, (b, h, skv, d))


def projection_inputs(p):
    """Self-attention with projections: x [batch, rows, model_dim], and [(w [oc, ic], bias [oc])] of q, k, v, output"""
    if p.int("memory_dim") or p.int("num_kv_heads") or p.int("seqlen_q") != p.int("seqlen_kv"):
        raise NotImplementedError("attention with projections is set up for plain self-attention alone")
    d, inside = p.int("model_dim"), p.int("num_heads", 1) * p.int("head_dim")
    shapes = [(inside, d)] * 3 + [(d, inside)]
    return (uniform(1, (p.int("batch", 1), p.int("seqlen_q"), d)),
            [(uniform(11 + 2 * i, shape, p.weight_scale(shape[1])), uniform(12 + 2 * i, shape[:1]))
             for i, shape in enumerate(shapes)])


def is_causal(p):
    return p.text("causal") != "none"


def additive_inputs(p):
    """query [b, q, query_dim], keys [b, t, key_dim], query_w [units, query_dim], key_w [units, key_dim], v [units]"""
    b, u = p.int("batch", 1), p.int("units")
    return (uniform(1, (b, p.int("queries", 1), p.int("query_dim"))), uniform(2, (b, p.int("keys"), p.int("key_dim"))),
            uniform(3, (u, p.int("query_dim"))), uniform(4, (u, p.int("key_dim"))), uniform(5, (u,)))


def connected_inputs(p):
    """x [m, ic], w [oc, ic], bias [oc] or None"""
    m, ic, oc = p.int("m", 1), p.int("ic"), p.int("oc")
    return (uniform(1, (m, ic)), uniform(2, (oc, ic), p.weight_scale(ic)),
            uniform(3, (oc,)) if p.int("bias", 1) else None)
