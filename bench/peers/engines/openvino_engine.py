"""OpenVINO's CPU plugin in fp32, for latency; attention as its own operator, everything else from an ONNX graph."""

import openvino
from openvino import opset13

from engines.onnx_graph import Graph
from problems import attention_inputs, is_causal


class Model:
    name = "openvino " + openvino.__version__.split("-")[0]

    def __init__(self, problems, threads):
        core = openvino.Core()
        if problems[0].op == "multi_head_attention" and len(problems) == 1:
            tensors = attention_inputs(problems[0])
            self.feeds = {f"x{i}": t for i, t in enumerate(tensors)}
            inputs = [opset13.parameter(t.shape, openvino.Type.f32, name=f"x{i}") for i, t in enumerate(tensors)]
            y = opset13.scaled_dot_product_attention(*inputs, causal=is_causal(problems[0]))
            model = openvino.Model([y], inputs, "attention")
            self.to_lamina = lambda y: y
        else:
            graph = Graph(problems)
            model = core.read_model(graph.model().SerializeToString(), b"")
            self.feeds, self.to_lamina = graph.feeds, graph.to_lamina
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self.compiled = core.compile_model(model, "CPU", settings)

    def bind(self, arena):
        self.request = self.compiled.create_infer_request()
        self.kept = [arena.copy(array) for array in self.feeds.values()]
        for i, array in enumerate(self.kept):
            self.request.set_input_tensor(i, openvino.Tensor(array, shared_memory=True))
        return self.request.infer

    def output(self):
        return self.to_lamina(self.request.get_output_tensor(len(self.compiled.outputs) - 1).data)


def prepare(problems, threads, direct):
    del direct  # its convolutions always are
    return Model(problems, threads)
