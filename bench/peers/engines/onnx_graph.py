"""Problems as ONNX graphs, for the engines that read them. Images are nchw there; feeds are made to match."""

import math

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from problems import (activation, additive_inputs, attention_inputs, connected_inputs, conv_steps, is_causal,
                      projection_inputs, uniform)

OPSET, MICROSOFT = 20, "com.microsoft"


class Graph:
    """Nodes, initializers and feeds (name -> array); the last of its outputs is the result."""

    def __init__(self, problems):
        self.nodes, self.constants, self.feeds, self.count, self.residual = [], {}, {}, 0, None
        self.to_lamina = lambda y: y
        self.shape = None  # of the last output
        self.outputs = []  # those that no layer reads, in order: without a reader an engine may leave a layer out
        x = None
        for problem in problems:
            before, self.read = x, False
            x = self.add(problem, before)
            if before is not None and not self.read:
                self.outputs.append(before)
        self.outputs.append(x)

    def node(self, op, inputs, **attributes):
        self.count += 1
        name = f"t{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, array):
        self.count += 1
        self.constants[f"c{self.count}"] = np.asarray(array)
        return f"c{self.count}"

    def feed(self, array, before=None):
        """The output before, where it has the wanted shape (layers of a network), else an input of the graph."""
        if before is not None and self.shape == array.shape:
            self.read = True
            return before
        name = f"x{len(self.feeds)}"
        self.feeds[name] = np.ascontiguousarray(array)
        return name

    def activate(self, x, act):
        kind, low, high = act
        if kind == "none":
            return x
        if kind == "clamp" and low == 0 and math.isinf(high):
            return self.node("Relu", [x])
        if kind == "clamp":
            return self.node("Clip", [x, self.constant(np.float32(low)), self.constant(np.float32(high))])
        if kind in ("gelu_erf", "gelu_tanh"):
            return self.node("Gelu", [x], approximate="tanh" if kind == "gelu_tanh" else "none")
        if kind == "tanh":
            return self.node("Tanh", [x])
        raise NotImplementedError(f"activation {kind} is not set up here")

    def finish(self, x, act, residual, shape):
        if residual == "before":
            x = self.node("Add", [x, self.feed(uniform(9, shape))])
        x = self.activate(x, act)
        if residual == "after":
            x = self.node("Add", [x, self.feed(uniform(9, shape))])
        self.shape = shape
        return x

    def add(self, p, before):
        return {"conv2d": self.convolution, "separable_conv2d": self.convolution, "fully_connected": self.connected,
                "multi_head_attention": self.attention, "additive_attention": self.additive}[p.op](p, before)

    def convolution(self, p, before):
        steps = conv_steps(p)
        first = steps[0]
        x = self.feed(uniform(1, (first.n, first.ih, first.iw, first.ic)).transpose(0, 3, 1, 2), before)
        for s in steps:
            inputs = [x, self.constant(np.ascontiguousarray(s.weights().transpose(0, 3, 1, 2)))]
            if s.bias:
                inputs.append(self.constant(s.bias_values()))
            x = self.node("Conv", inputs, strides=s.stride, pads=s.pads, dilations=s.dilation, group=s.groups,
                          kernel_shape=[s.kh, s.kw])
            x = self.finish(x, s.activation, s.residual, (s.n, s.oc, s.oh, s.ow))
        self.to_lamina = lambda y: y.transpose(0, 2, 3, 1)
        return x

    def connected(self, p, before):
        x, w, b = connected_inputs(p)
        inputs = [self.feed(x, before), self.constant(w)] + ([self.constant(b)] if b is not None else [])
        y = self.node("Gemm", inputs, transB=1)
        self.to_lamina = lambda y: y
        return self.finish(y, activation(p.text("activation")), p.text("residual"), (x.shape[0], w.shape[0]))

    def layer(self, p, before):
        """Self-attention with its four projections: [batch, rows, model_dim] in and out."""
        x, projections = projection_inputs(p)
        if p.int("projection_bias", 1) == 0:
            raise NotImplementedError("projections without bias are not set up here")
        flat = (x.shape[0] * x.shape[1], x.shape[2])
        x_name, heads, rows = self.feed(x.reshape(flat), before), p.int("num_heads", 1), x.shape[1]

        def project(name, index):
            w, b = projections[index]
            return self.node("Gemm", [name, self.constant(w), self.constant(b)], transB=1)

        def shaped(name, shape):
            return self.node("Reshape", [name, self.constant(np.array(shape, np.int64))])

        parts = [shaped(project(x_name, i), (x.shape[0], rows, -1)) for i in range(3)]
        extra = {"unidirectional": 1} if is_causal(p) else {}
        y = self.node("MultiHeadAttention", parts, domain=MICROSOFT, num_heads=heads, **extra)
        self.shape, self.to_lamina = flat, lambda y: y.reshape(x.shape)
        return project(shaped(y, (flat[0], -1)), 3)

    def attention(self, p, before):
        if p.int("projections"):
            return self.layer(p, before)
        q, k, v = attention_inputs(p)
        b, h, s, d = q.shape
        flat = [t.transpose(0, 2, 1, 3).reshape(b, -1, h * d) for t in (q, k, v)]  # [b, rows, heads * dim]
        extra = {"unidirectional": 1} if is_causal(p) else {}
        y = self.node("MultiHeadAttention", [self.feed(t) for t in flat], domain=MICROSOFT, num_heads=h, **extra)
        self.shape, self.to_lamina = None, lambda y: y.reshape(b, s, h, d).transpose(0, 2, 1, 3)
        return y

    def additive(self, p, _):
        query, keys, query_w, key_w, v = additive_inputs(p)
        projected = self.node("MatMul", [self.feed(query[:, :, None]), self.constant(np.ascontiguousarray(query_w.T))])
        prepared = self.feed((keys @ key_w.T)[:, None])  # [b, 1, t, units], beforehand
        inside = self.node("Tanh", [self.node("Add", [projected, prepared])])
        scores = self.node("MatMul", [inside, self.constant(v[:, None])])
        scores = self.node("Squeeze", [scores, self.constant(np.array([3], np.int64))])
        self.shape = None
        return self.node("MatMul", [self.node("Softmax", [scores], axis=2), self.feed(keys)])

    def model(self):
        def value(name, shape):
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        graph = helper.make_graph(self.nodes, "rows", [value(k, v.shape) for k, v in self.feeds.items()],
                                  [value(name, None) for name in self.outputs],
                                  [numpy_helper.from_array(v, k) for k, v in self.constants.items()])
        return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", OPSET),
                                                                     helper.make_opsetid(MICROSOFT, 1)])
