/* append_all, lock_queued and unlock: functions of wsthreads.protocol.fanout for many outboxes at once.
 *
 * append_all only appends to memory. Its caller holds the room's order lock.
 */
#include "_outboxes.h"

#include <structmember.h>

#include "_metrics.h"
#include "_rlock.h"

/* ---- attributes ---- */

static const char *const spelled[ATTRIBUTES] = {"_queue",   "_fd",       "_close_frame", "_detached",
                                                "is_blocked", "_draining", "_lock",        "_kept"};
PyObject *attribute_names[ATTRIBUTES];
PyTypeObject *known_type;
Py_ssize_t known_offsets[ATTRIBUTES];
int known_has_tally;

static PyObject *acquire, *release;

void know(PyTypeObject *type) {
    Py_INCREF(type);
    Py_XSETREF(known_type, type);
    known_has_tally = PyType_IsSubtype(type, &TallyType);
    for (int i = 0; i < ATTRIBUTES; i++) {
        PyObject *member = _PyType_Lookup(type, attribute_names[i]); /* borrowed */
        known_offsets[i] = 0;
        if (member != NULL && Py_IS_TYPE(member, &PyMemberDescr_Type)) {
            const PyMemberDef *slot = ((PyMemberDescrObject *)member)->d_member;
            if (slot->type == T_OBJECT_EX && PyType_IsSubtype(type, PyDescr_TYPE(member))) {
                known_offsets[i] = slot->offset;
            }
        }
    }
}

/* ---- append_all(outboxes: tuple, frame, skip) -> how many took it ---- */

int append_frame(PyObject *outbox, PyObject *frame) {
    int open = is(outbox, CLOSE_FRAME, Py_None);
    if (open > 0) open = is(outbox, DETACHED, Py_False);
    if (open < 1) return open;
    PyObject *queue = get(outbox, QUEUE);
    return queue == NULL || PyList_Append(queue, frame) < 0 ? -1 : 1;
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

/* Release the locks of all outboxes, even after a failure; -1 with an exception if one failed. */
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

int add_outbox_functions(PyObject *module) {
    for (int i = 0; i < ATTRIBUTES; i++) {
        attribute_names[i] = PyUnicode_InternFromString(spelled[i]);
        if (attribute_names[i] == NULL) return -1;
    }
    acquire = PyUnicode_InternFromString("acquire");
    release = PyUnicode_InternFromString("release");
    return acquire == NULL || release == NULL ? -1 : PyModule_AddFunctions(module, methods);
}
