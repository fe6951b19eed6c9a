"""PyTorch: channels_last, and the fused operators that torch.compile emits, their weights reordered beforehand.

Images in nchw go to those operators as they are, or through channels_last and back: whichever is faster here.
"""

import math
import time

import numpy as np
import torch
import torch.nn.functional as F

from problems import (activation, additive_inputs, attention_inputs, connected_inputs, conv_steps, is_causal,
                      projection_inputs, uniform)

torch.set_grad_enabled(False)
POST = {"none": ("none", [], ""), "gelu_erf": ("gelu", [], "none"), "gelu_tanh": ("gelu", [], "tanh"),
        "tanh": ("tanh", [], "")}


def post(act):
    """(name, numbers, algorithm) by which oneDNN's fused operators know an activation."""
    kind, low, high = act
    if kind == "clamp":
        return ("relu", [], "") if low == 0 and math.isinf(high) else ("hardtanh", [low, high], "")
    if kind not in POST:
        raise NotImplementedError(f"activation {kind} is not set up here")
    return POST[kind]


class Model:
    """Tensors by name in self.tensors, placed anew by bind; self.body runs on them."""
    name = "torch " + torch.__version__.split("+")[0]

    def __init__(self, problems, threads):
        torch.set_num_threads(threads)
        self.inputs, self.layers, self.shape = [], [], None
        self.to_lamina = lambda y: y
        for problem in problems:
            {"conv2d": self.convolution, "separable_conv2d": self.convolution, "fully_connected": self.connected,
             "multi_head_attention": self.attention, "additive_attention": self.additive}[problem.op](problem)

    def layer(self, arrays, body, shape):
        """body(*tensors) -> tensor; the first tensor is the output before, where that has its shape."""
        follows = self.shape is not None and tuple(arrays[0].shape) == self.shape
        self.layers.append((len(self.inputs), len(arrays), follows, body))
        self.inputs += arrays
        self.shape = shape

    @staticmethod
    def fused_steps(steps, memory_format):
        """body(x, *residual) of the steps, x in the memory format for which the weights are packed."""
        parts = []
        for s in steps:
            if s.pads[:2] != s.pads[2:]:
                raise NotImplementedError("uneven pads are not set up here")
            w = torch.from_numpy(s.weights()).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
            packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
                w.to_mkldnn(), list(s.pads[:2]), list(s.stride), list(s.dilation), s.groups, [s.n, s.ic, s.ih, s.iw])
            bias = torch.from_numpy(s.bias_values()) if s.bias else None
            parts.append((s, packed, bias, post(s.activation)))

        def body(x, *residual):
            for s, packed, bias, act in parts:
                if s.residual == "before":
                    x = torch.ops.mkldnn._convolution_pointwise.binary(
                        x, residual[0], packed, bias, s.pads[:2], s.stride, s.dilation, s.groups, "add", 1.0,
                        None if act[0] == "none" else act[0], act[1], act[2])
                else:
                    x = torch.ops.mkldnn._convolution_pointwise(x, packed, bias, s.pads[:2], s.stride, s.dilation,
                                                                s.groups, *act)
                    if s.residual == "after":
                        x = x + residual[0]
            return x

        return body

    def convolution(self, p):
        steps = conv_steps(p)
        first, last, body = steps[0], steps[-1], self.fused_steps(steps, torch.channels_last)
        arrays = [uniform(1, (first.n, first.ih, first.iw, first.ic)).transpose(0, 3, 1, 2)]
        if p.planes:
            arrays, body = [np.ascontiguousarray(arrays[0])], self.in_planes(steps, body, arrays[0])
        if last.residual != "none":
            arrays.append(uniform(9, (last.n, last.oh, last.ow, last.oc)).transpose(0, 3, 1, 2))
        self.layer(arrays, body, (last.n, last.oc, last.oh, last.ow))
        self.to_lamina = lambda y: y.permute(0, 2, 3, 1)

    def in_planes(self, steps, channels_last, x):
        """A body that takes and gives nchw: the steps' own, or one through channels_last, whichever is faster here."""
        if steps[-1].residual != "none":
            raise NotImplementedError("a residual in nchw is not set up here")
        own = self.fused_steps(steps, torch.contiguous_format)

        def through(x):
            return channels_last(x.contiguous(memory_format=torch.channels_last)).contiguous()

        x = torch.from_numpy(np.ascontiguousarray(x))
        return min((own, through), key=lambda f: min(self.once(f, x) for _ in range(4)))

    def connected(self, p):
        x, w, b = connected_inputs(p)
        w, b = torch.from_numpy(w), torch.from_numpy(b) if b is not None else None
        packed = torch.ops.mkldnn._reorder_linear_weight(w, x.shape[0])
        act, after = post(activation(p.text("activation"))), p.text("residual") == "after"
        if p.text("residual") == "before":
            raise NotImplementedError("a residual before the activation is not set up here")

        def fused(x, *residual):
            y = torch.ops.mkldnn._linear_pointwise(x, packed, b, *act)
            return y + residual[0] if after else y

        def plain(x):
            return F.linear(x, w, b)

        body = fused
        if act[0] == "none" and not after:  # whichever of the two is faster here
            body = min((fused, plain), key=lambda f: min(self.once(f, torch.from_numpy(x)) for _ in range(4)))
        arrays = [x] + ([uniform(9, (x.shape[0], w.shape[0]))] if after else [])
        self.layer(arrays, body, (x.shape[0], w.shape[0]))
        self.to_lamina = lambda y: y

    @staticmethod
    def once(body, x):
        start = time.perf_counter()
        body(x)
        return time.perf_counter() - start

    def attention(self, p):
        causal = is_causal(p)
        if p.int("projections"):
            x, projections = projection_inputs(p)
            heads, parts = p.int("num_heads", 1), [tuple(torch.from_numpy(t) for t in pair) for pair in projections]

            def body(flat):
                x_3d = flat.view(x.shape)
                q, k, v = (F.linear(x_3d, w, b).unflatten(-1, (heads, -1)).transpose(1, 2) for w, b in parts[:3])
                y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
                return F.linear(y.transpose(1, 2).flatten(2), *parts[3]).view(flat.shape)

            flat = x.reshape(-1, x.shape[2])
            self.layer([flat], body, flat.shape)
            return
        arrays = list(attention_inputs(p))
        self.layer(arrays, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal), arrays[0].shape)

    def additive(self, p):
        query, keys, query_w, key_w, v = additive_inputs(p)
        wq, v = torch.from_numpy(query_w.T.copy()), torch.from_numpy(v)

        def body(query, prepared, keys):
            inside = (query @ wq)[:, :, None] + prepared[:, None]
            return torch.softmax(inside.tanh_() @ v, -1) @ keys

        self.layer([query, keys @ key_w.T, keys], body, None)

    def bind(self, arena):
        def place(array):
            if array.ndim == 4 and not array.flags.c_contiguous:  # nchw as a view of nhwc: channels_last
                return torch.from_numpy(arena.copy(array.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)
            return torch.from_numpy(arena.copy(array))

        tensors = [place(array) for array in self.inputs]

        def run():
            y = None
            for begin, count, follows, body in self.layers:
                given = tensors[begin:begin + count]
                if follows:
                    given[0] = y
                y = body(*given)
            self.y = y

        return run

    def output(self):
        return self.to_lamina(self.y).contiguous().numpy()


def prepare(problems, threads, direct):
    del direct  # its convolutions always are
    return Model(problems, threads)
