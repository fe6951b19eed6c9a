"""MNN in fp32 ("precision": "high"), from the ONNX graph through its converter; Winograd where it chooses it."""

import pathlib
import subprocess
import sys
import tempfile

import MNN
import numpy as np

from engines.onnx_graph import Graph


class Model:
    name = "MNN " + MNN.version()

    def __init__(self, problems, threads):
        if any(p.op == "multi_head_attention" for p in problems):
            raise NotImplementedError("MNN's multi-head attention is not set up here")
        self.graph = Graph(problems)
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "m.onnx").write_bytes(self.graph.model().SerializeToString())
            convert = pathlib.Path(sys.executable).parent / "mnnconvert"
            done = subprocess.run([str(convert), "-f", "ONNX", "--modelFile", f"{folder}/m.onnx", "--MNNModel",
                                   f"{folder}/m.mnn", "--bizCode", "x"], capture_output=True, text=True, check=False)
            if not (pathlib.Path(folder) / "m.mnn").exists():
                raise RuntimeError("mnnconvert: " + (done.stderr or done.stdout)[-200:])
            self.interpreter = MNN.Interpreter(f"{folder}/m.mnn")
        self.session = self.interpreter.createSession({"backend": "CPU", "numThread": threads, "precision": "high"})

    def bind(self, arena):
        inputs = self.interpreter.getSessionInputAll(self.session)
        for name, array in self.graph.feeds.items():
            array = arena.copy(array)
            tensor = MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)
            inputs[name].copyFrom(tensor)
        return lambda: self.interpreter.runSession(self.session)

    def output(self):
        y = self.interpreter.getSessionOutput(self.session, self.graph.outputs[-1])
        host = MNN.Tensor(y.getShape(), MNN.Halide_Type_Float, np.zeros(y.getShape(), np.float32),
                          MNN.Tensor_DimensionType_Caffe)
        y.copyToHostTensor(host)
        return self.graph.to_lamina(np.array(host.getData(), np.float32).reshape(y.getShape()))


def prepare(problems, threads, direct):
    if direct:
        raise NotImplementedError("MNN offers no way to keep it from Winograd")
    return Model(problems, threads)
