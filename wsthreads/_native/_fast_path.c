/* FastPath, as in wsthreads.sessions.turn: it takes and handles nearly all messages and requests of a session.
 *
 * A thread that has the session's *turn* may handle its events. The Python version takes 40 bytecodes and six calls.
 * Almost none of this is in the processor's caches when the thread of the next session runs. So the Python version
 * costs three times as much in a server as in a loop.
 *
 * `lock` guards the fields. Python code takes this lock, too. The thread that has the turn writes `runner` and `thread`
 * without the lock.
 */
#include "_fast_path.h"

#include <structmember.h>

#include "_rlock.h"

#define DLE 0x10 /* envelope.DLE */
#define MAX_DIGITS 15 /* an id with at most this many digits is never above envelope.MAX_NUMBER */

typedef struct {
    PyObject_HEAD
    PyObject *lock, *events, *carrier, *handler, *session, *unanswered; /* each is NULL until it is set */
    unsigned long long received, ack_at, heard;
    Py_ssize_t most_unanswered;
    long long bytes_queued, ack_bytes_at;
    unsigned long long runner, thread;
    char is_taken, is_awaited, drops;
} FastPath;

static PyObject *name_begin_close, *name_give_up_turn, *name_message, *name_handle_request, *name_handle_waiting,
    *name_session_thread;

/* An ordinary message or a request, with what `pass_by` needs. */
typedef struct {
    PyObject *data; /* a strong reference */
    Py_ssize_t size; /* of the data, like Python's `len` */
    unsigned long long id; /* 0 for an ordinary message */
    PyObject *number; /* the id, a strong reference; NULL for an ordinary message */
} Message;

/* Like envelope.usual_request: returns the id, and sets the start of the data. Returns 0 for any other message. */
static unsigned long long request_id(const void *text, int kind, Py_ssize_t size, Py_ssize_t *data_at) {
    if (size < 4 || PyUnicode_READ(kind, text, 1) != 'q' || PyUnicode_READ(kind, text, 2) == '0') return 0;
    unsigned long long id = 0;
    Py_ssize_t at = 2;
    for (; at < size && at < 2 + MAX_DIGITS; at++) {
        Py_UCS4 digit = PyUnicode_READ(kind, text, at);
        if (digit < '0' || digit > '9') break;
        id = id * 10 + (digit - '0');
    }
    *data_at = at + 1;
    return at < size && PyUnicode_READ(kind, text, at) == ':' ? id : 0;
}

/* Returns 1 if this file can handle the message, 0 if `Intake.accept` must, -1 with an exception on failure. */
static int parse(PyObject *whole, Message *message) {
    int is_text = PyUnicode_Check(whole);
    if (!is_text && !PyBytes_Check(whole)) return 0;
    const void *text = is_text ? PyUnicode_DATA(whole) : PyBytes_AS_STRING(whole);
    int kind = is_text ? (int)PyUnicode_KIND(whole) : (int)PyUnicode_1BYTE_KIND;
    Py_ssize_t size = is_text ? PyUnicode_GET_LENGTH(whole) : PyBytes_GET_SIZE(whole), data_at = 0;
    if (size == 0 || PyUnicode_READ(kind, text, 0) != DLE) {
        *message = (Message){.data = Py_NewRef(whole), .size = size};
        return 1;
    }
    unsigned long long id = request_id(text, kind, size, &data_at);
    if (id == 0) return 0;
    PyObject *data = is_text ? PyUnicode_Substring(whole, data_at, size)
                             : PyBytes_FromStringAndSize((const char *)text + data_at, size - data_at);
    *message = (Message){.data = data, .size = size - data_at, .id = id, .number = PyLong_FromUnsignedLongLong(id)};
    if (data != NULL && message->number != NULL) return 1;
    Py_XDECREF(data);
    Py_XDECREF(message->number);
    return -1;
}

static int try_lock_of(FastPath *self) {
    return self->lock != NULL && Py_IS_TYPE(self->lock, &RLockType) && try_rlock(self->lock);
}

static int has_events(FastPath *self) {
    Py_ssize_t events = PyObject_Size(self->events);
    if (events < 0) PyErr_Clear();
    return events != 0;
}

/* Whether the session may take this request: its id is the next one, and not too many requests are unanswered. */
static int may_hear(FastPath *self, const Message *message) {
    return message->id == self->heard + 1 && self->unanswered != NULL && PyDict_Check(self->unanswered) &&
           PyDict_Size(self->unanswered) < self->most_unanswered;
}

/* Count a message, take the turn, and return 1. If this is not possible, change nothing, and return 0 if
 * `Intake.accept` must take the message, or -1 with an exception. */
static int enter(FastPath *self, PyObject *carrier, const Message *message) {
    if (!try_lock_of(self)) return 0;
    long long left = self->ack_bytes_at - message->size;
    int passes = self->carrier == carrier && !self->is_taken && self->received + 1 < self->ack_at &&
                 self->bytes_queued < left && self->events != NULL && self->session != NULL && self->handler != NULL;
    if (passes) passes = !has_events(self);
    if (passes && message->id) {
        passes = may_hear(self, message);
        if (passes && PyDict_SetItem(self->unanswered, message->number, Py_None) < 0) passes = -1;
        if (passes > 0) self->heard = message->id;
    }
    if (passes > 0) {
        self->received++;
        self->ack_bytes_at = left;
        self->is_taken = 1;
    }
    release_rlock(self->lock);
    return passes;
}

/* Give up the turn, and keep the current exception. Returns -1 if there is an exception, otherwise 0. */
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

/* Store the number of the calling thread as the session's thread. Returns -1 with an exception on failure. */
static int name_thread(FastPath *self, PyObject *session) {
    self->runner = PyThread_get_thread_ident();
    if (self->thread == self->runner) return 0;
    PyObject *thread = PyLong_FromUnsignedLongLong(self->runner);
    int failed = thread == NULL || PyObject_SetAttr(session, name_session_thread, thread) < 0;
    Py_XDECREF(thread);
    if (!failed) self->thread = self->runner;
    return failed ? -1 : 0;
}

/* Call the handler with a message. The caller has the turn. Returns -1 with an exception on failure. */
static int handle(FastPath *self, const Message *message) {
    PyObject *handler = Py_NewRef(self->handler), *session = Py_NewRef(self->session), *none = NULL;
    if (name_thread(self, session) == 0) {
        PyObject *to_handler[] = {handler, session, message->data};
        PyObject *to_self[] = {(PyObject *)self, message->data, message->number};
        if (self->drops) none = Py_NewRef(Py_None);
        else if (message->id) none = PyObject_VectorcallMethod(name_handle_request, to_self, 3, NULL);
        else none = PyObject_VectorcallMethod(name_message, to_handler, 3, NULL);
    }
    Py_XDECREF(none);
    Py_DECREF(session);
    Py_DECREF(handler);
    return none == NULL ? -1 : 0;
}

/* Close the session, because its handler has failed. Keeps the current exception. */
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

/* Handle the events that have come in the meantime. Returns -1 with an exception on failure. */
static int handle_waiting(FastPath *self, PyObject *carrier) {
    if (!has_events(self)) return 0;
    PyObject *none = PyObject_CallMethodOneArg((PyObject *)self, name_handle_waiting, carrier);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

static PyObject *pass_by(FastPath *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "pass_by(carrier, message)");
        return NULL;
    }
    Message message;
    int passes = parse(args[1], &message);
    if (passes < 1) return passes < 0 ? NULL : Py_NewRef(Py_False);
    passes = enter(self, args[0], &message);
    if (passes > 0) {
        if (handle(self, &message) < 0) close_after_failure(self);
        passes = leave(self) < 0 || handle_waiting(self, args[0]) < 0 ? -1 : 1;
    }
    Py_DECREF(message.data);
    Py_XDECREF(message.number);
    return passes < 0 ? NULL : PyBool_FromLong(passes);
}

static int traverse(FastPath *self, visitproc visit, void *arg) {
    Py_VISIT(self->lock);
    Py_VISIT(self->events);
    Py_VISIT(self->carrier);
    Py_VISIT(self->handler);
    Py_VISIT(self->session);
    Py_VISIT(self->unanswered);
    return 0;
}

static int clear(FastPath *self) {
    Py_CLEAR(self->lock);
    Py_CLEAR(self->events);
    Py_CLEAR(self->carrier);
    Py_CLEAR(self->handler);
    Py_CLEAR(self->session);
    Py_CLEAR(self->unanswered);
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
    FIELD("_unanswered", T_OBJECT_EX, unanswered),
    FIELD("received", T_ULONGLONG, received),
    FIELD("heard", T_ULONGLONG, heard),
    FIELD("_most_unanswered", T_PYSSIZET, most_unanswered),
    FIELD("_ack_at", T_ULONGLONG, ack_at),
    FIELD("_bytes_queued", T_LONGLONG, bytes_queued),
    FIELD("_ack_bytes_at", T_LONGLONG, ack_bytes_at),
    FIELD("_runner", T_ULONGLONG, runner),
    FIELD("_thread", T_ULONGLONG, thread),
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
    name_handle_request = PyUnicode_InternFromString("_handle_request");
    name_handle_waiting = PyUnicode_InternFromString("_handle_waiting");
    name_session_thread = PyUnicode_InternFromString("_thread");
    if (name_begin_close == NULL || name_give_up_turn == NULL || name_message == NULL || name_handle_request == NULL ||
        name_handle_waiting == NULL || name_session_thread == NULL || PyType_Ready(&FastPathType) < 0) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "FastPath", (PyObject *)&FastPathType);
}
