"""ncnn in fp32, Winograd where it chooses it; direct: without."""

import math
import pathlib
import tempfile

import ncnn
import numpy as np

from problems import activation, attention_inputs, connected_inputs, conv_steps, is_causal, uniform


class Model:
    name = "ncnn " + ncnn.__version__

    def __init__(self, problems, threads, direct):
        self.lines, self.weights, self.inputs = [], [], {}
        first = problems[0]
        if len(problems) > 1:
            raise NotImplementedError("networks are not set up here")
        if first.op in ("conv2d", "separable_conv2d"):
            self.convolution(first)
        elif first.op == "fully_connected":
            self.connected(first)
        elif first.op == "multi_head_attention":
            self.attention(first)
        else:
            raise NotImplementedError(f"ncnn's {first.op} is not set up here")
        self.net = ncnn.Net()
        option = self.net.opt
        option.num_threads, option.use_vulkan_compute = threads, False
        option.use_fp16_storage = option.use_fp16_packed = option.use_fp16_arithmetic = option.use_bf16_storage = False
        if direct:
            option.use_winograd_convolution = False
        with tempfile.TemporaryDirectory() as folder:
            lines = [f"Input {name} 0 1 {name}" for name in self.inputs] + self.lines
            (pathlib.Path(folder) / "p").write_text(f"7767517\n{len(lines)} {len(lines)}\n" + "\n".join(lines) + "\n",
                                                    encoding="ascii")
            with open(f"{folder}/b", "wb") as file:
                file.writelines(self.weights)
            if self.net.load_param(f"{folder}/p") != 0 or self.net.load_model(f"{folder}/b") != 0:
                raise RuntimeError("ncnn could not load the layer")

    @staticmethod
    def fused(act):
        kind, low, high = act
        if kind == "none":
            return ""
        if kind != "clamp":
            raise NotImplementedError(f"activation {kind} is not set up here")
        return " 9=1" if low == 0 and math.isinf(high) else f" 9=3 -23310=2,{low},{high}"

    def add(self, kind, name, parameters, w, b):
        before = self.lines[-1].split()[1] if self.lines else "data"
        self.lines.append(f"{kind} {name} 1 1 {before} {name} {parameters}")
        self.weights += [np.int32(0).tobytes(), np.ascontiguousarray(w).tobytes()] + ([b.tobytes()] if b is not None
                                                                                       else [])

    def convolution(self, p):
        steps = conv_steps(p)
        first, last = steps[0], steps[-1]
        if first.n > 1 or last.residual != "none":
            raise NotImplementedError("batches and residuals are not set up here")
        self.inputs = {"data": uniform(1, (first.ih, first.iw, first.ic)).transpose(2, 0, 1)}
        for i, s in enumerate(steps):
            w = s.weights().transpose(0, 3, 1, 2)
            kind = "Convolution" if s.groups == 1 else "ConvolutionDepthWise"
            parameters = (f"0={s.oc} 1={s.kw} 11={s.kh} 2={s.dilation[1]} 12={s.dilation[0]} 3={s.stride[1]} "
                          f"13={s.stride[0]} 4={s.pads[1]} 14={s.pads[0]} 15={s.pads[3]} 16={s.pads[2]} "
                          f"5={int(s.bias)} 6={w.size}{self.fused(s.activation)}")
            self.add(kind, f"y{i}", parameters + (f" 7={s.groups}" if s.groups > 1 else ""), w, s.bias_values())
        self.to_lamina = lambda y: y.transpose(1, 2, 0)

    def connected(self, p):
        x, w, b = connected_inputs(p)
        if p.text("residual") != "none":
            raise NotImplementedError("a residual is not set up here")
        self.inputs = {"data": x[0] if x.shape[0] == 1 else x}
        self.add("InnerProduct", "y0", f"0={w.shape[0]} 1={int(b is not None)} 2={w.size}" +
                 self.fused(activation(p.text("activation"))), w, b)
        self.to_lamina = lambda y: y

    def attention(self, p):
        q, k, v = attention_inputs(p)
        if q.shape[0] > 1:
            raise NotImplementedError("batches are not set up here")
        self.inputs = {"q": q[0], "k": k[0], "v": v[0]}
        if is_causal(p):
            rows, keys = np.indices((q.shape[2], k.shape[2]))
            self.inputs["mask"] = np.where(keys <= rows, np.float32(0), np.float32("-inf"))
        count = len(self.inputs)
        self.lines.append(f"SDPA y0 {count} 1 {' '.join(self.inputs)} y0 5={int(count > 3)}")
        self.to_lamina = lambda y: y[None]

    def bind(self, arena):
        arrays = {name: arena.copy(array) for name, array in self.inputs.items()}
        mats = {name: ncnn.Mat(array) for name, array in arrays.items()}  # refer to the arrays' memory
        self.kept, result = (arrays, mats), self.lines[-1].split()[1]

        def run():
            extractor = self.net.create_extractor()
            for name, mat in mats.items():
                extractor.input(name, mat)
            self.code, self.y = extractor.extract(result)

        run()
        if self.code != 0:
            raise RuntimeError(f"ncnn's extract returned {self.code}")
        return run

    def output(self):
        return self.to_lamina(np.array(self.y))


def prepare(problems, threads, direct):
    return Model(problems, threads, direct)
