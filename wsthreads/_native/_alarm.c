/* Alarm, as in wsthreads.javascript.alarm: the function by which a script's engine asks whether to stop.
 *
 * The engine calls it in the thread of the script's interpreter (the isolate), with the GIL held, and with the Alarm as
 * its `opaque`. Any thread may set `is_interrupted`.
 */
#include "_alarm.h"

#include <math.h>
#include <structmember.h>
#include <time.h>

/* The same value as in Python. */
#define FIRST_TURN_S 0.02
#define STEP 10
#define MAX_OPERATIONS 250
#define INTERVAL_S 0.001

typedef struct {
    PyObject_HEAD
    PyObject *look;   /* gets the time, and returns whether to stop */
    int32_t *counter; /* a counter of the engine, or NULL */
    int operations;
    double asked_at, armed_at, timeout_s, deadline, turn_ends, cpu_ends;
    char is_interrupted, has_stopped;
} Alarm;

static double monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void set_counter(Alarm *self, int operations) {
    if (self->counter != NULL) *self->counter = self->operations = operations;
}

static void go_on(Alarm *self, double now) {
    double elapsed_s = now - self->asked_at;
    if (elapsed_s < INTERVAL_S) {
        set_counter(self, self->operations + STEP < MAX_OPERATIONS ? self->operations + STEP : MAX_OPERATIONS);
    } else {
        int operations = (int)(self->operations * INTERVAL_S / elapsed_s);
        set_counter(self, operations > 1 ? operations : 1);
    }
}

static int handler(void *runtime, void *opaque) {
    (void)runtime;
    Alarm *self = opaque;
    double now = monotonic();
    if (now < self->deadline && now < self->turn_ends && !__atomic_load_n(&self->is_interrupted, __ATOMIC_RELAXED)) {
        go_on(self, now);
        self->asked_at = now;
        return 0;
    }
    PyObject *number = PyFloat_FromDouble(now), *answer = NULL;
    if (number != NULL && self->look != NULL) answer = PyObject_CallOneArg(self->look, number);
    Py_XDECREF(number);
    int stop = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    if (stop < 0 && PyErr_Occurred()) PyErr_WriteUnraisable((PyObject *)self);
    if (stop > 0) {
        self->has_stopped = 1;
        set_counter(self, MAX_OPERATIONS);
        return 1;
    }
    go_on(self, now);
    self->asked_at = monotonic();
    return 0;
}

/* ---- Alarm(address of the counter or 0, look) ---- */

static int init(Alarm *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"counter", "look", NULL};
    unsigned long long counter;
    PyObject *look;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "KO:Alarm", names, &counter, &look)) return -1;
    self->counter = (int32_t *)(uintptr_t)counter;
    self->operations = STEP;
    self->deadline = self->turn_ends = self->cpu_ends = INFINITY;
    Py_INCREF(look);
    Py_XSETREF(self->look, look);
    return 0;
}

static PyObject *arm(Alarm *self, PyObject *argument) {
    double timeout_s = PyFloat_AsDouble(argument);
    if (timeout_s == -1 && PyErr_Occurred()) return NULL;
    double now = self->asked_at = self->armed_at = monotonic();
    self->timeout_s = timeout_s;
    self->deadline = now + timeout_s;
    self->turn_ends = now + FIRST_TURN_S;
    self->cpu_ends = INFINITY;
    self->has_stopped = 0;
    set_counter(self, STEP);
    return PyFloat_FromDouble(now);
}

static PyObject *disarm(Alarm *self, PyObject *none) {
    (void)none;
    self->deadline = INFINITY;
    Py_RETURN_NONE;
}

static int traverse(Alarm *self, visitproc visit, void *arg) {
    Py_VISIT(self->look);
    return 0;
}

static int clear(Alarm *self) {
    Py_CLEAR(self->look);
    return 0;
}

static void dealloc(Alarm *self) {
    PyObject_GC_UnTrack(self);
    clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

#define FIELD(name, type) {#name, type, offsetof(Alarm, name), 0, "See wsthreads.javascript.alarm."}

static PyMemberDef members[] = {
    FIELD(armed_at, T_DOUBLE),
    FIELD(timeout_s, T_DOUBLE),
    FIELD(deadline, T_DOUBLE),
    FIELD(turn_ends, T_DOUBLE),
    FIELD(cpu_ends, T_DOUBLE),
    FIELD(is_interrupted, T_BOOL),
    FIELD(has_stopped, T_BOOL),
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef methods[] = {
    {"arm", (PyCFunction)arm, METH_O, "See wsthreads.javascript.alarm."},
    {"disarm", (PyCFunction)disarm, METH_NOARGS, "See wsthreads.javascript.alarm."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject AlarmType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._bridge.Alarm",
    .tp_basicsize = sizeof(Alarm),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "See wsthreads.javascript.alarm.",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)init,
    .tp_dealloc = (destructor)dealloc,
    .tp_traverse = (traverseproc)traverse,
    .tp_clear = (inquiry)clear,
    .tp_methods = methods,
    .tp_members = members,
};

int add_alarm_type(PyObject *module) {
    if (PyType_Ready(&AlarmType) < 0 || PyModule_AddObjectRef(module, "Alarm", (PyObject *)&AlarmType) < 0) return -1;
    PyObject *address = PyLong_FromVoidPtr((void *)(uintptr_t)handler);
    int failed = address == NULL ? -1 : PyModule_AddObjectRef(module, "interrupt_handler", address);
    Py_XDECREF(address);
    return failed;
}
