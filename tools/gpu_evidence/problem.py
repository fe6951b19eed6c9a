"""Tensors of one problem: random values of its dtypes, buffers with guard bands, what the reference gives for them."""

import math

import numpy as np

from library import BF16, BOOL, F16, F32, I32, OUTPUT, WEIGHT, Slot

DTYPES = {"f32": F32, "bf16": BF16, "f16": F16}
ITEM_BYTES = {F32: 4, BF16: 2, F16: 2, BOOL: 1, I32: 4}
GUARD = 4096  # bytes on either side of a tensor, all 0xff: NaN in every float type
NEVER = {"prepared_keys", "k_cache", "v_cache", "position"}  # tensors that these problems leave out
CHOICE = {"key_lengths", "lse", "weights"}  # and those that some have


def narrow(values, dtype):
    """float32 -> the bits of a float type, to nearest, ties to even."""
    if dtype == F32:
        return values.astype(np.float32).view(np.uint32)
    if dtype == F16:
        return values.astype(np.float16).view(np.uint16)
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widen(bits, dtype):
    """The bits of a float type -> float32."""
    if dtype == F32:
        return bits.view(np.float32)
    if dtype == F16:
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def fields(desc):
    return dict(word.split("=") for word in desc.split()[1:])


def with_dtype(desc, dtype):
    words = [w for w in desc.split() if not w.startswith("dtype=")]
    return " ".join(words + ([] if dtype == "f32" else [f"dtype={dtype}"]))


class Problem:
    """Values for every tensor of `desc`, drawn from `seed`."""

    def __init__(self, library, desc, seed, optional=True):
        self.library, self.desc, self.fields = library, desc, fields(desc)
        self.random = np.random.default_rng(seed)
        self.slots = [s for s in library.slots(desc) if s.name not in NEVER and (optional or s.name not in CHOICE)]
        self.values = {s: self._values(s) for s in self.slots if s.role != OUTPUT}

    def _values(self, slot):
        span, draw = slot.span(), self.random
        if slot.dtype == I32:  # key_lengths
            most = int(self.fields.get("seqlen_kv", self.fields.get("keys", 0)))
            return draw.integers(0, most + 1, span).astype(np.int32)
        if slot.dtype == BOOL:
            return (draw.random(span) < 0.75).astype(np.uint8)
        terms = math.prod(slot.shape[1:]) if slot.role == WEIGHT and len(slot.shape) > 1 else 1
        values = draw.standard_normal(span).astype(np.float32) / np.float32(math.sqrt(max(terms, 1)))
        return widen(narrow(values, slot.dtype), slot.dtype)

    def outputs(self):
        return [s for s in self.slots if s.role == OUTPUT]

    def bits(self, slot):
        """What the tensor holds in memory."""
        return self.values[slot] if slot.dtype in (I32, BOOL) else narrow(self.values[slot], slot.dtype)

    def weights(self):
        """{slot: address} on the host, and the arrays that own them."""
        arrays = {s: np.ascontiguousarray(self.bits(s)) for s in self.slots if s.role == WEIGHT}
        return {s: a.ctypes.data for s, a in arrays.items()}, arrays

    def reference(self):
        """{output's name: float32 array of its shape}: the reference's double loops on the same values, in f32."""
        desc = with_dtype(self.desc, "f32")
        slots = {s.name: s for s in self.library.slots(desc)}
        arrays = {slots[s.name]: np.ascontiguousarray(v) for s, v in self.values.items()}
        op = self.library.prepare(desc, {s: a.ctypes.data for s, a in arrays.items() if s.role == WEIGHT}, "reference")
        for s in self.outputs():
            arrays[slots[s.name]] = np.full(s.span(), np.nan, np.float32)
        op.run(op.bind({s: a.ctypes.data for s, a in arrays.items() if s.role != WEIGHT}))
        return {s.name: shaped(arrays[slots[s.name]], s) for s in self.outputs()}


def shaped(flat, slot):
    """A strided view of a tensor's elements in its shape."""
    return np.lib.stride_tricks.as_strided(flat, slot.shape, [s * flat.itemsize for s in slot.strides])


class Host:
    """Device memory that is the host's: of the emulated GPU, in tests of this program."""

    stream = None

    def allocate(self, bytes_):
        return np.empty(bytes_ + 256, np.uint8)

    def address(self, buffer):
        return (buffer.ctypes.data + 255) // 256 * 256

    def write(self, buffer, data):
        at = self.address(buffer) - buffer.ctypes.data
        buffer[at:at + data.size] = data

    def read(self, buffer, bytes_):
        at = self.address(buffer) - buffer.ctypes.data
        return buffer[at:at + bytes_].copy()

    def wait(self):
        pass


class Cuda:
    """Device memory and the current stream through PyTorch."""

    def __init__(self):
        import torch
        self.torch = torch

    @property
    def stream(self):
        return self.torch.cuda.current_stream().cuda_stream or None

    def allocate(self, bytes_):
        return self.torch.empty(bytes_ + 256, dtype=self.torch.uint8, device="cuda")

    def address(self, buffer):
        return (buffer.data_ptr() + 255) // 256 * 256

    def _slice(self, buffer, bytes_):
        at = self.address(buffer) - buffer.data_ptr()
        return buffer[at:at + bytes_]

    def write(self, buffer, data):
        self._slice(buffer, data.size).copy_(self.torch.from_numpy(data))

    def read(self, buffer, bytes_):
        return self._slice(buffer, bytes_).cpu().numpy()

    def wait(self):
        self.torch.cuda.synchronize()


class Buffers:
    """The inputs and outputs of a problem on a device, each between guard bands, `offset` elements off alignment."""

    def __init__(self, device, problem, offset=0):
        self.device, self.problem, self.offset, self.buffers, self.begin = device, problem, offset, {}, {}
        for slot in problem.slots:
            if slot.role == WEIGHT:
                continue
            item = ITEM_BYTES[slot.dtype]
            self.begin[slot] = GUARD + offset * item
            image = np.full(2 * GUARD + (slot.span() + offset) * item, 0xFF, np.uint8)
            if slot.role != OUTPUT:
                data = np.ascontiguousarray(problem.bits(slot)).view(np.uint8)
                image[self.begin[slot]:self.begin[slot] + data.size] = data
            self.buffers[slot] = (device.allocate(image.size), image)
        self.reset()

    def reset(self):
        for buffer, image in self.buffers.values():
            self.device.write(buffer, image)

    def addresses(self):
        return {s: self.device.address(b) + self.begin[s] for s, (b, _) in self.buffers.items()}

    def results(self):
        """{output's name: float32 array}, and a sentence when a byte outside the outputs has changed, else ""."""
        results, fault = {}, ""
        for slot, (buffer, image) in self.buffers.items():
            now, item = self.device.read(buffer, image.size), ITEM_BYTES[slot.dtype]
            begin, end = self.begin[slot], self.begin[slot] + slot.span() * item
            outside = np.ones(image.size, bool)
            if slot.role == OUTPUT:
                flat = now[begin:end].view({4: np.uint32, 2: np.uint16}[item])
                results[slot.name] = widen(np.ascontiguousarray(shaped(flat, slot)), slot.dtype)
                inside = np.zeros(slot.span(), bool)
                shaped(inside, slot)[...] = True
                outside[begin:end] = ~np.repeat(inside, item)
            if (now[outside] != image[outside]).any():
                fault = f"{slot.name}: bytes outside the tensor, or of an input, were written"
        return results, fault


def error_of(got, want):
    """||got - want|| / ||want||; infinite where one is infinite or NaN and the other is not so."""
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    finite = np.isfinite(got) & np.isfinite(want)
    if not (finite | same).all():
        return math.inf
    difference = np.linalg.norm((got - want)[finite].astype(np.float64))
    return float(difference / max(np.linalg.norm(want[finite].astype(np.float64)), 1e-30)) if finite.any() else 0.0
