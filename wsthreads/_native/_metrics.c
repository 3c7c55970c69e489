/* Tally and Histogram, as in wsthreads.monitoring.metrics: they count every message.
 *
 * A histogram is changed only by atomic operations. So no change is lost, with or without the GIL.
 */
#include "_metrics.h"

#include <math.h>
#include <stddef.h>
#include <time.h>

/* ---- Tally() ---- */

/* Threads without the outbox's lock read the counts, too. So each access is atomic. */
static uint64_t *count_in(PyObject *tally, void *offset) {
    return (uint64_t *)((char *)tally + (size_t)offset);
}

static PyObject *get_count(PyObject *self, void *offset) {
    return PyLong_FromUnsignedLongLong(__atomic_load_n(count_in(self, offset), __ATOMIC_RELAXED));
}

static int set_count(PyObject *self, PyObject *value, void *offset) {
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "a count cannot be deleted");
        return -1;
    }
    unsigned long long count = PyLong_AsUnsignedLongLong(value);
    if (count == (unsigned long long)-1 && PyErr_Occurred()) return -1;
    __atomic_store_n(count_in(self, offset), count, __ATOMIC_RELAXED);
    return 0;
}

#define COUNT(name) {#name, get_count, set_count, "See wsthreads.monitoring.metrics.", (void *)offsetof(Tally, name)}

static PyGetSetDef tally_counts[] = {
    COUNT(messages_out), COUNT(bytes_out), COUNT(kept_bytes), COUNT(window), {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject TallyType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._speedups.Tally",
    .tp_basicsize = sizeof(Tally),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_doc = "See wsthreads.monitoring.metrics.",
    .tp_new = PyType_GenericNew,
    .tp_getset = tally_counts,
};

/* ---- Histogram() ---- */

static const uint64_t bounds_ns[] = { /* metrics.BOUNDS_S */
    10000,      25000,      50000,
    100000,     250000,     500000,
    1000000,    2500000,    5000000,
    10000000,   25000000,   50000000,
    100000000,  250000000,  500000000,
    1000000000, 2500000000, 5000000000,
    10000000000,
};

#define BOUNDS (sizeof bounds_ns / sizeof *bounds_ns)

typedef struct {
    PyObject_HEAD
    uint64_t counts[BOUNDS + 1], total_ns; /* atomic */
} Histogram;

static void add(Histogram *self, uint64_t ns) {
    size_t i = 0;
    while (i < BOUNDS && ns > bounds_ns[i]) i++;
    __atomic_add_fetch(&self->counts[i], 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&self->total_ns, ns, __ATOMIC_RELAXED);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static PyObject *histogram_observe(Histogram *self, PyObject *argument) {
    double seconds = PyFloat_AsDouble(argument);
    if (seconds == -1 && PyErr_Occurred()) return NULL;
    if (!(seconds < 1e9)) { /* also true if it is NaN */
        PyErr_SetString(PyExc_ValueError, "observe(seconds: fewer than 1e9)");
        return NULL;
    }
    add(self, seconds > 0 ? (uint64_t)(seconds * 1e9) : 0);
    Py_RETURN_NONE;
}

static PyObject *histogram_call(Histogram *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs < 1) {
        PyErr_SetString(PyExc_TypeError, "call(function, *arguments)");
        return NULL;
    }
    uint64_t began = now_ns();
    PyObject *result = PyObject_Vectorcall(args[0], args + 1, (size_t)nargs - 1, NULL);
    add(self, now_ns() - began);
    return result;
}

static PyObject *histogram_snapshot(Histogram *self, PyObject *none) {
    (void)none;
    PyObject *counts = PyTuple_New(BOUNDS + 1);
    for (size_t i = 0; counts != NULL && i <= BOUNDS; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(__atomic_load_n(&self->counts[i], __ATOMIC_RELAXED));
        if (count == NULL) Py_CLEAR(counts);
        else PyTuple_SET_ITEM(counts, (Py_ssize_t)i, count);
    }
    if (counts == NULL) return NULL;
    return Py_BuildValue("(Nd)", counts, (double)__atomic_load_n(&self->total_ns, __ATOMIC_RELAXED) * 1e-9);
}

static PyMethodDef histogram_methods[] = {
    {"observe", (PyCFunction)histogram_observe, METH_O, "See wsthreads.monitoring.metrics."},
    {"call", (PyCFunction)(void (*)(void))histogram_call, METH_FASTCALL, "See wsthreads.monitoring.metrics."},
    {"snapshot", (PyCFunction)histogram_snapshot, METH_NOARGS, "See wsthreads.monitoring.metrics."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject HistogramType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._speedups.Histogram",
    .tp_basicsize = sizeof(Histogram),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "See wsthreads.monitoring.metrics.",
    .tp_new = PyType_GenericNew,
    .tp_methods = histogram_methods,
};

int add_metrics_types(PyObject *module) {
    if (PyType_Ready(&TallyType) < 0 || PyType_Ready(&HistogramType) < 0) return -1;
    if (PyModule_AddObjectRef(module, "Tally", (PyObject *)&TallyType) < 0) return -1;
    return PyModule_AddObjectRef(module, "Histogram", (PyObject *)&HistogramType);
}
