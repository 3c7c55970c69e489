/* OutboxState, and functions for many outboxes at once: append_all, lock_queued and unlock of
 * wsthreads.protocol.fanout.
 *
 * An outbox is the queue of frames for one client. append_all writes only to memory, because its caller holds the lock
 * of a room's order.
 */
#include "_outboxes.h"

#include <structmember.h>

#include "_rlock.h"

/* ---- OutboxState() ---- */

static const char *const spelled[ATTRIBUTES] = {"_queue",   "_fd",       "_close_frame", "_detached",
                                                "is_blocked", "_draining", "_lock",        "_kept"};
PyObject *attribute_names[ATTRIBUTES];
PyTypeObject *usual_type;

static PyObject *acquire, *release;

int is_state_type(PyTypeObject *type) {
    PyTypeObject *none = NULL;
    if (!PyType_IsSubtype(type, &OutboxStateType)) return 0;
    if (__atomic_load_n(&usual_type, __ATOMIC_RELAXED) == NULL) {
        Py_INCREF(type);
        int first = __atomic_compare_exchange_n(&usual_type, &none, type, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
        if (!first) Py_DECREF(type);
    }
    return 1;
}

static int state_traverse(OutboxState *self, visitproc visit, void *arg) {
    for (int i = 0; i < ATTRIBUTES; i++) Py_VISIT(self->attributes[i]);
    return 0;
}

static int state_clear(OutboxState *self) {
    for (int i = 0; i < ATTRIBUTES; i++) Py_CLEAR(self->attributes[i]);
    return 0;
}

static void state_dealloc(OutboxState *self) {
    PyObject_GC_UnTrack(self);
    state_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef state_members[ATTRIBUTES + 1]; /* add_outbox_type fills this */

PyTypeObject OutboxStateType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._speedups.OutboxState",
    .tp_basicsize = sizeof(OutboxState),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "See wsthreads.protocol.writer.",
    .tp_base = &TallyType,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)state_dealloc,
    .tp_traverse = (traverseproc)state_traverse,
    .tp_clear = (inquiry)state_clear,
    .tp_members = state_members,
};

int add_outbox_type(PyObject *module) {
    for (int i = 0; i < ATTRIBUTES && state_members[i].name == NULL; i++) {
        size_t offset = offsetof(OutboxState, attributes) + (size_t)i * sizeof(PyObject *);
        state_members[i] = (PyMemberDef){spelled[i], T_OBJECT_EX, (Py_ssize_t)offset, 0, NULL};
    }
    if (PyType_Ready(&OutboxStateType) < 0) return -1;
    return PyModule_AddObjectRef(module, "OutboxState", (PyObject *)&OutboxStateType);
}

/* ---- append_all(outboxes: tuple, frame, skip) -> how many took it ---- */

int append_frame(PyObject *outbox, PyObject *frame) {
    int open = is(outbox, CLOSE_FRAME, Py_None);
    if (open > 0) open = is(outbox, DETACHED, Py_False);
    if (open < 1) return open;
    PyObject *queue = get(outbox, QUEUE);
    if (queue == NULL || PyList_Append(queue, frame) < 0) return -1;
    FENCE(); /* either the holder of the lock sees the frame, or this thread sees that the lock is free */
    return 1;
}

static PyObject *append_all(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 3 || !PyTuple_Check(args[0]) || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "append_all(outboxes: tuple, frame: bytes, skip)");
        return NULL;
    }
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args[0]); i++) {
        PyObject *outbox = PyTuple_GET_ITEM(args[0], i);
        if (outbox == args[2]) continue;
        int took = append_frame(outbox, args[1]);
        if (took < 0) return NULL;
        count += took;
    }
    return PyLong_FromSsize_t(count);
}

/* ---- lock_queued(outboxes, start, count) -> (locked: list, blocked: list), unlock(locked) -> list ---- */

int try_lock(PyObject *lock) {
    if (Py_IS_TYPE(lock, &RLockType)) return try_rlock(lock);
    PyObject *taken = PyObject_CallMethodOneArg(lock, acquire, Py_False);
    Py_XDECREF(taken);
    return taken == NULL ? -1 : taken == Py_True;
}

int release_lock(PyObject *lock) {
    if (Py_IS_TYPE(lock, &RLockType)) return release_rlock(lock);
    PyObject *none = PyObject_CallMethodNoArgs(lock, release);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

/* Release the locks of all outboxes, even if one fails. In this case, returns -1 with an exception. */
static int release_all(PyObject *outboxes) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(outboxes); i++) {
        PyObject *lock = get(PyList_GET_ITEM(outboxes, i), LOCK);
        if (lock != NULL && release_lock(lock) == 0) continue;
        if (type == NULL) PyErr_Fetch(&type, &value, &traceback);
        PyErr_Clear();
    }
    if (type == NULL) return 0;
    PyErr_Restore(type, value, traceback);
    return -1;
}

static PyObject *lock_queued(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    Py_ssize_t start = nargs == 3 ? PyLong_AsSsize_t(args[1]) : -1, count = nargs == 3 ? PyLong_AsSsize_t(args[2]) : -1;
    if (start < 0 || count < 0 || !(PyTuple_Check(args[0]) || PyList_Check(args[0]))) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "lock_queued(outboxes, start: int, count: int)");
        return NULL;
    }
    PyObject *locked = PyList_New(0), *blocked = PyList_New(0), *result = NULL;
    if (locked == NULL || blocked == NULL) goto done;
    for (Py_ssize_t i = start; i < PySequence_Fast_GET_SIZE(args[0]) && i - start < count; i++) {
        PyObject *outbox = PySequence_Fast_GET_ITEM(args[0], i), *lock;
        int wanted = has_queued(outbox);
        if (wanted > 0) wanted = is(outbox, DRAINING, Py_False);
        if (wanted < 0) goto failed;
        if (!wanted) continue;
        int is_blocked = is(outbox, BLOCKED, Py_True);
        if (is_blocked < 0 || (is_blocked && PyList_Append(blocked, outbox) < 0)) goto failed;
        if (is_blocked) continue;
        if ((lock = get(outbox, LOCK)) == NULL || PyList_Append(locked, outbox) < 0) goto failed;
        int taken = try_lock(lock);
        if (taken < 1 && PyList_SetSlice(locked, PyList_GET_SIZE(locked) - 1, PY_SSIZE_T_MAX, NULL) < 0) goto failed;
        if (taken < 0) goto failed;
    }
    result = PyTuple_Pack(2, locked, blocked);
failed:
    if (result == NULL) release_all(locked);
done:
    Py_XDECREF(locked);
    Py_XDECREF(blocked);
    return result;
}

static PyObject *unlock(PyObject *module, PyObject *outboxes) {
    (void)module;
    if (!PyList_Check(outboxes)) {
        PyErr_SetString(PyExc_TypeError, "unlock(outboxes: list)");
        return NULL;
    }
    if (release_all(outboxes) < 0) return NULL;
    PyObject *left = PyList_New(0);
    for (Py_ssize_t i = 0; left != NULL && i < PyList_GET_SIZE(outboxes); i++) {
        PyObject *outbox = PyList_GET_ITEM(outboxes, i);
        int queued = has_queued(outbox);
        if (queued < 0 || (queued && PyList_Append(left, outbox) < 0)) Py_CLEAR(left);
    }
    return left;
}

/* ---- the module ---- */

static PyMethodDef methods[] = {
    {"append_all", (PyCFunction)(void (*)(void))append_all, METH_FASTCALL, "See wsthreads.protocol.fanout."},
    {"lock_queued", (PyCFunction)(void (*)(void))lock_queued, METH_FASTCALL, "See wsthreads.protocol.fanout."},
    {"unlock", unlock, METH_O, "See wsthreads.protocol.fanout."},
    {NULL, NULL, 0, NULL},
};

/* The names are made only once, because another interpreter of the same process may also import the module. */
static int spell(PyObject **name, const char *text) {
    if (*name == NULL) *name = PyUnicode_InternFromString(text);
    return *name == NULL ? -1 : 0;
}

int add_outbox_functions(PyObject *module) {
    for (int i = 0; i < ATTRIBUTES; i++) {
        if (spell(&attribute_names[i], spelled[i]) < 0) return -1;
    }
    if (spell(&acquire, "acquire") < 0 || spell(&release, "release") < 0) return -1;
    return PyModule_AddFunctions(module, methods);
}
