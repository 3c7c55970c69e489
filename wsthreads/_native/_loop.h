#ifndef WSTHREADS_LOOP_H
#define WSTHREADS_LOOP_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Adds the type MessageLoop to the module; -1 with an exception on failure. */
int add_loop_type(PyObject *module);

#endif
