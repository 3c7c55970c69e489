/* MessageLoop, as in wsthreads.javascript.message_loop: the step of a script's loop from one text message to the next.
 *
 * It does the same as Loop._pull for a message that comes directly after another message, with nothing else to do in
 * between. In all other cases, it changes nothing, and calls Loop._pull. Only the thread of the script's interpreter
 * calls `pull`.
 */
#include "_loop.h"

#include <structmember.h>

#include "_inbox.h"
#include "_reading.h"

typedef struct {
    PyObject_HEAD
    /* All are NULL until they are set. */
    PyObject *inbox, *event_type, *hindrances, *has_jobs, *arm, *times, *current;
    long long dispatched;
    double began, timeout_s;
    char must_end, is_full;
} MessageLoop;

static PyObject *name_message, *name_pull, *name_busy, *name_backlog, *name_over, *name_session, *name_channel,
    *name_ending, *name_release, *name_observe, *name_id;

/* The fields of an Event, in the order of session_state.py. */
enum { KIND, STATE, ARGUMENTS, SIZE, REPLY, RETRIED, BEGAN, EVENT_FIELDS };

/* Returns whether an attribute is true, or -1 with an exception on failure. */
static int is_true(PyObject *object, PyObject *name) {
    PyObject *value = PyObject_GetAttr(object, name);
    int answer = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return answer;
}

/* Returns whether the application may have closed the session, or -1 with an exception on failure. */
static int may_be_closing(PyObject *state) {
    PyObject *session = PyObject_GetAttr(state, name_session), *channel = NULL, *ending = NULL;
    if (session != NULL) channel = PyObject_GetAttr(session, name_channel);
    if (channel != NULL) ending = PyObject_GetAttr(channel, name_ending);
    int answer = ending == NULL ? -1 : ending != Py_None;
    Py_XDECREF(session);
    Py_XDECREF(channel);
    Py_XDECREF(ending);
    return answer;
}

/* Returns whether one of the objects in `hindrances` is not empty. Nearly always, all are empty. */
static int is_hindered(MessageLoop *self) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->hindrances); i++) {
        Py_ssize_t size = PyObject_Size(PyTuple_GET_ITEM(self->hindrances, i));
        if (size) return size < 0 ? -1 : 1;
    }
    PyObject *pending = PyObject_CallNoArgs(self->has_jobs);
    int answer = pending == NULL ? -1 : PyObject_IsTrue(pending);
    Py_XDECREF(pending);
    return answer;
}

/* Returns whether the runtime has just handled a message, and the message's session has nothing else to do. */
static int has_handled(MessageLoop *self, PyObject *const *args) {
    PyObject *last = self->current;
    if (last == NULL || !Py_IS_TYPE(last, (PyTypeObject *)self->event_type) || PyTuple_GET_SIZE(last) != EVENT_FIELDS ||
        PyTuple_GET_ITEM(last, KIND) != name_message)
        return 0;
    long outcome = PyLong_AsLong(args[1]);
    long long dispatched = PyLong_AsLongLong(args[0]);
    double delay_ms = PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred()) return -1;
    if (outcome != 0 || dispatched == self->dispatched || delay_ms >= 0) return 0;
    int waits = is_true(PyTuple_GET_ITEM(last, STATE), name_backlog);
    return waits < 0 ? -1 : !waits;
}

/* Returns whether the next item of the inbox is a text for a session that may handle it now. */
static int has_next(MessageLoop *self) {
    PyObject *state = next_intake((Inbox *)self->inbox);
    if (state == NULL) return 0;
    PyObject *const must_be_false[] = {name_busy, name_backlog, name_over};
    for (size_t i = 0; i < sizeof must_be_false / sizeof *must_be_false; i++) {
        int is = is_true(state, must_be_false[i]);
        if (is) return is < 0 ? -1 : 0;
    }
    int closing = may_be_closing(state);
    return closing < 0 ? -1 : !closing;
}

/* Returns 1 in the usual case. In all other cases, changes nothing, and returns 0, or -1 with an exception. */
static int is_usual(MessageLoop *self, PyObject *const *args) {
    if (self->must_end || self->is_full || self->times == NULL || self->times == Py_None) return 0;
    if (self->inbox == NULL || !Py_IS_TYPE(self->inbox, &InboxType) || self->arm == NULL || self->has_jobs == NULL ||
        self->hindrances == NULL || !PyTuple_Check(self->hindrances) || self->event_type == NULL)
        return 0;
    int usual = has_handled(self, args);
    if (usual > 0) {
        int hindered = is_hindered(self);
        usual = hindered < 0 ? -1 : !hindered;
    }
    return usual > 0 ? has_next(self) : usual;
}

/* Note that the last message was handled. Returns -1 with an exception on failure. */
static int account(MessageLoop *self) {
    PyObject *last = Py_NewRef(self->current);
    PyObject *seconds = PyFloat_FromDouble(monotonic() - self->began), *none = NULL;
    if (seconds != NULL) none = PyObject_CallMethodOneArg(self->times, name_observe, seconds);
    Py_XDECREF(seconds);
    Py_CLEAR(self->current);
    if (none != NULL) {
        Py_DECREF(none);
        none = PyObject_CallMethodOneArg(PyTuple_GET_ITEM(last, STATE), name_release, PyTuple_GET_ITEM(last, SIZE));
    }
    Py_XDECREF(none);
    Py_DECREF(last);
    return none == NULL ? -1 : 0;
}

/* Returns the next message as an Event, or NULL with an exception on failure. */
static PyObject *next_event(MessageLoop *self) {
    PyObject *entry = get_now((Inbox *)self->inbox);
    if (entry == NULL) return NULL;
    PyObject *state = PyTuple_GET_ITEM(entry, 0), *text = PyTuple_GET_ITEM(entry, 1), *size = PyTuple_GET_ITEM(entry, 2);
    PyObject *fields = Py_BuildValue("((OO(O)OOOd))", name_message, state, text, size, Py_None, Py_False, 0.0);
    Py_DECREF(entry);
    PyObject *event = fields == NULL ? NULL : PyTuple_Type.tp_new((PyTypeObject *)self->event_type, fields, NULL);
    Py_XDECREF(fields);
    return event;
}

static PyObject *pull(MessageLoop *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "pull(dispatched, outcome, delay_ms)");
        return NULL;
    }
    int usual = is_usual(self, args);
    if (usual < 0) return NULL;
    if (!usual) {
        PyObject *to_self[] = {(PyObject *)self, args[0], args[1], args[2]};
        return PyObject_VectorcallMethod(name_pull, to_self, 4, NULL);
    }
    if (account(self) < 0) return NULL;
    self->dispatched = PyLong_AsLongLong(args[0]);
    PyObject *event = next_event(self);
    if (event == NULL) return NULL;
    Py_XSETREF(self->current, event);
    PyObject *timeout_s = PyFloat_FromDouble(self->timeout_s);
    PyObject *now = timeout_s == NULL ? NULL : PyObject_CallOneArg(self->arm, timeout_s);
    Py_XDECREF(timeout_s);
    if (now == NULL) return NULL;
    self->began = PyFloat_AsDouble(now);
    Py_DECREF(now);
    PyObject *id = PyObject_GetAttr(PyTuple_GET_ITEM(event, STATE), name_id);
    if (id == NULL) return NULL;
    PyObject *answer = PyTuple_Pack(3, name_message, id, PyTuple_GET_ITEM(PyTuple_GET_ITEM(event, ARGUMENTS), 0));
    Py_DECREF(id);
    return answer;
}

/* ---- the type ---- */

static int traverse(MessageLoop *self, visitproc visit, void *arg) {
    Py_VISIT(self->inbox);
    Py_VISIT(self->event_type);
    Py_VISIT(self->hindrances);
    Py_VISIT(self->has_jobs);
    Py_VISIT(self->arm);
    Py_VISIT(self->times);
    Py_VISIT(self->current);
    return 0;
}

static int clear(MessageLoop *self) {
    Py_CLEAR(self->inbox);
    Py_CLEAR(self->event_type);
    Py_CLEAR(self->hindrances);
    Py_CLEAR(self->has_jobs);
    Py_CLEAR(self->arm);
    Py_CLEAR(self->times);
    Py_CLEAR(self->current);
    return 0;
}

static void dealloc(MessageLoop *self) {
    PyObject_GC_UnTrack(self);
    clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

#define FIELD(name, type, field) {name, type, offsetof(MessageLoop, field), 0, "See wsthreads.javascript.message_loop."}

static PyMemberDef members[] = {
    FIELD("_inbox", T_OBJECT, inbox),
    FIELD("_event_type", T_OBJECT, event_type),
    FIELD("_hindrances", T_OBJECT, hindrances),
    FIELD("_has_jobs", T_OBJECT, has_jobs),
    FIELD("_arm", T_OBJECT, arm),
    FIELD("_message_times", T_OBJECT, times),
    FIELD("_current", T_OBJECT, current),
    FIELD("_dispatched", T_LONGLONG, dispatched),
    FIELD("_began", T_DOUBLE, began),
    FIELD("_timeout_s", T_DOUBLE, timeout_s),
    FIELD("_must_end", T_BOOL, must_end),
    FIELD("is_full", T_BOOL, is_full),
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef methods[] = {
    {"pull", (PyCFunction)(void (*)(void))pull, METH_FASTCALL, "See wsthreads.javascript.message_loop."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject MessageLoopType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._speedups.MessageLoop",
    .tp_basicsize = sizeof(MessageLoop),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "See wsthreads.javascript.message_loop.",
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)dealloc,
    .tp_traverse = (traverseproc)traverse,
    .tp_clear = (inquiry)clear,
    .tp_members = members,
    .tp_methods = methods,
};

int add_loop_type(PyObject *module) {
    const struct {
        PyObject **place;
        const char *name;
    } names[] = {
        {&name_message, "message"}, {&name_pull, "_pull"},       {&name_busy, "busy"},
        {&name_backlog, "backlog"}, {&name_over, "over"},        {&name_session, "session"},
        {&name_channel, "_channel"}, {&name_ending, "ending"},   {&name_release, "release"},
        {&name_observe, "observe"}, {&name_id, "id"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if ((*names[i].place = PyUnicode_InternFromString(names[i].name)) == NULL) return -1;
    }
    if (PyType_Ready(&MessageLoopType) < 0) return -1;
    return PyModule_AddObjectRef(module, "MessageLoop", (PyObject *)&MessageLoopType);
}
