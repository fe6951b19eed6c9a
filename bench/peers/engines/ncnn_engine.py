"""ncnn in fp32, Winograd where it chooses it; direct: without."""

import math
import pathlib
import tempfile

import ncnn
import numpy as np

from problems import activation, connected_inputs, conv_steps, uniform


class Model:
    name = "ncnn " + ncnn.__version__

    def __init__(self, problems, threads, direct):
        self.lines, self.weights, self.steps = [], [], problems
        first = problems[0]
        if len(problems) > 1:
            raise NotImplementedError("networks are not set up here")
        if first.op in ("conv2d", "separable_conv2d"):
            self.convolution(first)
        elif first.op == "fully_connected":
            self.connected(first)
        else:
            raise NotImplementedError(f"ncnn's {first.op} is not set up here")
        self.net = ncnn.Net()
        option = self.net.opt
        option.num_threads, option.use_vulkan_compute = threads, False
        option.use_fp16_storage = option.use_fp16_packed = option.use_fp16_arithmetic = option.use_bf16_storage = False
        if direct:
            option.use_winograd_convolution = False
        with tempfile.TemporaryDirectory() as folder:
            count = len(self.lines) + 1
            (pathlib.Path(folder) / "p").write_text(f"7767517\n{count} {count}\nInput data 0 1 data\n" +
                                                    "\n".join(self.lines) + "\n", encoding="ascii")
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
        self.x = uniform(1, (first.ih, first.iw, first.ic)).transpose(2, 0, 1)
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
        self.x = x[0] if x.shape[0] == 1 else x
        self.add("InnerProduct", "y0", f"0={w.shape[0]} 1={int(b is not None)} 2={w.size}" +
                 self.fused(activation(p.text("activation"))), w, b)
        self.to_lamina = lambda y: y

    def bind(self, arena):
        array = arena.copy(self.x)
        mat = ncnn.Mat(array)  # refers to the array's memory
        self.kept, name = (array, mat), self.lines[-1].split()[1]

        def run():
            extractor = self.net.create_extractor()
            extractor.input("data", mat)
            self.code, self.y = extractor.extract(name)

        run()
        if self.code != 0:
            raise RuntimeError(f"ncnn's extract returned {self.code}")
        return run

    def output(self):
        return self.to_lamina(np.array(self.y))


def prepare(problems, threads, direct):
    return Model(problems, threads, direct)
