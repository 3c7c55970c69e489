#ifndef WSTHREADS_METRICS_H
#define WSTHREADS_METRICS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* The first fields of every outbox. Guarded by the lock of the outbox. */
typedef struct {
    PyObject_HEAD
    uint64_t messages_out, bytes_out, kept_bytes, window;
} Tally;

extern PyTypeObject TallyType;

/* Adds the types Tally and Histogram to the module; -1 with an exception on failure. */
int add_metrics_types(PyObject *module);

#endif
