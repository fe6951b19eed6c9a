"""The operators in NumPy and float64, written from their formulas and from nothing else; and inputs."""

import math

import numpy as np

ACTIVATIONS = {
    None: lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "relu6": lambda z: np.clip(z, 0, 6),
    "clamp(-1,2)": lambda z: np.clip(z, -1, 2),
    "leaky(0.1)": lambda z: np.where(z >= 0, z, 0.1 * z),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "gelu_erf": lambda z: z / 2 * (1 + np.vectorize(math.erf, otypes=[float])(z / math.sqrt(2))),
    "tanh": np.tanh,
}


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def integers(*shape, seed=0):
    """Small enough for every sum to be exact in float32, in any order."""
    return np.random.default_rng([seed, *shape]).integers(-4, 5, shape).astype(np.float32)


def conv2d(x, w, bias=None, stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    """x [n, ih, iw, ic], w [oc, kh, kw, ic / groups]; pads top, left, bottom, right."""
    x, w = np.float64(x), np.float64(w)
    top, left, bottom, right = pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    oc, kh, kw, per_group = w.shape
    oh = (x.shape[1] - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    ow = (x.shape[2] - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    y = np.zeros((x.shape[0], oh, ow, oc))
    for i in range(kh):
        for j in range(kw):
            rows, columns = i * dilation[0], j * dilation[1]
            tap = x[:, rows:rows + oh * stride[0]:stride[0], columns:columns + ow * stride[1]:stride[1]][:, :oh, :ow]
            for o in range(oc):
                g = o // (oc // groups)
                y[..., o] += tap[..., g * per_group:(g + 1) * per_group] @ w[o, i, j]
    return y if bias is None else y + np.float64(bias)


def pointwise(x, w, bias=None):
    return conv2d(x, w[:, None, None, :], bias)


def depthwise(x, w, bias=None, **window):
    """w [channels * multiplier, kh, kw]."""
    return conv2d(x, w[..., None], bias, groups=x.shape[-1], **window)


def fully_connected(x, w, bias=None):
    y = np.float64(x) @ np.float64(w).T
    return y if bias is None else y + np.float64(bias)


def softmax(s):
    """Over the last axis, where -inf is not kept; zeros where nothing is."""
    top = np.max(s, axis=-1, keepdims=True)
    e = np.exp(s - np.where(np.isfinite(top), top, 0))
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def additive_attention(query, keys, query_w, key_w, v, bias=0, g=None, values=None, lengths=None, mask=True):
    """The contexts and the weights."""
    query, keys, v = np.float64(query), np.float64(keys), np.float64(v)
    if g is not None:
        v = g * v / np.linalg.norm(v)
    s = np.tanh((query @ query_w.T)[:, :, None] + (keys @ key_w.T)[:, None] + bias) @ v
    keep = np.broadcast_to(mask, s.shape)
    if lengths is not None:
        keep = keep & (np.arange(keys.shape[1]) < np.reshape(lengths, (-1, 1, 1)))
    weights = softmax(np.where(keep, s, -np.inf))
    return weights @ (keys if values is None else np.float64(values)), weights


def multi_head_attention(q, k, v, causal="none", window=(-1, -1), scale=None, softcap=None, lengths=None, mask=True,
                         bias=0, slopes=None):
    """q [batch, heads, seqlen_q, dim], k and v [batch, kv_heads, seqlen_kv, ..]; the output, lse and weights."""
    q, k, v = (np.float64(t) for t in (q, k, v))
    k, v = (np.repeat(t, q.shape[1] // k.shape[1], axis=1) for t in (k, v))
    rows, columns = q.shape[2], k.shape[2]
    s = q @ np.swapaxes(k, 2, 3) * (scale or 1 / math.sqrt(q.shape[3]))
    if softcap:
        s = softcap * np.tanh(s / softcap)
    length = np.reshape([columns] * len(q) if lengths is None else lengths, (-1, 1, 1, 1))
    i = np.arange(rows)[:, None] + (length - rows if causal == "bottom_right" else 0)
    j = np.arange(columns)
    s = s + bias + (0 if slopes is None else np.reshape(slopes, (-1, 1, 1)) * (j - i))
    keep = (j < length) & np.broadcast_to(mask, s.shape)
    if causal != "none":
        keep = keep & (j <= i)
    if window[0] >= 0:
        keep = keep & (j >= i - window[0])
    if window[1] >= 0:
        keep = keep & (j <= i + window[1])
    s = np.where(keep, s, -np.inf)
    with np.errstate(divide="ignore"):
        lse = np.log(np.exp(s).sum(axis=-1))
    weights = softmax(s)
    return weights @ v, lse, weights
