"""Tensors at the border: DLPack in both forms, in and out, what is refused, and who frees what when."""

import ctypes
import gc
import sys

import lamina
import numpy as np
import pytest
from producer import Producer, is_capsule

FORMS = pytest.mark.parametrize("knows_versions", [True, False])


@FORMS
def test_a_tensor_comes_in_and_is_deleted_once(knows_versions):
    producer = Producer((2, 3), strides=(8, 2), byte_offset=4, knows_versions=knows_versions)
    array = lamina.from_dlpack(producer)
    assert array.shape == (2, 3) and array.strides == (8, 2) and array.dtype == "f32" and not array.read_only
    view = np.from_dlpack(array)
    assert view.__array_interface__["data"][0] == ctypes.addressof(producer.memory) + 4
    del array
    assert producer.deleted == 0, "the view still has it"
    del view
    assert producer.deleted == 1


@FORMS
def test_a_call_lets_go_of_its_tensors(knows_versions):
    given = [Producer((2, 3), knows_versions=knows_versions), Producer((5, 3), knows_versions=knows_versions)]
    y = lamina.fully_connected(*given)
    assert isinstance(y, lamina.Array) and y.shape == (2, 5) and (np.from_dlpack(y) == 0).all()
    assert [p.deleted for p in given] == [2, 2], "read for the descriptor, and for the call"
    fc = lamina.FullyConnected("fully_connected m=2 ic=3 oc=5 bias=0", w=given[1])
    assert given[1].deleted == 3
    fc(given[0])
    assert given[0].deleted == 3


@FORMS
def test_a_capsule_is_consumed_once(knows_versions):
    producer = Producer(knows_versions=knows_versions)
    capsule = producer.capsule()

    class Same:
        def __dlpack__(self, **_):
            return capsule

    array = lamina.from_dlpack(Same())
    assert is_capsule(capsule, b"used_" + producer.name)
    with pytest.raises(lamina.InvalidArgument, match="nobody has consumed"):
        lamina.from_dlpack(Same())
    del array
    del capsule
    gc.collect()
    assert producer.deleted == 1


@FORMS
@pytest.mark.parametrize("wrong, sentence", [
    (dict(strides=(3, -1)), "strides must be positive"), (dict(strides=(2, 1)), "keep elements apart"),
    (dict(strides=(0, 1)), "strides must be positive"), (dict(bits=64), "type must be f32"),
    (dict(device=10), "device must be the CPU or CUDA"), (dict(shape=(1,) * 7), "at most 6 dimensions")])
def test_what_is_refused_stays_the_producers(wrong, sentence, knows_versions):
    producer = Producer(knows_versions=knows_versions, **wrong)
    with pytest.raises(lamina.InvalidArgument, match=sentence) as refused:
        lamina.from_dlpack(producer, "keys")
    assert str(refused.value).startswith("tensor keys: ") and producer.deleted == 0


def test_another_major_version():
    producer = Producer(version=(2, 0))
    with pytest.raises(lamina.InvalidArgument, match="version must be 1.x, got 2.0"):
        lamina.from_dlpack(producer)
    assert producer.deleted == 0


def test_a_producer_that_fails():
    class Failing:
        def __dlpack__(self, **_):
            raise BufferError("cannot export")

    with pytest.raises(lamina.InvalidArgument, match="tensor x: .*cannot export") as refused:
        lamina.fully_connected(Failing(), Failing())
    assert isinstance(refused.value.__cause__, BufferError)
    for not_an_array in (None, 3, "x", [1.0]):
        with pytest.raises(TypeError, match="tensor x: must be an array with __dlpack__"):
            lamina.fully_connected(not_an_array, np.ones((2, 2), np.float32))


def test_read_only_and_device():
    read_only = Producer((2, 5), read_only=True)
    assert lamina.from_dlpack(read_only).read_only
    x, w = np.ones((2, 3), np.float32), np.ones((5, 3), np.float32)
    with pytest.raises(lamina.InvalidArgument, match="tensor y: memory must be writable"):
        lamina.fully_connected(x, w, out=read_only)
    with pytest.raises(lamina.InvalidArgument, match="tensor x: device must be cpu, got cuda"):
        lamina.fully_connected(Producer((2, 3), device=2), w)


def test_no_memory():
    empty, null = Producer((1, 0, 2, 8)), Producer((2, 3))
    for producer in (empty, null):
        producer.managed.dl_tensor.data = None
    o = lamina.multi_head_attention(np.ones((1, 3, 2, 8), np.float32), empty, empty)
    assert not o.any(), "no keys"
    with pytest.raises(lamina.InvalidArgument, match="x must not be null"):
        lamina.fully_connected(null, np.ones((5, 3), np.float32))


def test_bf16():
    ones = [Producer((2, 3), code=4, bits=16), Producer((5, 3), code=4, bits=16)]
    for p in ones:
        p.memory[:] = [0x3F803F80] * 64
    y = lamina.fully_connected(*ones, context=lamina.Context(backend="reference"))
    assert y.dtype == "bf16"
    out = Producer((2, 5), code=4, bits=16)
    assert lamina.fully_connected(*ones, out=out, context=lamina.Context(backend="reference")) is out
    assert out.memory[:5] == [0x40404040] * 5 and out.memory[5] == 0, "three, and not one byte more"


def test_what_goes_out():
    array = lamina.empty((3, 4), "f32")
    assert array.__dlpack_device__() == (1, 0) and "(3, 4)" in repr(array)
    view = np.from_dlpack(array)
    view[:] = 5
    assert view.shape == (3, 4) and view.ctypes.data % 64 == 0 and view.flags.writeable
    assert is_capsule(array.__dlpack__(), b"dltensor")
    assert is_capsule(array.__dlpack__(max_version=(1, 0)), b"dltensor_versioned")
    del array
    assert (view == 5).all(), "the view keeps the memory"
    frozen = lamina.from_dlpack(Producer(read_only=True))
    assert not np.from_dlpack(frozen).flags.writeable
    with pytest.raises(lamina.InvalidArgument, match="read-only"):
        frozen.__dlpack__()
    for impossible in (dict(stream=1), dict(copy=True), dict(dl_device=(2, 0))):
        with pytest.raises(BufferError):
            frozen.__dlpack__(max_version=(1, 0), **impossible)
    for wrong in (dict(shape=(-1,)), dict(shape=(1,), dtype="f64"), dict(shape=(1,) * 7)):
        with pytest.raises(lamina.InvalidArgument):
            lamina.empty(**wrong)


def test_a_capsule_that_nobody_consumes_frees_what_it_holds():
    producer = Producer()
    capsule = lamina.from_dlpack(producer).__dlpack__(max_version=(1, 0))
    assert producer.deleted == 0
    del capsule
    assert producer.deleted == 1


def test_numpy_arrays_are_neither_kept_nor_leaked():
    x, w, y = np.ones((2, 3), np.float32), np.ones((5, 3), np.float32), np.empty((2, 5), np.float32)
    fc = lamina.FullyConnected("fully_connected m=2 ic=3 oc=5 bias=0", w=w)
    before = [sys.getrefcount(a) for a in (x, w, y)]
    for _ in range(100):
        fc(x, out=y)
        with pytest.raises(lamina.Error):
            fc(x, out=w)
    gc.collect()
    assert [sys.getrefcount(a) for a in (x, w, y)] == before


def test_memory_is_given_back():
    for _ in range(2000):  # 128 GiB in all
        lamina.empty((1 << 24,))


def test_pytorch():
    torch = pytest.importorskip("torch")
    x, w, bias = torch.randn(1, 8, 8, 4), torch.randn(6, 3, 3, 4), torch.randn(6)
    y = torch.from_dlpack(lamina.conv2d(x, w, bias, padding=1))
    want = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), bias, padding=1)
    torch.testing.assert_close(y, want.permute(0, 2, 3, 1), atol=1e-4, rtol=1e-4)
    out = torch.empty_like(y)
    assert lamina.conv2d(x, w, bias, padding=1, out=out) is out
    torch.testing.assert_close(out, y, atol=0, rtol=0)
    q, k, v = (torch.randn(2, 4, n, 16) for n in (5, 9, 9))
    o = torch.from_dlpack(lamina.multi_head_attention(q, k, v, layout="bhsd"))
    torch.testing.assert_close(o, torch.nn.functional.scaled_dot_product_attention(q, k, v), atol=1e-5, rtol=1e-5)
    with pytest.raises(lamina.InvalidArgument, match="tensor x: .*grad"):
        lamina.conv2d(x.requires_grad_(), w)
    x, w = torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(5, 3, dtype=torch.bfloat16)
    y = lamina.fully_connected(x, w, context=lamina.Context(backend="reference"))
    assert torch.from_dlpack(y).dtype == torch.bfloat16 and (torch.from_dlpack(y) == 3).all()
