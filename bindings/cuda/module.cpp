// The module ropewalk._cuda, which holds one capsule. Its import needs neither a device nor a driver: the CUDA runtime
// is linked into it and looks for them at the first call.

#include <Python.h>

#include "interface.hpp"
#include "kernels.hpp"

namespace ropewalk::cuda {

namespace {

int fill(PyObject* module) {
    // The capsule takes no const pointer, but nothing writes through it.
    PyObject* const capsule =
        PyCapsule_New(const_cast<void*>(static_cast<const void*>(&functions)), capsule_name, nullptr);
    if (capsule == nullptr || PyModule_AddObject(module, "interface", capsule) != 0) {
        Py_XDECREF(capsule);
        return -1;
    }
    return PyModule_AddStringConstant(module, "architectures", ROPEWALK_CUDA_ARCHITECTURES);
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(fill)}, {0, nullptr}};
PyModuleDef definition{PyModuleDef_HEAD_INIT,
                       "ropewalk._cuda",
                       "The CUDA kernels, which ropewalk loads for the first tensor on a GPU.",
                       0,
                       nullptr,
                       slots,
                       nullptr,
                       nullptr,
                       nullptr};

}  // namespace

}  // namespace ropewalk::cuda

PyMODINIT_FUNC PyInit__cuda() { return PyModuleDef_Init(&ropewalk::cuda::definition); }
