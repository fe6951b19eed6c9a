"""A 3x3 convolution and the depthwise-separable one that takes its place: what they cost, and how long they take."""

import time

import lamina
import numpy as np

image = dict(ih=28, iw=28, ic=256, oc=256, kh=3, kw=3, pad_top=1, pad_left=1, pad_bottom=1, pad_right=1)
random = np.random.default_rng(0)
weights = lambda *shape: random.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:]), dtype=np.float32)
x, bias = random.standard_normal((1, 28, 28, 256), np.float32), np.zeros(256, np.float32)

standard = lamina.Conv2d(image, w=weights(256, 3, 3, 256), bias=bias)
separable = lamina.SeparableConv2d(image, depthwise_w=weights(256, 3, 3), depthwise_bias=bias,
                                   project_w=weights(256, 256), project_bias=bias)
for layer in (standard, separable):
    y, times = layer(x), []
    for _ in range(10):
        start = time.perf_counter()
        layer(x, out=y)
        times.append(time.perf_counter() - start)
    cost = lamina.cost(layer.desc)
    print(f"{type(layer).__name__:16} {cost.macs / 1e6:6.1f} M multiply-accumulates "
          f"{cost.params / 1e3:6.1f} k parameters {min(times) * 1e6:7.0f} us  {layer.implementation}")
