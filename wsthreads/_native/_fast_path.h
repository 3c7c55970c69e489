#ifndef WSTHREADS_FAST_PATH_H
#define WSTHREADS_FAST_PATH_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Adds the type FastPath to the module; -1 with an exception on failure. */
int add_fast_path_type(PyObject *module);

#endif
