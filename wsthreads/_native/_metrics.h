#ifndef WSTHREADS_METRICS_H
#define WSTHREADS_METRICS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* What every outbox begins with. Guarded by the outbox's lock. */
typedef struct {
    PyObject_HEAD
    uint64_t messages_out, bytes_out;
} Tally;

extern PyTypeObject TallyType;

/* Adds the types Tally and Histogram to the module; -1 with an exception on failure. */
int add_metrics_types(PyObject *module);

#endif
