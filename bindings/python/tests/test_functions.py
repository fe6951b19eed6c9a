"""The five functions against NumPy: values, options, layouts, slices, and what they refuse."""

import lamina
import numpy as np
import pytest
import reference
from reference import ACTIVATIONS, integers, normal

STRICT = lamina.Context(accuracy="strict")  # direct algorithms: sums of small integers are exact


def nchw(image):
    return np.ascontiguousarray(np.moveaxis(image, -1, 1))


def close(got, want, atol=2e-5):
    assert got.dtype == np.float32 and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("stride, padding, dilation, groups", [
    (1, 0, 1, 1), (1, 1, 1, 1), (2, (1, 2), 1, 2), ((2, 1), (0, 1, 2, 3), (1, 2), 1), (1, 1, 1, 6)])
def test_conv2d(stride, padding, dilation, groups):
    x, w, bias = integers(2, 9, 11, 6), integers(12, 3, 3, 6 // groups, seed=1), integers(12, seed=2)
    pair = lambda v: v if isinstance(v, tuple) else (v, v)
    pads = padding if isinstance(padding, tuple) and len(padding) == 4 else pair(padding) * 2
    want = reference.conv2d(x, w, bias, pair(stride), pads, pair(dilation), groups)
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, context=STRICT)
    assert np.array_equal(lamina.conv2d(x, w, bias, **options), want)
    assert np.array_equal(lamina.conv2d(x, nchw(w), weight_layout="oihw", **options), want - bias)
    assert np.array_equal(lamina.conv2d(nchw(x), w, bias, layout="nchw", **options), nchw(want))


@pytest.mark.parametrize("padding, pads", [("same_upper", (0, 1, 1, 1)), ("same_lower", (1, 1, 0, 1))])
def test_same_padding(padding, pads):
    x, w = integers(1, 8, 9, 2), integers(3, 3, 3, 2, seed=1)
    want = reference.conv2d(x, w, stride=(2, 2), pads=pads)
    assert want.shape == (1, 4, 5, 3)
    assert np.array_equal(lamina.conv2d(x, w, stride=2, padding=padding, context=STRICT), want)
    depthwise, project = integers(2, 3, 3, seed=2), integers(3, 2, seed=3)
    want = reference.pointwise(reference.depthwise(x, depthwise, stride=(2, 2), pads=pads), project)
    assert np.array_equal(lamina.separable_conv2d(x, depthwise, project, stride=2, padding=padding), want)
    with pytest.raises(lamina.InvalidArgument, match='padding must be .*, got "full"'):
        lamina.conv2d(x, w, padding="full")


def test_conv2d_by_winograd():
    x, w = normal(1, 20, 20, 32), normal(48, 3, 3, 32, seed=1)
    close(lamina.conv2d(x, w, padding=1), reference.conv2d(x, w, pads=(1, 1, 1, 1)), atol=1e-3)


def test_conv2d_residual():
    x, w, residual = integers(1, 5, 5, 3), integers(4, 1, 1, 3, seed=1), integers(1, 5, 5, 4, seed=2)
    z = reference.conv2d(x, w)
    before = lamina.conv2d(x, w, residual=residual, activation="relu")
    after = lamina.conv2d(x, w, residual=residual, residual_at="after", activation="relu")
    assert np.array_equal(before, np.maximum(z + residual, 0))
    assert np.array_equal(after, np.maximum(z, 0) + residual)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_conv2d_slices_of_wider_tensors(layout):
    channels = 3 if layout == "nhwc" else 1
    shape = lambda c: (2, 5, 6, c) if layout == "nhwc" else (2, c, 5, 6)
    cut = lambda t, first, last: t[(slice(None),) * channels + (slice(first, last),)]
    wide, w = integers(*shape(10)), integers(4, 3, 3, 3, seed=1)
    y = np.full(shape(9), 7, np.float32)
    x, out = cut(wide, 2, 5), cut(y, 4, 8)
    got = lamina.conv2d(x, w, padding=1, layout=layout, out=out, context=STRICT)
    nhwc = x if layout == "nhwc" else np.moveaxis(x, 1, -1)
    want = reference.conv2d(nhwc, w, pads=(1, 1, 1, 1))
    assert got is out and np.array_equal(out, want if layout == "nhwc" else nchw(want))
    assert (cut(y, 0, 4) == 7).all() and (cut(y, 8, 9) == 7).all(), "the neighbours' channels are left alone"


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("order", ["dw_pw", "pw_dw", "pw_dw_pw"])
def test_separable_conv2d(order, layout):
    x = integers(2, 8, 7, 4)
    hidden = 12 if "pw_dw" in order else 4
    expand = (integers(hidden, 4, seed=1), integers(hidden, seed=2))
    depthwise = (integers(2 * hidden, 3, 3, seed=3), integers(2 * hidden, seed=4))
    project = (integers(5, 2 * hidden, seed=5), integers(5, seed=6))
    given = dict(depthwise_w=depthwise[0], depthwise_bias=depthwise[1], depthwise_activation="relu")
    z = x
    if order != "dw_pw":
        z = np.clip(reference.pointwise(z, *expand), 0, 6)
        given.update(expand_w=expand[0], expand_bias=expand[1], expand_activation="relu6")
    z = np.maximum(reference.depthwise(z, *depthwise, stride=(2, 2), pads=(1, 1, 1, 1)), 0)
    if order != "pw_dw":
        z = reference.pointwise(z, *project)
        given.update(project_w=project[0], project_bias=project[1])
    x, want = (x, z) if layout == "nhwc" else (nchw(x), nchw(z))
    residual = integers(*want.shape, seed=7)
    given.update(stride=2, padding=1, layout=layout, residual=residual, residual_at="after")
    assert np.array_equal(lamina.separable_conv2d(x, **given), want + residual)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fully_connected(activation):
    x, w, bias = normal(7, 33), normal(21, 33, seed=1), normal(21, seed=2)
    want = ACTIVATIONS[activation](reference.fully_connected(x, w, bias))
    close(lamina.fully_connected(x, w, bias, activation=activation), want)
    transposed = np.ascontiguousarray(w.T)
    close(lamina.fully_connected(x, transposed, bias, activation=activation, weight_layout="io"), want)


def test_fully_connected_rows_at_a_distance():
    wide, w, y = integers(6, 40), integers(5, 16, seed=1), np.zeros((6, 9), np.float32)
    residual = integers(6, 11, seed=2)[:, 3:8]
    lamina.fully_connected(wide[:, 8:24], w, residual=residual, out=y[:, 2:7])
    assert np.array_equal(y[:, 2:7], reference.fully_connected(wide[:, 8:24], w) + residual)
    assert not y[:, :2].any() and not y[:, 7:].any()
    every_second = lamina.fully_connected(wide[::2, 8:24], w)
    assert np.array_equal(every_second, reference.fully_connected(wide[::2, 8:24], w))


@pytest.mark.parametrize("options", [(), ("bias",), ("bias", "g", "values"), ("key_lengths",), ("mask", "values"),
                                     ("mask_all",)])
def test_additive_attention(options):
    query, keys = normal(3, 2, 10), normal(3, 7, 12, seed=1)
    given = dict(query_w=normal(16, 10, seed=2), key_w=normal(16, 12, seed=3), v=normal(16, seed=4))
    keep = np.random.default_rng(5).random((3, 2, 7)) < 0.7
    more = dict(bias=normal(16, seed=6), g=normal(1, seed=7), values=normal(3, 7, 5, seed=8),
                key_lengths=np.array([7, 0, 3], np.int32), mask=keep)
    chosen = {name: more[name] for name in options if name in more}
    if "mask_all" in options:
        chosen["mask"] = keep[:, :1].copy()
    renamed = {("lengths" if name == "key_lengths" else name): value for name, value in chosen.items()}
    context, weights = reference.additive_attention(query, keys, **given, **renamed)
    got, got_weights = lamina.additive_attention(query, keys, **given, **chosen, return_weights=True)
    close(got, context)
    close(got_weights, weights)
    close(lamina.additive_attention(query, keys, **given, **chosen), context)


@pytest.mark.parametrize("layout", ["bshd", "bhsd"])
@pytest.mark.parametrize("options", [
    {}, {"causal": "top_left"}, {"causal": "bottom_right", "window": (3, -1)}, {"scale": 0.3, "softcap": 2.0},
    {"key_lengths": np.array([9, 4], np.int32)}, {"mask": np.random.default_rng(9).random((2, 1, 5, 9)) < 0.6},
    {"bias": normal(1, 4, 5, 9, seed=9)}, {"alibi_slopes": np.array([0.5, 0.25, 0.1, 1], np.float32)}])
def test_multi_head_attention(options, layout):
    q, k, v = normal(2, 4, 5, 16), normal(2, 2, 9, 16, seed=1), normal(2, 2, 9, 8, seed=2)
    names = {"key_lengths": "lengths", "alibi_slopes": "slopes"}
    want, lse, weights = reference.multi_head_attention(q, k, v, **{names.get(n, n): o for n, o in options.items()})
    if layout == "bshd":  # as views: heads and rows change places without a copy
        q, k, v = (np.swapaxes(t, 1, 2) for t in (q, k, v))
        want = np.swapaxes(want, 1, 2)
    o, got_lse, got_weights = lamina.multi_head_attention(q, k, v, layout=layout, return_lse=True, return_weights=True,
                                                          **options)
    close(o, want)
    close(got_lse, lse)
    close(got_weights, weights)
    out = np.empty((want.shape[0], want.shape[1], want.shape[2] + 1, want.shape[3]), np.float32)[:, :, :-1]
    assert lamina.multi_head_attention(q, k, v, layout=layout, out=out, **options) is out
    close(out, want)


def test_attention_without_keys_gives_zeros():
    q, none = normal(1, 3, 2, 8), normal(1, 0, 2, 8)
    o, lse = lamina.multi_head_attention(q, none, none, return_lse=True)
    assert not o.any() and np.isneginf(lse).all()


@pytest.mark.parametrize("call, sentence", [
    (lambda x, w: lamina.conv2d(x[0], w), "tensor x: must have 4 dimensions, got 3"),
    (lambda x, w: lamina.conv2d(x[:, ::-1], w), "tensor x: strides must be positive"),
    (lambda x, w: lamina.conv2d(np.broadcast_to(x[:1, :1], x.shape), w), "tensor x: strides must be positive"),
    (lambda x, w: lamina.conv2d(x[..., ::2], w[..., ::2]), "tensor w: strides must be"),
    (lambda x, w: lamina.conv2d(x[..., ::2], w[..., :2].copy()), "tensor x: strides must be"),
    (lambda x, w: lamina.conv2d(x, w[..., :2].copy()), "tensor w: shape must be [4, 3, 3, 3], got [4, 3, 3, 2]"),
    (lambda x, w: lamina.conv2d(x, w.astype(np.float16)), "tensor w: dtype must be f32, got f16"),
    (lambda x, w: lamina.conv2d(x.astype(np.float64), w), "tensor x: type must be f32"),
    (lambda x, w: lamina.conv2d(x, w, activation="softplus"), "field activation wants"),
    (lambda x, w: lamina.conv2d(x, w, groups=2), "groups"),
    (lambda x, w: lamina.conv2d(x, w, out=np.empty((2, 4, 4, 3), np.float32)), "tensor y: shape must be"),
    (lambda x, w: lamina.fully_connected(x[0, 0], w[0, 0].T), "tensor w: strides must be"),
])
def test_refusals(call, sentence):
    with pytest.raises(lamina.InvalidArgument) as refused:
        call(integers(2, 6, 6, 3), integers(4, 3, 3, 3))
    assert sentence in str(refused.value)


def test_read_only_memory():
    x, w = integers(4, 8), integers(3, 8, seed=1)
    want = lamina.fully_connected(x, w)
    for array in (x, w, want):
        array.flags.writeable = False
    assert np.array_equal(lamina.fully_connected(x, w), want)
    with pytest.raises(lamina.InvalidArgument, match="tensor y: memory must be writable, got a read-only tensor"):
        lamina.fully_connected(x, w, out=want)


def test_half_types_are_the_gpus():
    x, w = np.ones((2, 8), np.float16), np.ones((3, 8), np.float16)
    with pytest.raises(lamina.NotBuilt, match="dtype"):
        lamina.fully_connected(x, w)
    y = lamina.fully_connected(x, w, context=lamina.Context(backend="reference"))
    assert y.dtype == np.float16 and (y == 8).all()
