/* FastPath, as in wsthreads.sessions.turn: how nearly all messages of a session are taken and handled.
 *
 * The Python version takes 40 bytecodes and six calls, of which hardly anything is in the caches of the processor when
 * the thread of the next session runs: it costs 3 times as much as in a loop.
 *
 * The fields are guarded by `lock`, which Python code takes, too; but whoever has the turn writes `runner`.
 */
#include "_fast_path.h"

#include <structmember.h>

#include "_rlock.h"

#define DLE 0x10 /* envelope.DLE */

typedef struct {
    PyObject_HEAD
    PyObject *lock, *events, *carrier, *handler, *session; /* NULL before they are set */
    unsigned long long received, ack_at;
    long long bytes_queued, ack_bytes_at;
    unsigned long long runner;
    char is_taken, is_awaited, drops;
} FastPath;

static PyObject *name_begin_close, *name_give_up_turn, *name_message, *name_thread, *name_session_thread;

/* The size of an ordinary message as Python's `len` has it; -1 for another one. */
static Py_ssize_t ordinary_size(PyObject *message) {
    if (PyUnicode_Check(message)) {
        Py_ssize_t size = PyUnicode_GET_LENGTH(message);
        return size > 0 && PyUnicode_READ_CHAR(message, 0) == DLE ? -1 : size;
    }
    if (!PyBytes_Check(message)) return -1;
    Py_ssize_t size = PyBytes_GET_SIZE(message);
    return size > 0 && *PyBytes_AS_STRING(message) == DLE ? -1 : size;
}

static int try_lock_of(FastPath *self) {
    return self->lock != NULL && Py_IS_TYPE(self->lock, &RLockType) && try_rlock(self->lock);
}

/* Count a message and take the turn. False, and nothing happens, if that is for `Intake.accept` to do. */
static int enter(FastPath *self, PyObject *carrier, PyObject *message) {
    Py_ssize_t size = ordinary_size(message);
    if (size < 0 || !try_lock_of(self)) return 0;
    long long left = self->ack_bytes_at - size;
    int passes = self->carrier == carrier && !self->is_taken && self->received + 1 < self->ack_at &&
                 self->bytes_queued < left && self->events != NULL && self->session != NULL && self->handler != NULL;
    if (passes) {
        Py_ssize_t events = PyObject_Size(self->events);
        if (events < 0) PyErr_Clear();
        passes = events == 0;
    }
    if (passes) {
        self->received++;
        self->ack_bytes_at = left;
        self->is_taken = 1;
    }
    release_rlock(self->lock);
    return passes;
}

/* Give up the turn, without changing the exception that is set; -1 if there is one. */
static int leave(FastPath *self) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    self->runner = 0;
    int done = 0;
    if (try_lock_of(self)) {
        done = !self->is_awaited;
        if (done) self->is_taken = 0;
        release_rlock(self->lock);
    }
    if (!done) {
        PyObject *none = PyObject_CallMethodNoArgs((PyObject *)self, name_give_up_turn);
        if (none == NULL && type != NULL) PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(none);
    }
    if (type != NULL) PyErr_Restore(type, value, traceback);
    return PyErr_Occurred() ? -1 : 0;
}

/* Call the handler; -1 with an exception on failure. The caller has the turn. */
static int handle(FastPath *self, PyObject *carrier, PyObject *message) {
    PyObject *handler = Py_NewRef(self->handler), *session = Py_NewRef(self->session);
    PyObject *thread = PyObject_GetAttr(carrier, name_thread), *none = NULL;
    if (thread != NULL && PyObject_SetAttr(session, name_session_thread, thread) == 0) {
        self->runner = PyThread_get_thread_ident();
        PyObject *arguments[] = {handler, session, message};
        none = self->drops ? Py_NewRef(Py_None) : PyObject_VectorcallMethod(name_message, arguments, 3, NULL);
    }
    int failed = none == NULL;
    Py_XDECREF(none);
    Py_XDECREF(thread);
    Py_DECREF(session);
    Py_DECREF(handler);
    return failed ? -1 : 0;
}

/* The handler has failed: close the session. The exception that is set remains. */
static void close_after_failure(FastPath *self) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *code = PyLong_FromLong(1011), *reason = PyUnicode_FromString("server error"), *closed = NULL;
    if (code != NULL && reason != NULL) {
        closed = PyObject_CallMethodObjArgs((PyObject *)self, name_begin_close, code, reason, NULL);
    }
    if (closed == NULL) PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(code);
    Py_XDECREF(reason);
    Py_XDECREF(closed);
    PyErr_Restore(type, value, traceback);
}

static PyObject *pass_by(FastPath *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "pass_by(carrier, message)");
        return NULL;
    }
    if (!enter(self, args[0], args[1])) Py_RETURN_FALSE;
    if (handle(self, args[0], args[1]) < 0) close_after_failure(self);
    if (leave(self) < 0) return NULL;
    Py_RETURN_TRUE;
}

static int traverse(FastPath *self, visitproc visit, void *arg) {
    Py_VISIT(self->lock);
    Py_VISIT(self->events);
    Py_VISIT(self->carrier);
    Py_VISIT(self->handler);
    Py_VISIT(self->session);
    return 0;
}

static int clear(FastPath *self) {
    Py_CLEAR(self->lock);
    Py_CLEAR(self->events);
    Py_CLEAR(self->carrier);
    Py_CLEAR(self->handler);
    Py_CLEAR(self->session);
    return 0;
}

static void dealloc(FastPath *self) {
    PyObject_GC_UnTrack(self);
    clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

#define FIELD(name, type, field) {name, type, offsetof(FastPath, field), 0, "See wsthreads.sessions.turn."}

static PyMemberDef members[] = {
    FIELD("_lock", T_OBJECT_EX, lock),
    FIELD("_events", T_OBJECT_EX, events),
    FIELD("_carrier", T_OBJECT_EX, carrier),
    FIELD("_handler", T_OBJECT_EX, handler),
    FIELD("session", T_OBJECT_EX, session),
    FIELD("received", T_ULONGLONG, received),
    FIELD("_ack_at", T_ULONGLONG, ack_at),
    FIELD("_bytes_queued", T_LONGLONG, bytes_queued),
    FIELD("_ack_bytes_at", T_LONGLONG, ack_bytes_at),
    FIELD("_runner", T_ULONGLONG, runner),
    FIELD("_is_taken", T_BOOL, is_taken),
    FIELD("_is_awaited", T_BOOL, is_awaited),
    FIELD("_drops", T_BOOL, drops),
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef methods[] = {
    {"pass_by", (PyCFunction)(void (*)(void))pass_by, METH_FASTCALL, "See wsthreads.sessions.turn."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject FastPathType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._speedups.FastPath",
    .tp_basicsize = sizeof(FastPath),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "See wsthreads.sessions.turn.",
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)dealloc,
    .tp_traverse = (traverseproc)traverse,
    .tp_clear = (inquiry)clear,
    .tp_members = members,
    .tp_methods = methods,
};

int add_fast_path_type(PyObject *module) {
    name_begin_close = PyUnicode_InternFromString("begin_close");
    name_give_up_turn = PyUnicode_InternFromString("_give_up_turn");
    name_message = PyUnicode_InternFromString("message");
    name_thread = PyUnicode_InternFromString("thread");
    name_session_thread = PyUnicode_InternFromString("_thread");
    if (name_begin_close == NULL || name_give_up_turn == NULL || name_message == NULL || name_thread == NULL ||
        name_session_thread == NULL || PyType_Ready(&FastPathType) < 0) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "FastPath", (PyObject *)&FastPathType);
}
