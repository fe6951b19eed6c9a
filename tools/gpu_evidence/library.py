"""liblamina.so through its C interface (include/lamina/c.h), by ctypes."""

import ctypes
from dataclasses import dataclass

F32, BF16, F16, BOOL, I32, I64 = 0, 1, 2, 16, 18, 19
CPU, CUDA = 0, 1
BACKENDS = {"cpu": 0, "reference": 1, "cuda": 2}
ACCURACIES = {"default": 0, "strict": 1, "reduced": 2}
WEIGHT, INPUT, OUTPUT = 0, 1, 2
MAX_DIMS = 6


class _Tensor(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("name", ctypes.c_char_p), ("data", ctypes.c_void_p),
                ("dtype", ctypes.c_int32), ("device", ctypes.c_int32), ("role", ctypes.c_int32),
                ("optional", ctypes.c_int32), ("ndim", ctypes.c_int32), ("read_only", ctypes.c_int32),
                ("shape", ctypes.c_int64 * MAX_DIMS), ("strides", ctypes.c_int64 * MAX_DIMS)]


class _Context(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("backend", ctypes.c_int32), ("isa", ctypes.c_int32),
                ("accuracy", ctypes.c_int32), ("reserved", ctypes.c_int32), ("pool", ctypes.c_void_p),
                ("stream", ctypes.c_void_p), ("machine", ctypes.c_char_p), ("implementation", ctypes.c_char_p)]


class _Candidate(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("name", ctypes.c_char_p), ("refusal", ctypes.c_char_p),
                ("predicted_ns", ctypes.c_double), ("accuracy", ctypes.c_int32), ("reserved", ctypes.c_int32)]


class _Cost(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t)] + [(name, ctypes.c_int64) for name in (
        "macs", "flops", "transcendentals", "params", "weight_bytes", "activation_bytes")]


_VISIT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(_Candidate))


class Refused(Exception):
    """A call that the library refused, with its sentence."""


@dataclass(frozen=True)
class Slot:
    """One tensor of a problem: shape and strides in elements, slowest dimension first."""
    name: str
    dtype: int
    role: int
    optional: bool
    shape: tuple
    strides: tuple

    def span(self):
        """Elements from the first to the last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides))


class Library:
    def __init__(self, path):
        self._c = ctypes.CDLL(str(path))
        self._c.lamina_last_error.restype = self._c.lamina_build_info.restype = ctypes.c_char_p
        self._c.lamina_destroy.argtypes = [ctypes.c_void_p]

    def _check(self, status):
        if status:
            raise Refused(self._c.lamina_last_error().decode())

    def build_info(self):
        return self._c.lamina_build_info().decode()

    def slots(self, desc):
        """Weights, inputs and outputs of a problem."""
        count, tensors = ctypes.c_size_t(), (_Tensor * 32)()
        tensors[0].size = ctypes.sizeof(_Tensor)
        self._check(self._c.lamina_tensors(desc.encode(), tensors, ctypes.c_size_t(32), ctypes.byref(count)))
        return [Slot(t.name.decode(), t.dtype, t.role, bool(t.optional), tuple(t.shape[:t.ndim]), tuple(t.strides[:t.ndim]))
                for t in tensors[:count.value]]

    def cost(self, desc):
        cost = _Cost(ctypes.sizeof(_Cost))
        self._check(self._c.lamina_cost_of(desc.encode(), ctypes.byref(cost)))
        return {name: getattr(cost, name) for name, _ in _Cost._fields_[1:]}

    def _context(self, backend, accuracy, stream=None, implementation=None):
        return _Context(ctypes.sizeof(_Context), BACKENDS[backend], 0, ACCURACIES[accuracy], 0, None, stream, None,
                        implementation.encode() if implementation else None)

    def candidates(self, desc, backend="cuda", accuracy="reduced"):
        """(name, refusal or None, predicted ns) of every candidate."""
        found, context = [], self._context(backend, accuracy)

        def visit(_, candidate):
            c = candidate.contents
            found.append((c.name.decode(), c.refusal.decode() if c.refusal else None, c.predicted_ns))

        self._check(self._c.lamina_candidates(desc.encode(), ctypes.byref(context), _VISIT(visit), None))
        return found

    def prepare(self, desc, weights, backend="cuda", accuracy="reduced", stream=None, implementation=None):
        """weights: {slot: address on the host}."""
        op, context = ctypes.c_void_p(), self._context(backend, accuracy, stream, implementation)
        array, count = _array(weights, CPU)
        self._check(self._c.lamina_prepare(desc.encode(), array, count, ctypes.byref(context), ctypes.byref(op)))
        return Operator(self, op, CUDA if backend == "cuda" else CPU)


def _array(tensors, device):
    array = (_Tensor * max(len(tensors), 1))()
    for t, (slot, address) in zip(array, tensors.items()):
        t.size, t.name, t.data = ctypes.sizeof(_Tensor), slot.name.encode(), address
        t.dtype, t.device, t.ndim = slot.dtype, CPU if slot.dtype == I64 else device, len(slot.shape)
        t.shape[:len(slot.shape)], t.strides[:len(slot.strides)] = slot.shape, slot.strides
    return array, ctypes.c_size_t(len(tensors))


class Operator:
    """A prepared operator. Weights may be freed; what run() gets must live until the stream is done."""

    def __init__(self, library, handle, device):
        self._library, self._c, self._handle, self._device = library, library._c, handle, device

    def __del__(self):
        self._c.lamina_destroy(self._handle)

    def bind(self, tensors):
        """{slot: address} as run() wants it, made once."""
        return _array(tensors, self._device)

    def run(self, bound):
        self._library._check(self._c.lamina_run(self._handle, bound[0], bound[1], None, ctypes.c_size_t(0)))

    def prepared_keys_bytes(self):
        bytes_ = ctypes.c_size_t()
        self._library._check(self._c.lamina_prepared_keys_bytes(self._handle, ctypes.byref(bytes_)))
        return bytes_.value

    def implementation(self):
        name = ctypes.c_char_p()
        self._library._check(self._c.lamina_implementation(self._handle, ctypes.byref(name)))
        return name.value.decode()
