"""Arrays in host memory that claim by DLPack to lie on a CUDA device, as those of CuPy do."""

import ctypes

import ml_dtypes
import numpy as np

CUDA = 2  # kDLCUDA
CODES = {"u": 1, "i": 0, "f": 2}  # kDLInt, kDLFloat; kDLBfloat is 4


class Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("manager", ctypes.c_void_p),  # the remaining fields are those of DLManagedTensor
        ("deleter", ctypes.c_void_p),
    )


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Array:
    def __init__(self, memory, device=0):
        self.memory = np.asarray(memory)
        self.device = device
        self.dtype = self.memory.dtype
        axes = self.memory.ndim
        strides = [stride // self.memory.itemsize for stride in self.memory.strides]
        self.shape = (ctypes.c_int64 * axes)(*self.memory.shape)
        self.strides = (ctypes.c_int64 * axes)(*strides)
        code = 4 if self.dtype == ml_dtypes.bfloat16 else CODES[self.dtype.kind]
        bits = 8 * self.memory.itemsize
        self.tensor = Tensor(
            self.memory.ctypes.data, CUDA, device, axes, code, bits, 1, self.shape, self.strides, 0, None, None
        )

    def __dlpack_device__(self):
        return (CUDA, self.device)

    def __dlpack__(self, stream=None):
        assert stream is None  # ropewalk launches on the legacy default stream
        return new_capsule(ctypes.addressof(self.tensor), b"dltensor", None)


def empty_like(array):
    """The function that ropewalk takes from the library of an array to make a result."""
    return Array(np.full_like(array.memory, -1), array.device)
