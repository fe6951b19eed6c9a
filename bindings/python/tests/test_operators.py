"""Prepared operators, contexts, threads, and what the library tells of problems."""

import threading
import time
import weakref

import lamina
import numpy as np
import pytest
import reference
from reference import integers, normal

CONV = "conv2d ih=9 iw=9 ic=8 oc=16 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 bias=0"


def test_a_prepared_convolution():
    w = integers(16, 3, 3, 8)
    conv = lamina.Conv2d(CONV, w=w, context=lamina.Context(accuracy="strict"))
    x = integers(1, 9, 9, 8, seed=1)
    want = reference.conv2d(x, w, pads=(1, 1, 1, 1))
    w[:] = 0  # it was packed
    assert np.array_equal(conv(x), want) and np.array_equal(conv(x=x), want)
    y = np.empty_like(want, np.float32)
    assert conv(x, out=y) is y and np.array_equal(y, want)
    y[:] = 0
    assert conv.run(x=x, y=y) is None and np.array_equal(y, want)
    assert conv.desc == CONV and conv.implementation.startswith("cpu/") and conv.packed_bytes >= w.nbytes
    assert f"* {conv.implementation} " in conv.explain() and conv.implementation in repr(conv)
    assert conv.tensors["x"] == lamina.Slot("x", "f32", "input", False, (1, 9, 9, 8))
    assert isinstance(conv.scratch_bytes, int)


def test_descriptors_are_texts_or_fields():
    fields = dict(ih=9, iw=9, ic=8, oc=16, kh=3, kw=3, pad_top=1, pad_left=1, pad_bottom=1, pad_right=1, bias=False)
    assert lamina.describe("conv2d", **fields) == CONV
    assert lamina.Conv2d(fields, w=normal(16, 3, 3, 8)).desc == CONV
    assert lamina.describe(CONV, ih=10, pad_top=None) == CONV.replace(" ih=9", "").replace(" pad_top=1", "") + " ih=10"
    assert lamina.describe("multi_head_attention", q=(1, 2, 3)) == "multi_head_attention q=1,2,3"


def test_reshape_shares_the_weights():
    w = integers(16, 3, 3, 8)
    conv = lamina.Conv2d(CONV, w=w, context=lamina.Context(accuracy="strict"))
    larger = conv.reshape(n=3, ih=5)
    alive = weakref.ref(conv)
    del conv
    assert alive() is None
    x = integers(3, 5, 9, 8, seed=1)
    assert type(larger) is lamina.Conv2d
    assert np.array_equal(larger(x), reference.conv2d(x, w, pads=(1, 1, 1, 1)))
    with pytest.raises(lamina.InvalidArgument, match="oc"):
        larger.reshape(oc=17)


def test_packed_weights_as_files(tmp_path):
    conv = lamina.Conv2d(CONV, w=normal(16, 3, 3, 8))
    conv.save_packed(tmp_path / "conv")
    loaded = lamina.Conv2d.load_packed(tmp_path / "conv", context=lamina.Context(threads=1))
    x = normal(1, 9, 9, 8, seed=1)
    assert type(loaded) is lamina.Conv2d and loaded.implementation == conv.implementation
    assert np.array_equal(loaded(x), conv(x))
    with pytest.raises(lamina.InvalidArgument, match="FullyConnected takes problems of fully_connected"):
        lamina.FullyConnected.load_packed(tmp_path / "conv")
    with pytest.raises(lamina.InvalidArgument, match="nowhere"):
        lamina.Conv2d.load_packed(tmp_path / "nowhere")


def test_the_classes_of_the_other_operators():
    x, dw, pw = integers(1, 6, 6, 4), integers(4, 3, 3, seed=1), integers(5, 4, seed=2)
    separable = lamina.SeparableConv2d(dict(ih=6, iw=6, ic=4, oc=5, depthwise_bias=0, project_bias=0), depthwise_w=dw,
                                       project_w=pw)
    assert np.array_equal(separable(x), reference.pointwise(reference.depthwise(x, dw), pw))
    fc = lamina.FullyConnected("fully_connected m=2 ic=3 oc=4 residual=after", w=integers(4, 3), bias=integers(4))
    rows, residual = integers(2, 3, seed=1), integers(2, 4, seed=2)
    want = reference.fully_connected(rows, integers(4, 3), integers(4)) + residual
    assert np.array_equal(fc(rows, residual), want) and np.array_equal(fc(rows, residual=residual), want)
    q = normal(2, 4, 3, 8)
    attention = lamina.MultiHeadAttention(dict(batch=2, num_heads=3, seqlen_q=4, seqlen_kv=4, head_dim=8))
    o, weights = attention(q, q, q, returns=("weights",))
    heads = np.swapaxes(q, 1, 2)
    want, _, want_weights = reference.multi_head_attention(heads, heads, heads)
    np.testing.assert_allclose(o, np.swapaxes(want, 1, 2), atol=2e-6)
    np.testing.assert_allclose(weights, want_weights, atol=2e-6)


def test_prepared_keys_give_the_same_bits():
    desc = "additive_attention batch=2 queries=3 keys=6 query_dim=10 key_dim=12 units=16 value_dim=5"
    attention = lamina.AdditiveAttention(desc, query_w=normal(16, 10), key_w=normal(16, 12), v=normal(16))
    query, keys, values = normal(2, 3, 10), normal(2, 6, 12), normal(2, 6, 5)
    lengths = np.array([6, 2], np.int32)
    prepared = attention.prepare_keys(keys, lengths)
    assert prepared.dtype == "u8" and prepared.shape[0] > 0
    without = attention(query, keys, values, key_lengths=lengths)
    assert np.array_equal(attention(query, values=values, key_lengths=lengths, prepared_keys=prepared), without)


def test_decoding_on_a_cache():
    """The layer with its projections, a row at a time, gives what it gives at once."""
    rows, heads, dim, model = 5, 2, 8, 12
    wide = heads * dim
    weights = dict(wq=normal(wide, model), wk=normal(wide, model, seed=1), wv=normal(wide, model, seed=2),
                   wo=normal(model, wide, seed=3), bq=normal(wide), bk=normal(wide, seed=1), bv=normal(wide, seed=2),
                   bo=normal(model))
    layer = lamina.MultiHeadAttention(dict(num_heads=heads, seqlen_q=rows, seqlen_kv=rows, head_dim=dim,
                                           causal="bottom_right", projections=True, model_dim=model), **weights)
    x = normal(1, rows, model)
    whole = layer(x)
    step = layer.reshape(seqlen_q=1)
    k_cache, v_cache = np.zeros((2, 1, rows, heads, dim), np.float32)
    caches = dict(k_cache=k_cache, v_cache=v_cache)
    for i in range(rows):
        got = step(x[:, i:i + 1], position=np.int64(i), **caches)
        np.testing.assert_allclose(got, whole[:, i:i + 1], rtol=1e-4, atol=1e-4)
    with pytest.raises(lamina.InvalidArgument, match="position"):
        step(x[:, :1], position=rows, **caches)


def test_contexts():
    x, w = normal(64, 96), normal(80, 96, seed=1)
    for isa in lamina.build_info()["supported_targets"]:
        context = lamina.Context(isa=isa, threads=1)
        fc = lamina.FullyConnected(dict(m=64, ic=96, oc=80, bias=False), w=w, context=context)
        assert f"/{isa}/" in fc.implementation or isa == "scalar"
        np.testing.assert_allclose(fc(x), reference.fully_connected(x, w), atol=1e-4)
    desc = CONV.replace("ih=9 iw=9", "ih=56 iw=56")
    chosen = lamina.Conv2d(desc, w=normal(16, 3, 3, 8), context=lamina.Context(implementation="winograd_4x4"))
    assert chosen.implementation.endswith("/winograd_4x4")
    with pytest.raises(lamina.InvalidArgument, match="winograd_4x4"):
        lamina.Conv2d(desc, w=normal(16, 3, 3, 8),
                      context=lamina.Context(implementation="winograd_4x4", accuracy="strict"))
    reference_backend = lamina.Context(backend="reference")
    assert lamina.Conv2d(CONV, w=normal(16, 3, 3, 8), context=reference_backend).implementation.startswith("reference")
    for wrong in (dict(isa="mmx"), dict(backend="tpu"), dict(accuracy="some"), dict(spin=True)):
        with pytest.raises(lamina.InvalidArgument):
            lamina.Context(**wrong)
    if not lamina.build_info()["cuda"]:
        with pytest.raises(lamina.NotBuilt):
            lamina.candidates(CONV, lamina.Context(backend="cuda"))


def test_the_bits_do_not_depend_on_the_threads():
    x, w = normal(1, 40, 40, 32), normal(32, 3, 3, 32, seed=1)
    results = [lamina.conv2d(x, w, padding=1, context=lamina.Context(threads=n, spin=n > 1)) for n in (1, 2, 3)]
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_an_operator_keeps_its_threads():
    context = lamina.Context(threads=2)
    fc = lamina.FullyConnected(dict(m=128, ic=256, oc=256, bias=False), w=normal(256, 256), context=context)
    del context
    smaller = fc.reshape(m=64)
    del fc
    np.testing.assert_allclose(smaller(normal(64, 256)), reference.fully_connected(normal(64, 256), normal(256, 256)),
                               atol=1e-3)


def test_a_run_leaves_python_to_other_threads():
    """While one thread computes for a while, another one naps and wakes: with the GIL held it could not."""
    slow = lamina.FullyConnected(dict(m=128, ic=512, oc=512, bias=False), w=normal(512, 512),
                                 context=lamina.Context(backend="reference", threads=1))
    x, began, ended = normal(128, 512), threading.Event(), threading.Event()

    def run():
        began.set()
        slow(x)
        ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    began.wait()
    naps = 0
    while not ended.is_set():
        time.sleep(1e-4)
        naps += 1
    thread.join()
    assert naps > 10


def test_threads_may_share_an_operator():
    fc = lamina.FullyConnected(dict(m=16, ic=64, oc=64, bias=False), w=integers(64, 64))
    inputs = [integers(16, 64, seed=s) for s in range(8)]
    wrong = []

    def work(x):
        want = reference.fully_connected(x, integers(64, 64))
        for _ in range(50):
            if not np.array_equal(fc(x), want):
                wrong.append(x)

    threads = [threading.Thread(target=work, args=(x,)) for x in inputs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_costs():
    cost = lamina.cost("separable_conv2d", ih=14, iw=14, ic=512, oc=512, pad_top=1, pad_left=1, pad_bottom=1,
                       pad_right=1, depthwise_bias=False, project_bias=False)
    assert cost.macs == 14 * 14 * 512 * (9 + 512) and cost.flops == 2 * cost.macs
    assert cost.params == 512 * (9 + 512) and cost.weight_bytes == 4 * cost.params
    assert cost.bytes == cost.weight_bytes + 2 * 4 * 14 * 14 * 512
    assert cost.arithmetic_intensity == cost.flops / cost.bytes
    assert lamina.cost("multi_head_attention seqlen_q=2 seqlen_kv=2 head_dim=4").transcendentals > 0


def test_candidates_and_explanations():
    found = lamina.candidates(CONV)
    assert any(c.refusal for c in found) and any(c.refusal is None and c.predicted_ns > 0 for c in found)
    assert {c.accuracy for c in found} <= {"strict", "default", "reduced"}
    conv = lamina.Conv2d(CONV, w=normal(16, 3, 3, 8))
    chosen = [line.split()[1] for line in lamina.explain(CONV).splitlines() if line.startswith("*")]
    assert chosen == [conv.implementation]


def test_show_config(capsys):
    lamina.show_config()
    printed = capsys.readouterr().out
    assert f"version: {lamina.__version__}" in printed and "compiler: " in printed and "threads: " in printed


@pytest.mark.parametrize("call, error, sentence", [
    (lambda: lamina.cost("conv3d"), lamina.InvalidArgument, "conv3d"),
    (lambda: lamina.cost("conv2d", ih=0), lamina.InvalidArgument, "ih"),
    (lambda: lamina.cost("conv2d ih"), lamina.InvalidArgument, "name=value"),
    (lambda: lamina.FullyConnected(CONV), lamina.InvalidArgument, "FullyConnected takes problems of fully_connected"),
    (lambda: lamina.Conv2d(CONV), lamina.InvalidArgument, "w must not be null"),
    (lambda: lamina.Conv2d(CONV, w=normal(16, 3, 3, 8), v=normal(1)), lamina.InvalidArgument, 'unknown tensor "v"'),
    (lambda: lamina.Conv2d(CONV, w=normal(16, 3, 3, 8))(), lamina.InvalidArgument, "x must not be null"),
    (lambda: lamina.Conv2d(CONV, w=normal(16, 3, 3, 8))([1.0]), TypeError, "tensor x: must be an array"),
    (lambda: lamina.Conv2d(CONV, w=normal(16, 3, 3, 8))(1, 2), TypeError, "takes x in order, got 2"),
    (lambda: lamina.Conv2d(CONV, w=normal(16, 3, 3, 8))(1, x=2), TypeError, "x is given twice"),
    (lambda: lamina.Conv2d(CONV, w=normal(16, 3, 3, 8))(normal(1), returns=("lse",)), lamina.InvalidArgument,
     "no output is called lse"),
    (lambda: lamina.candidates("fully_connected ic=1 oc=1 dtype=bf16", lamina.Context(machine="?")),
     lamina.InvalidArgument, ""),
])
def test_refusals(call, error, sentence):
    with pytest.raises(error) as refused:
        call()
    assert sentence in str(refused.value)


def test_the_exceptions():
    assert issubclass(lamina.InvalidArgument, ValueError) and issubclass(lamina.OutOfMemory, MemoryError)
    for kind in (lamina.InvalidArgument, lamina.NotBuilt, lamina.UnsupportedHardware, lamina.OutOfMemory,
                 lamina.DeviceError, lamina.InternalError):
        assert issubclass(kind, lamina.Error) and kind.__module__ == "lamina" and kind.__doc__
    with pytest.raises(lamina.OutOfMemory):
        lamina.empty((1 << 20, 1 << 40))
