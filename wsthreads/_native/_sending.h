#ifndef WSTHREADS_SENDING_H
#define WSTHREADS_SENDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Adds send_queues and post to the module; -1 with an exception on failure. */
int add_sending_functions(PyObject *module);

#endif
