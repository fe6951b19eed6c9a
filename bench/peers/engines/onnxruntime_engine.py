"""ONNX Runtime: one graph, its weights packed when the session is made, tensors bound to the caller's memory."""

import numpy as np
import onnxruntime

from engines.onnx_graph import Graph


class Model:
    name = "onnxruntime " + onnxruntime.__version__

    def __init__(self, problems, threads):
        self.graph = Graph(problems)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(self.graph.model().SerializeToString(), options,
                                                    providers=["CPUExecutionProvider"])
        self.shapes = [y.shape for y in self.session.run(None, self.graph.feeds)]

    def bind(self, arena):
        binding = self.session.io_binding()
        self.kept = [arena.copy(array) for array in self.graph.feeds.values()]
        for name, array in zip(self.graph.feeds, self.kept):
            binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self.results = [arena.empty(shape) for shape in self.shapes]
        for output, y in zip(self.session.get_outputs(), self.results):
            binding.bind_output(output.name, "cpu", 0, np.float32, y.shape, y.ctypes.data)
        return lambda: self.session.run_with_iobinding(binding)

    def output(self):
        return self.graph.to_lamina(self.results[-1])


def prepare(problems, threads, direct):
    del direct  # its convolutions always are
    return Model(problems, threads)
