/* Inbox and Line: what the threads of sessions leave for one other thread, and a reader that needs no GIL for it.
 *
 * Optional like the rest: javascript/inbox.py has the same classes in Python, but for `Line.pump`. What must hold:
 *
 * - `pump` keeps to itself what frames.decode_message would make a str of, and gives back everything else as it came.
 *   It waits for nothing but its client: where the line is full, or the inbox closed, it gives back, too.
 * - `get` answers in the order of `put` and `pump`.
 * - `mutex` guards the queue and its lines' `queued`. It is a leaf: who holds it neither waits nor asks for the GIL.
 * - References are counted under the GIL. A queued text holds none to its line: while `pump` runs, its caller has one;
 *   afterwards the line has one to itself (`is_kept`), until its last text is taken.
 */
#include "_inbox.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "_frames.h"
#include "_reading.h"

typedef struct {
    PyObject_HEAD
    Py_ssize_t max_count, max_size;
    Py_ssize_t count, size; /* of what has entered and not left; atomic, and only the session's thread enters */
    double heard_at;        /* when a text came last, by time.monotonic(); 0 if none has; atomic */
    bool is_shut;           /* `pump` gives everything back; atomic */
    uint64_t texts, bytes;  /* that `pump` has kept, with their headers; atomic, only the session's thread writes them */
    Py_ssize_t queued;      /* texts in the inbox */
    bool is_kept;
} Line;

/* Something in the queue: any object, which is ours, or a line's text. */
typedef struct Item {
    struct Item *next;
    PyObject *object; /* NULL for a text */
    Line *line;
    bool is_last; /* once taken: of its line */
    size_t size;
    char text[];
} Item;

typedef struct {
    PyObject_HEAD
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    bool is_waited_for; /* somebody waits until it is `filled` */
    bool is_closed;
    Item *first, **end;
} Inbox;

static PyTypeObject InboxType, LineType;

/* ---- the queue ---- */

/* False, and nothing happens, if the inbox is closed. */
static bool append(Inbox *inbox, Item *item) {
    item->next = NULL;
    pthread_mutex_lock(&inbox->mutex);
    bool is_open = !inbox->is_closed, wake = is_open && inbox->is_waited_for;
    if (is_open) {
        *inbox->end = item;
        inbox->end = &item->next;
        if (item->object == NULL) item->line->queued++;
        inbox->is_waited_for = false;
    }
    pthread_mutex_unlock(&inbox->mutex);
    if (wake) pthread_cond_signal(&inbox->filled);
    return is_open;
}

static Item *take_locked(Inbox *inbox) {
    Item *item = inbox->first;
    if (item != NULL) {
        inbox->first = item->next;
        if (inbox->first == NULL) inbox->end = &inbox->first;
        if (item->object == NULL) item->is_last = --item->line->queued == 0;
    }
    return item;
}

/* The next item, NULL if none comes in time (below 0: however long that is). */
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

/* What an item stands for, as `get` answers it. The item is freed. */
static PyObject *unpacked(Item *item) {
    PyObject *answer = item->object;
    Line *line = item->line;
    if (answer == NULL) {
        answer = Py_BuildValue("(Os#n)", line, item->text, (Py_ssize_t)item->size, (Py_ssize_t)item->size);
        if (item->is_last && line->is_kept) {
            line->is_kept = false;
            Py_DECREF(line);
        }
    }
    free(item);
    return answer;
}

static void inbox_dealloc(Inbox *self) {
    for (Item *item; (item = take(self, 0)) != NULL;) {
        PyObject *left = unpacked(item);
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
    if (!append(self, item)) {
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
    return unpacked(item);
}

static PyObject *inbox_empty(Inbox *self, PyObject *none) {
    (void)none;
    pthread_mutex_lock(&self->mutex);
    bool is_empty = self->first == NULL;
    pthread_mutex_unlock(&self->mutex);
    return PyBool_FromLong(is_empty);
}

/* ---- Line(max_count, max_size) ---- */

static int line_init(Line *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"max_count", "max_size", NULL};
    return PyArg_ParseTupleAndKeywords(args, keywords, "nn", names, &self->max_count, &self->max_size) ? 0 : -1;
}

static bool enter(Line *self, Py_ssize_t size) {
    Py_ssize_t count = __atomic_load_n(&self->count, __ATOMIC_ACQUIRE);
    Py_ssize_t before = __atomic_load_n(&self->size, __ATOMIC_ACQUIRE);
    if (count > 0 && (count >= self->max_count || before + size > self->max_size)) return false;
    __atomic_add_fetch(&self->count, 1, __ATOMIC_RELEASE);
    __atomic_add_fetch(&self->size, size, __ATOMIC_RELEASE);
    return true;
}

static PyObject *line_enter(Line *self, PyObject *argument) {
    Py_ssize_t size = PyLong_AsSsize_t(argument);
    return size == -1 && PyErr_Occurred() ? NULL : PyBool_FromLong(enter(self, size));
}

static void leave(Line *self, Py_ssize_t size) {
    __atomic_sub_fetch(&self->size, size, __ATOMIC_RELEASE);
    __atomic_sub_fetch(&self->count, 1, __ATOMIC_RELEASE);
}

static PyObject *line_leave(Line *self, PyObject *argument) {
    Py_ssize_t size = PyLong_AsSsize_t(argument);
    if (size == -1 && PyErr_Occurred()) return NULL;
    leave(self, size);
    Py_RETURN_NONE;
}

static PyObject *line_get_count(Line *self, void *closure) {
    (void)closure;
    return PyLong_FromSsize_t(__atomic_load_n(&self->count, __ATOMIC_ACQUIRE));
}

static PyObject *line_shut(Line *self, PyObject *none) {
    (void)none;
    __atomic_store_n(&self->is_shut, true, __ATOMIC_RELEASE);
    Py_RETURN_NONE;
}

static PyObject *line_get_heard_at(Line *self, void *closure) {
    (void)closure;
    double at;
    __atomic_load(&self->heard_at, &at, __ATOMIC_ACQUIRE);
    return PyFloat_FromDouble(at);
}

static PyObject *line_get_texts(Line *self, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&self->texts, __ATOMIC_ACQUIRE));
}

static PyObject *line_get_bytes(Line *self, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&self->bytes, __ATOMIC_ACQUIRE));
}

/* ---- Line.pump(inbox, fd, max_bytes) -> bytes ---- */

#define BUFFER_BYTES 2048

/* Whether text is UTF-8 as Python has it (Unicode 15, table 3-7). */
static bool is_utf8(const uint8_t *at, size_t size) {
    const uint8_t *end = at + size;
    while (at < end) {
        if (end - at >= 8) {
            uint64_t word;
            memcpy(&word, at, 8);
            if (!(word & UINT64_C(0x8080808080808080))) {
                at += 8;
                continue;
            }
        }
        uint8_t first = *at++;
        if (first < 0x80) continue;
        int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
        if (first < 0xC2 || first > 0xF4 || end - at < more) return false;
        uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
        uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
        if (*at < low || *at > high) return false;
        while (--more > 0) {
            if ((*++at & 0xC0) != 0x80) return false;
        }
        at++;
    }
    return true;
}

/* Put the texts that `data` begins with into the inbox, up to anything else. Returns how many bytes that took. */
static size_t put_texts(Line *self, Inbox *inbox, const uint8_t *data, size_t size, size_t max_bytes) {
    size_t at = 0, texts = 0;
    Frame frame;
    while (parse_data_frame(data + at, size - at, &frame) > 0 && data[at] == FIN_TEXT) {
        size_t left = size - at - frame.header_bytes, bytes = (size_t)frame.payload_bytes;
        if (frame.payload_bytes > left || frame.payload_bytes > max_bytes) break;
        Item *item = malloc(sizeof *item + bytes);
        if (item == NULL) break;
        *item = (Item){.line = self, .size = bytes};
        const uint8_t *payload = data + at + frame.header_bytes;
        unmask((uint8_t *)item->text, payload, bytes, payload - 4);
        if (!is_utf8((uint8_t *)item->text, bytes) || !enter(self, (Py_ssize_t)bytes)) {
            free(item);
            break;
        }
        if (!append(inbox, item)) {
            leave(self, (Py_ssize_t)bytes);
            free(item);
            break;
        }
        at += frame.header_bytes + bytes;
        texts++;
    }
    __atomic_store_n(&self->texts, self->texts + texts, __ATOMIC_RELEASE);
    __atomic_store_n(&self->bytes, self->bytes + at, __ATOMIC_RELEASE);
    return at;
}

/* `put_texts`, if the line is not shut; `data` and `size` are then what is left. */
static void keep_texts(Line *self, Inbox *inbox, const uint8_t **data, size_t *size, size_t max_bytes) {
    if (__atomic_load_n(&self->is_shut, __ATOMIC_ACQUIRE)) return;
    size_t done = put_texts(self, inbox, *data, *size, max_bytes);
    if (done > 0) {
        double now = monotonic();
        __atomic_store(&self->heard_at, &now, __ATOMIC_RELEASE);
    }
    *data += done;
    *size -= done;
}

static PyObject *line_pump(Line *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3 || !Py_IS_TYPE(args[0], &InboxType)) {
        PyErr_SetString(PyExc_TypeError, "pump(inbox: Inbox, fd: int, max_bytes: int)");
        return NULL;
    }
    Inbox *inbox = (Inbox *)args[0];
    long fd = PyLong_AsLong(args[1]);
    Py_ssize_t limit = PyLong_AsSsize_t(args[2]);
    if ((fd == -1 || limit == -1) && PyErr_Occurred()) return NULL;
    size_t max_bytes = limit < 0 ? 0 : (size_t)limit, size;
    uint8_t buffer[BUFFER_BYTES], *text = NULL;
    const uint8_t *data; /* in one of these: what came in last, and is not kept */
    ssize_t received;
    PyThreadState *state = PyEval_SaveThread();
    do {
        free(text);
        text = NULL;
        do {
            received = recv((int)fd, buffer, sizeof buffer, 0);
        } while (received < 0 && errno == EINTR);
        data = buffer;
        size = received < 0 ? 0 : (size_t)received;
        if (received <= 0) break;
        keep_texts(self, inbox, &data, &size, max_bytes);
        text = with_rest((int)fd, data, &size, max_bytes);
        if (text != NULL) {
            data = text;
            keep_texts(self, inbox, &data, &size, max_bytes);
        }
    } while (size == 0);
    int error = errno;
    restore_thread_in_turn(state);
    pthread_mutex_lock(&inbox->mutex);
    bool keep = self->queued > 0 && !self->is_kept;
    pthread_mutex_unlock(&inbox->mutex);
    if (keep) {
        self->is_kept = true;
        Py_INCREF(self);
    }
    if (received < 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    PyObject *rest = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    free(text);
    return rest;
}

/* ---- the types ---- */

static PyMethodDef inbox_methods[] = {
    {"put", (PyCFunction)inbox_put, METH_O, "See wsthreads.javascript.inbox."},
    {"get", (PyCFunction)(void (*)(void))inbox_get, METH_FASTCALL, "See wsthreads.javascript.inbox."},
    {"close", (PyCFunction)inbox_close, METH_NOARGS, "See wsthreads.javascript.inbox."},
    {"empty", (PyCFunction)inbox_empty, METH_NOARGS, "See wsthreads.javascript.inbox."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject InboxType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._speedups.Inbox",
    .tp_basicsize = sizeof(Inbox),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "See wsthreads.javascript.inbox.",
    .tp_new = inbox_new,
    .tp_dealloc = (destructor)inbox_dealloc,
    .tp_methods = inbox_methods,
};

static PyMethodDef line_methods[] = {
    {"enter", (PyCFunction)line_enter, METH_O, "See wsthreads.javascript.inbox."},
    {"leave", (PyCFunction)line_leave, METH_O, "See wsthreads.javascript.inbox."},
    {"shut", (PyCFunction)line_shut, METH_NOARGS, "See wsthreads.javascript.inbox."},
    {"pump", (PyCFunction)(void (*)(void))line_pump, METH_FASTCALL, "See wsthreads.javascript.inbox."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef line_properties[] = {
    {"count", (getter)line_get_count, NULL, "See wsthreads.javascript.inbox.", NULL},
    {"heard_at", (getter)line_get_heard_at, NULL, "See wsthreads.javascript.inbox.", NULL},
    {"texts", (getter)line_get_texts, NULL, "See wsthreads.javascript.inbox.", NULL},
    {"text_bytes", (getter)line_get_bytes, NULL, "See wsthreads.javascript.inbox.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject LineType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._speedups.Line",
    .tp_basicsize = sizeof(Line),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_doc = "See wsthreads.javascript.inbox.",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)line_init,
    .tp_methods = line_methods,
    .tp_getset = line_properties,
};

int add_inbox_types(PyObject *module) {
    if (PyType_Ready(&InboxType) < 0 || PyType_Ready(&LineType) < 0) return -1;
    if (PyModule_AddObjectRef(module, "Inbox", (PyObject *)&InboxType) < 0) return -1;
    return PyModule_AddObjectRef(module, "Line", (PyObject *)&LineType);
}
