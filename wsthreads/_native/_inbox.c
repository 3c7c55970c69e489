/* Inbox: the queue from the threads of sessions to the thread of the script's interpreter (the isolate).
 *
 * `get` returns the items in the order in which `put` and Intake.pump have queued them.
 */
#include "_inbox.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "_reading.h"

/* ---- the queue ---- */

/* Queue an item, and release the mutex. Returns true if the inbox is open. Otherwise does not queue the item. */
static bool append_locked(Inbox *inbox, Item *item) {
    bool is_open = !inbox->is_closed, wake = is_open && inbox->is_waited_for;
    if (is_open) {
        item->next = NULL;
        *inbox->end = item;
        inbox->end = &item->next;
        inbox->is_waited_for = false;
    }
    pthread_mutex_unlock(&inbox->mutex);
    if (wake) pthread_cond_signal(&inbox->filled);
    return is_open;
}

bool append_text(Inbox *inbox, Item *item, uint64_t turn, size_t wire_bytes) {
    Intake *intake = item->intake;
    pthread_mutex_lock(&inbox->mutex);
    if (inbox->is_closed || intake->turn != turn) {
        pthread_mutex_unlock(&inbox->mutex);
        return false;
    }
    intake->queued++;
    __atomic_store_n(&intake->texts, intake->texts + 1, __ATOMIC_RELEASE);
    __atomic_store_n(&intake->bytes, intake->bytes + wire_bytes, __ATOMIC_RELEASE);
    return append_locked(inbox, item);
}

static Item *take_locked(Inbox *inbox) {
    Item *item = inbox->first;
    if (item != NULL) {
        inbox->first = item->next;
        if (inbox->first == NULL) inbox->end = &inbox->first;
    }
    return item;
}

/* Returns the next item, or NULL if none comes in time. A negative time means no limit. */
static Item *take(Inbox *inbox, double timeout_s) {
    Item *item;
    int error = 0;
    double at = monotonic() + timeout_s;
    struct timespec until = {.tv_sec = (time_t)at, .tv_nsec = (long)((at - (double)(time_t)at) * 1e9)};
    pthread_mutex_lock(&inbox->mutex);
    while ((item = take_locked(inbox)) == NULL && timeout_s != 0 && error == 0) {
        inbox->is_waited_for = true;
        error = timeout_s < 0 ? pthread_cond_wait(&inbox->filled, &inbox->mutex)
                              : pthread_cond_timedwait(&inbox->filled, &inbox->mutex, &until);
    }
    inbox->is_waited_for = false;
    pthread_mutex_unlock(&inbox->mutex);
    return item;
}

/* ---- Inbox() ---- */

#define MAX_TIMEOUT_S 1e8

static PyObject *inbox_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    (void)args, (void)keywords;
    Inbox *self = (Inbox *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->filled, &monotonic);
    pthread_condattr_destroy(&monotonic);
    self->end = &self->first;
    return (PyObject *)self;
}

bool may_let_go(Intake *intake) {
    bool kept = intake->is_kept && intake->queued == 0 && intake->pumps == 0;
    if (kept) intake->is_kept = false;
    return kept;
}

/* Returns what `get` returns for an item. Frees the item. */
static PyObject *unpacked(Inbox *inbox, Item *item) {
    PyObject *answer = item->object;
    Intake *intake = item->intake;
    if (answer == NULL) {
        answer = Py_BuildValue("(Os#n)", intake, item->text, (Py_ssize_t)item->size, (Py_ssize_t)item->size);
        pthread_mutex_lock(&inbox->mutex);
        intake->queued--;
        bool let_go = may_let_go(intake);
        pthread_mutex_unlock(&inbox->mutex);
        if (let_go) Py_DECREF(intake);
    }
    free(item);
    return answer;
}

PyObject *next_intake(Inbox *inbox) {
    pthread_mutex_lock(&inbox->mutex);
    Item *item = inbox->first;
    Intake *intake = item == NULL || item->object != NULL ? NULL : item->intake;
    pthread_mutex_unlock(&inbox->mutex);
    return (PyObject *)intake;
}

PyObject *get_now(Inbox *inbox) {
    Item *item = take(inbox, 0);
    return item == NULL ? NULL : unpacked(inbox, item);
}

static void inbox_dealloc(Inbox *self) {
    for (Item *item; (item = take(self, 0)) != NULL;) {
        PyObject *left = unpacked(self, item);
        if (left == NULL) PyErr_Clear();
        Py_XDECREF(left);
    }
    pthread_cond_destroy(&self->filled);
    pthread_mutex_destroy(&self->mutex);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *inbox_put(Inbox *self, PyObject *object) {
    Item *item = malloc(sizeof *item);
    if (item == NULL) return PyErr_NoMemory();
    *item = (Item){.object = object};
    Py_INCREF(object);
    pthread_mutex_lock(&self->mutex);
    if (!append_locked(self, item)) {
        free(item);
        Py_DECREF(object);
    }
    Py_RETURN_NONE;
}

static PyObject *inbox_close(Inbox *self, PyObject *none) {
    (void)none;
    pthread_mutex_lock(&self->mutex);
    self->is_closed = true;
    pthread_mutex_unlock(&self->mutex);
    Py_RETURN_NONE;
}

static PyObject *inbox_get(Inbox *self, PyObject *const *args, Py_ssize_t nargs) {
    double timeout_s = nargs == 0 || args[0] == Py_None ? -1 : PyFloat_AsDouble(args[0]);
    if (timeout_s == -1 && PyErr_Occurred()) return NULL;
    if (nargs > 1 || timeout_s > MAX_TIMEOUT_S || isnan(timeout_s)) {
        PyErr_SetString(PyExc_ValueError, "get(timeout: seconds, or None)");
        return NULL;
    }
    Item *item = take(self, 0);
    if (item == NULL && timeout_s != 0) {
        PyThreadState *state = PyEval_SaveThread();
        item = take(self, timeout_s);
        PyEval_RestoreThread(state);
    }
    if (item == NULL) Py_RETURN_NONE;
    return unpacked(self, item);
}

static PyObject *inbox_empty(Inbox *self, PyObject *none) {
    (void)none;
    pthread_mutex_lock(&self->mutex);
    bool is_empty = self->first == NULL;
    pthread_mutex_unlock(&self->mutex);
    return PyBool_FromLong(is_empty);
}

/* ---- the type ---- */

static PyMethodDef inbox_methods[] = {
    {"put", (PyCFunction)inbox_put, METH_O, "See wsthreads.javascript.inbox."},
    {"get", (PyCFunction)(void (*)(void))inbox_get, METH_FASTCALL, "See wsthreads.javascript.inbox."},
    {"close", (PyCFunction)inbox_close, METH_NOARGS, "See wsthreads.javascript.inbox."},
    {"empty", (PyCFunction)inbox_empty, METH_NOARGS, "See wsthreads.javascript.inbox."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject InboxType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._speedups.Inbox",
    .tp_basicsize = sizeof(Inbox),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "See wsthreads.javascript.inbox.",
    .tp_new = inbox_new,
    .tp_dealloc = (destructor)inbox_dealloc,
    .tp_methods = inbox_methods,
};

int add_inbox_type(PyObject *module) {
    if (PyType_Ready(&InboxType) < 0) return -1;
    return PyModule_AddObjectRef(module, "Inbox", (PyObject *)&InboxType);
}
