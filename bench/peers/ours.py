"""Lamina's side: `lamina bench` for times and percentages, the C interface for the error on the peers' inputs."""

import ctypes
import json
import subprocess
import tempfile

import numpy as np

from peers import ROOT, pinned
from problems import additive_inputs, attention_inputs, connected_inputs, conv_steps, uniform

PROGRAM = ROOT / "build" / "release" / "tools" / "lamina"
LIBRARY = ROOT / "build" / "release" / "kernels" / "liblamina.so"


def roofs(path):
    """Measures this machine once, for the percentages of all rows; the JSON of `lamina roof`."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([PROGRAM, "roof", "--save", path, "--json", file.name], check=True, capture_output=True)
        return json.load(file)


class Lamina:
    """Times rows in a process of its own each, pinned, as the peers' are."""

    def __init__(self, threads, isa, cpus, machine):
        # OpenMP's threads, on which most peers run, wait busily too.
        self.arguments = ["--threads", str(threads), "--spin", "--isa", isa, "--machine", str(machine)]
        self.cpus = cpus

    def ask(self, row, seconds, words, cold=False, variant="any"):
        """{"us", "implementation", "percent_of_roof", "roof"} or {"refused"}"""
        arguments = self.arguments + ["--accuracy", "strict" if variant == "direct" else "default"]
        if cold:
            arguments.append("--cold")
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            done = subprocess.run([PROGRAM, "bench", "--seconds", str(seconds), *arguments, "--json", file.name,
                                   *words], preexec_fn=pinned(self.cpus), capture_output=True, text=True,
                                  check=False)
            if done.returncode != 0:
                return {"row": row, "refused": done.stderr.strip()[-300:]}
            said = json.load(file)["benchmarks"][0]
        return {"row": row, "us": said["real_time"], "implementation": said["label"],
                "percent_of_roof": said["percent_of_roof"], "roof": said["roof"]}


class Tensor(ctypes.Structure):
    """lamina_tensor of include/lamina/c.h"""
    _fields_ = [("size", ctypes.c_size_t), ("name", ctypes.c_char_p), ("data", ctypes.c_void_p),
                ("dtype", ctypes.c_int32), ("device", ctypes.c_int32), ("role", ctypes.c_int32),
                ("optional", ctypes.c_int32), ("ndim", ctypes.c_int32), ("reserved", ctypes.c_int32),
                ("shape", ctypes.c_int64 * 6), ("strides", ctypes.c_int64 * 6)]


class Context(ctypes.Structure):
    """lamina_context of include/lamina/c.h"""
    _fields_ = [("size", ctypes.c_size_t), ("backend", ctypes.c_int32), ("isa", ctypes.c_int32),
                ("accuracy", ctypes.c_int32), ("reserved", ctypes.c_int32), ("pool", ctypes.c_void_p),
                ("stream", ctypes.c_void_p), ("machine", ctypes.c_char_p), ("implementation", ctypes.c_char_p)]


ISA = {"best": 0, "AVX2": 3, "AVX3": 4}


def tensors(arrays):
    """name -> float32 array, as the C interface takes them."""
    made = (Tensor * max(1, len(arrays)))()
    for t, (name, array) in zip(made, arrays.items()):
        t.size, t.name, t.data, t.ndim = ctypes.sizeof(Tensor), name.encode(), array.ctypes.data, array.ndim
        t.shape[:array.ndim] = array.shape
    return made


def named(p):
    """(weights, inputs, output's name and shape) of a problem, by the names of its C++ structs."""
    if p.op == "conv2d":
        s = conv_steps(p)[0]
        weights = {"w": s.weights()} | ({"bias": s.bias_values()} if s.bias else {})
        return weights, {"x": image(p, s)}, ("y", image_shape(p, s.n, s.oh, s.ow, s.oc))
    if p.op == "separable_conv2d":
        steps, weights = conv_steps(p), {}
        order = {"dw_pw": ("depthwise", "project"), "pw_dw": ("expand", "depthwise")}
        for name, s in zip(order.get(p.text("order", "dw_pw"), ("expand", "depthwise", "project")), steps):
            w = s.weights()
            weights[f"{name}_w"] = w[..., 0] if name == "depthwise" else w.reshape(s.oc, s.ic)
            if s.bias:
                weights[f"{name}_bias"] = s.bias_values()
        last = steps[-1]
        return weights, {"x": image(p, steps[0])}, ("y", image_shape(p, last.n, last.oh, last.ow, last.oc))
    if p.op == "fully_connected":
        x, w, b = connected_inputs(p)
        return {"w": w} | ({"bias": b} if b is not None else {}), {"x": x}, ("y", (x.shape[0], w.shape[0]))
    if p.op == "multi_head_attention":
        q, k, v = attention_inputs(p)
        return {}, {"q": q, "k": k, "v": v}, ("o", q.shape)
    query, keys, query_w, key_w, v = additive_inputs(p)
    return ({"query_w": query_w, "key_w": key_w, "v": v}, {"query": query, "keys": keys},
            ("context", (query.shape[0], query.shape[1], keys.shape[2])))


def image_shape(p, n, h, w, c):
    return (n, c, h, w) if p.planes else (n, h, w, c)


def image(p, s):
    x = uniform(1, (s.n, s.ih, s.iw, s.ic))
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if p.planes else x


def result(p, isa, strict):
    """Lamina's output of the peers' inputs, images as [n, h, w, c]; None where the C interface refuses it."""
    library = ctypes.CDLL(str(LIBRARY))
    weights, inputs, (name, shape) = named(p)
    y = np.zeros(shape, np.float32)
    context = Context(size=ctypes.sizeof(Context), isa=ISA[isa], accuracy=int(strict))
    op, text = ctypes.c_void_p(), str(p).encode()
    weights = {k: np.ascontiguousarray(v) for k, v in weights.items()}
    if library.lamina_prepare(text, tensors(weights), ctypes.c_size_t(len(weights)), ctypes.byref(context),
                              ctypes.byref(op)) != 0:
        return None
    given = inputs | {name: y}
    code = library.lamina_run(op, tensors(given), ctypes.c_size_t(len(given)), None, ctypes.c_size_t(0))
    library.lamina_destroy(op)
    if code != 0:
        return None
    return y.transpose(0, 2, 3, 1) if p.planes else y
