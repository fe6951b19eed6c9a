"""The error of a result, in the unit of docs/numerics.md: the largest e / (u sqrt(K) S) over some of the outputs.

u = 2^-24, K the terms of a sum, S the sum of their absolute values; references are computed in double precision from
the same inputs. Only a sample of the outputs is compared, the same for every engine, because a reference of all would
take longer than the timing.
"""

import numpy as np

from problems import additive_inputs, attention_inputs, connected_inputs, conv_steps, is_causal, uniform

U = 2.0**-24
PIXELS, ELEMENTS, ROWS = 48, 512, 12  # of an image, of a matrix, of an attention


def clamp(y, activation):
    kind, low, high = activation
    if kind == "none":
        return y
    if kind == "clamp":
        return np.clip(y, low, high)
    raise NotImplementedError(f"no reference of {kind}")


def largest(y, reference, magnitude, terms):
    """Not finite where the result is not."""
    ratio = np.abs(y.astype(np.float64) - reference) / (U * np.sqrt(terms) * magnitude)
    return float(np.max(ratio)) if np.isfinite(y).all() else float("inf")


class Pixels:
    """Values [oc] and magnitudes [oc] of single output pixels, through the steps before."""

    def __init__(self, steps):
        self.steps = steps
        first = steps[0]
        self.x = uniform(1, (first.n, first.ih, first.iw, first.ic)).astype(np.float64)
        self.w = [s.weights().astype(np.float64) for s in steps]
        self.b = [s.bias_values().astype(np.float64) if s.bias else np.zeros(s.oc) for s in steps]

    def at(self, index, n, oh, ow):
        s, w = self.steps[index], self.w[index]
        total, magnitude = self.b[index].copy(), np.abs(self.b[index])
        per_group = s.oc // s.groups
        for kh in range(s.kh):
            for kw in range(s.kw):
                h = oh * s.stride[0] - s.pads[0] + kh * s.dilation[0]
                v = ow * s.stride[1] - s.pads[1] + kw * s.dilation[1]
                if not (0 <= h < s.ih and 0 <= v < s.iw):
                    continue
                x, size = self.below(index, n, h, v)
                tap = w[:, kh, kw, :]  # [oc, ic / groups]
                if s.groups > 1:
                    x = np.repeat(x.reshape(s.groups, -1), per_group, axis=0)
                    size = np.repeat(size.reshape(s.groups, -1), per_group, axis=0)
                    total += (tap * x).sum(axis=1)
                    magnitude += (np.abs(tap) * size).sum(axis=1)
                else:
                    total += tap @ x
                    magnitude += np.abs(tap) @ size
        return clamp(total, s.activation), magnitude

    def below(self, index, n, h, w):
        if index > 0:
            return self.at(index - 1, n, h, w)
        x = self.x[n, h, w]
        return x, np.abs(x)


def convolution_error(p, y):
    steps = conv_steps(p)
    last, rng, pixels = steps[-1], np.random.default_rng(0), Pixels(steps)
    if last.residual != "none":
        raise NotImplementedError("no reference of a residual")
    y = y.reshape(last.n, last.oh, last.ow, last.oc)
    terms = sum(s.kh * s.kw * s.ic // s.groups + 1 for s in steps)
    worst = 0.0
    for _ in range(PIXELS):
        n, h, w = rng.integers(last.n), rng.integers(last.oh), rng.integers(last.ow)
        reference, magnitude = pixels.at(len(steps) - 1, n, h, w)
        worst = max(worst, largest(y[n, h, w], reference, magnitude, terms))
    return worst


def connected_error(p, y):
    x, w, b = connected_inputs(p)
    y, rng = y.reshape(x.shape[0], w.shape[0]), np.random.default_rng(0)
    m, oc = rng.integers(x.shape[0], size=ELEMENTS), rng.integers(w.shape[0], size=ELEMENTS)
    products = x[m].astype(np.float64) * w[oc]
    bias = b[oc].astype(np.float64) if b is not None else np.zeros(ELEMENTS)
    reference = clamp(products.sum(axis=1) + bias, ("none", 0, 0))
    return largest(y[m, oc], reference, np.abs(products).sum(axis=1) + np.abs(bias), x.shape[1] + 1)


def softmax(s):
    e = np.exp(s - s.max())
    return e / e.sum()


def attention_error(p, y):
    """S = sum p |v| (1 + 2 max_j sum |q||k| / sqrt(d)): an error of a score is one of its weight's logarithm."""
    q, k, v = (t.astype(np.float64) for t in attention_inputs(p))
    y, rng, worst = y.reshape(q.shape), np.random.default_rng(0), 0.0
    scale = 1 / np.sqrt(q.shape[3])
    for _ in range(ROWS):
        b, h, i = (rng.integers(n) for n in q.shape[:3])
        keys = i + 1 if is_causal(p) else k.shape[2]
        weights = softmax(k[b, h, :keys] @ q[b, h, i] * scale)
        sizes = np.abs(k[b, h, :keys]) @ np.abs(q[b, h, i]) * scale
        magnitude = weights @ np.abs(v[b, h, :keys]) * (1 + 2 * sizes.max())
        worst = max(worst, largest(y[b, h, i], weights @ v[b, h, :keys], magnitude, q.shape[3] + keys))
    return worst


def additive_error(p, y):
    """S as for attention_error, the size of a score being sum |v| (1 + sum |query_w||query| + sum |key_w||key|)."""
    query, keys, query_w, key_w, v = (t.astype(np.float64) for t in additive_inputs(p))
    y, rng, worst = y.reshape(query.shape[0], query.shape[1], keys.shape[2]), np.random.default_rng(0), 0.0
    for _ in range(ROWS):
        b, i = rng.integers(query.shape[0]), rng.integers(query.shape[1])
        inside = keys[b] @ key_w.T + query_w @ query[b, i]  # [t, units]
        sizes = np.abs(keys[b]) @ np.abs(key_w).T + np.abs(query_w) @ np.abs(query[b, i])
        weights = softmax(np.tanh(inside) @ v)
        score_size = ((1 + sizes) @ np.abs(v)).max()
        terms = query.shape[2] + keys.shape[2] + v.size + keys.shape[1]
        worst = max(worst, largest(y[b, i], weights @ keys[b], weights @ np.abs(keys[b]) * (1 + 2 * score_size), terms))
    return worst


def error(p, y):
    """The largest e / (u sqrt(K) S) of the result y of problem p; None where there is no reference."""
    functions = {"conv2d": convolution_error, "separable_conv2d": convolution_error,
                 "fully_connected": connected_error, "multi_head_attention": attention_error,
                 "additive_attention": additive_error}
    try:
        return functions[p.op](p, y)
    except NotImplementedError:
        return None
