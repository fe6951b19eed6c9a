"""A producer of DLPack tensors in ctypes, of either form, that counts how often its deleter is called."""

import ctypes

DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("dtype", DataType), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class Managed(ctypes.Structure):
    _fields_ = [("dl_tensor", DLTensor), ("manager_ctx", ctypes.c_void_p), ("deleter", DELETER)]


class ManagedVersioned(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("manager_ctx", ctypes.c_void_p),
                ("deleter", DELETER), ("flags", ctypes.c_uint64), ("dl_tensor", DLTensor)]


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
is_capsule = ctypes.pythonapi.PyCapsule_IsValid
is_capsule.argtypes = [ctypes.py_object, ctypes.c_char_p]


exported = []  # producers live for good: a consumer may call the deleter at any time


class Producer:
    """Memory of 64 words of 32 bits, described as the arguments say. knows_versions: which form it gives."""

    def __init__(self, shape=(2, 3), strides=None, code=2, bits=32, device=1, byte_offset=0, read_only=False,
                 knows_versions=True, version=(1, 0)):
        self.memory = (ctypes.c_uint32 * 64)()
        self.deleted = 0
        self.managed = ManagedVersioned(*version) if knows_versions else Managed()
        if read_only:
            self.managed.flags = 1
        self.managed.deleter = DELETER(self._delete)
        array = ctypes.c_int64 * len(shape)
        self.managed.dl_tensor = DLTensor(ctypes.addressof(self.memory), device, 0, len(shape), DataType(code, bits, 1),
                                          array(*shape), array(*strides) if strides else None, byte_offset)
        self.name = b"dltensor_versioned" if knows_versions else b"dltensor"
        if not knows_versions:
            self.__class__ = _Older

    def _delete(self, _):
        self.deleted += 1

    def __dlpack__(self, *, max_version=None):
        assert max_version == (1, 0)
        return self.capsule()

    def capsule(self):
        """Without a destructor of its own: what nobody consumes is never deleted."""
        exported.append(self)
        return new_capsule(ctypes.addressof(self.managed), self.name, None)


class _Older(Producer):
    def __dlpack__(self):
        return self.capsule()
