#ifndef WSTHREADS_INBOX_H
#define WSTHREADS_INBOX_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Adds the types Inbox and Line to the module; -1 with an exception on failure. */
int add_inbox_types(PyObject *module);

#endif
