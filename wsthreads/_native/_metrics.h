#ifndef WSTHREADS_METRICS_H
#define WSTHREADS_METRICS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* The first fields of every outbox. They are changed only with the outbox's lock held. Any thread may read them. */
typedef struct {
    PyObject_HEAD
    uint64_t messages_out, bytes_out, kept_bytes, window;
} Tally;

/* Adds to a count of a tally. */
#define COUNT_UP(count, number) __atomic_store_n(&(count), (count) + (uint64_t)(number), __ATOMIC_RELAXED)

extern PyTypeObject TallyType;

/* Adds the types Tally and Histogram to the module; -1 with an exception on failure. */
int add_metrics_types(PyObject *module);

#endif
