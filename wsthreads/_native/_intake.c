/* Intake: limits how many messages of a session wait for the thread of the script's interpreter (the isolate).
 *
 * `pump` reads messages from the session's socket. It needs no GIL, so it does not disturb other threads. It takes the
 * texts that frames.decode_message accepts, and returns everything else unchanged. It waits only for its client. So it
 * also returns if the intake is full, the turn (the time of one connection of the session) is over, or the inbox is
 * closed. javascript/inbox.py has the same class without `pump`.
 */
#include "_inbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "_frames.h"
#include "_reading.h"

/* ---- Intake(max_count, max_size) ---- */

static int intake_init(Intake *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"max_count", "max_size", NULL};
    return PyArg_ParseTupleAndKeywords(args, keywords, "nn", names, &self->max_count, &self->max_size) ? 0 : -1;
}

static bool enter(Intake *self, Py_ssize_t size) {
    Py_ssize_t count = __atomic_load_n(&self->count, __ATOMIC_ACQUIRE);
    Py_ssize_t before = __atomic_load_n(&self->size, __ATOMIC_ACQUIRE);
    if (count > 0 && (count >= self->max_count || before + size > self->max_size)) return false;
    __atomic_add_fetch(&self->count, 1, __ATOMIC_RELEASE);
    __atomic_add_fetch(&self->size, size, __ATOMIC_RELEASE);
    return true;
}

static PyObject *intake_enter(Intake *self, PyObject *argument) {
    Py_ssize_t size = PyLong_AsSsize_t(argument);
    return size == -1 && PyErr_Occurred() ? NULL : PyBool_FromLong(enter(self, size));
}

static void leave(Intake *self, Py_ssize_t size) {
    __atomic_sub_fetch(&self->size, size, __ATOMIC_RELEASE);
    __atomic_sub_fetch(&self->count, 1, __ATOMIC_RELEASE);
}

static PyObject *intake_leave(Intake *self, PyObject *argument) {
    Py_ssize_t size = PyLong_AsSsize_t(argument);
    if (size == -1 && PyErr_Occurred()) return NULL;
    leave(self, size);
    Py_RETURN_NONE;
}

static PyObject *intake_get_count(Intake *self, void *closure) {
    (void)closure;
    return PyLong_FromSsize_t(__atomic_load_n(&self->count, __ATOMIC_ACQUIRE));
}

/* shut(inbox, turn): afterwards, `pump` takes no more messages in this turn. Returns the numbers of texts and bytes so
 * far, or None if the turn was over already. */
static PyObject *intake_shut(Intake *self, PyObject *args) {
    Inbox *inbox;
    unsigned long long turn;
    if (!PyArg_ParseTuple(args, "O!K:shut", &InboxType, &inbox, &turn)) return NULL;
    pthread_mutex_lock(&inbox->mutex);
    bool is_over = self->turn != turn;
    if (!is_over) __atomic_store_n(&self->turn, turn + 1, __ATOMIC_RELEASE);
    uint64_t texts = self->texts, bytes = self->bytes;
    pthread_mutex_unlock(&inbox->mutex);
    if (is_over) Py_RETURN_NONE;
    return Py_BuildValue("(KK)", (unsigned long long)texts, (unsigned long long)bytes);
}

static PyObject *intake_get_turn(Intake *self, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&self->turn, __ATOMIC_ACQUIRE));
}

static PyObject *intake_get_heard_at(Intake *self, void *closure) {
    (void)closure;
    double at;
    __atomic_load(&self->heard_at, &at, __ATOMIC_ACQUIRE);
    return PyFloat_FromDouble(at);
}

static PyObject *intake_get_texts(Intake *self, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&self->texts, __ATOMIC_ACQUIRE));
}

static PyObject *intake_get_bytes(Intake *self, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&self->bytes, __ATOMIC_ACQUIRE));
}

/* ---- Intake.pump(inbox, fd, max_bytes, turn[, due_texts, due_bytes]) -> bytes or None ---- */

#define BUFFER_BYTES 2048

/* Whether the text is valid UTF-8, by the same rules as in Python (Unicode 15, table 3-7). */
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

/* The arguments of a call of `pump`. */
typedef struct {
    Inbox *inbox;
    int fd;
    size_t max_bytes, due_texts, due_bytes; /* due_…: how many texts and bytes `pump` may take before it returns */
    uint64_t turn;
    bool is_escaped; /* whether the client needs acknowledgements, and escapes messages that begin with DLE */
    bool is_due;
} Order;

/* The first byte of the control messages of wsthreads.1, and of escaped messages. */
enum { DLE = 0x10 };

/* Count a text that was taken. It had `bytes` on the wire. */
static void count_due(Order *order, size_t bytes) {
    if (!order->is_escaped) return;
    order->due_texts -= order->due_texts > 0;
    order->due_bytes -= bytes < order->due_bytes ? bytes : order->due_bytes;
    order->is_due = order->due_texts == 0 || order->due_bytes == 0;
}

/* Put the texts at the beginning of `data` into the inbox. Returns how many bytes of `data` these texts are. */
static size_t put_texts(Intake *self, Order *order, const uint8_t *data, size_t size) {
    size_t at = 0;
    Frame frame;
    while (parse_data_frame(data + at, size - at, &frame) > 0 && data[at] == FIN_TEXT) {
        size_t left = size - at - frame.header_bytes, bytes = (size_t)frame.payload_bytes;
        if (frame.payload_bytes > left || frame.payload_bytes > order->max_bytes) break;
        const uint8_t *payload = data + at + frame.header_bytes;
        if (order->is_escaped && bytes > 0 && (payload[0] ^ payload[-4]) == DLE) break;
        Item *item = malloc(sizeof *item + bytes);
        if (item == NULL) break;
        *item = (Item){.intake = self, .size = bytes};
        unmask((uint8_t *)item->text, payload, bytes, payload - 4);
        if (!is_utf8((uint8_t *)item->text, bytes) || !enter(self, (Py_ssize_t)bytes)) {
            free(item);
            break;
        }
        if (!append_text(order->inbox, item, order->turn, frame.header_bytes + bytes)) {
            leave(self, (Py_ssize_t)bytes);
            free(item);
            break;
        }
        at += frame.header_bytes + bytes;
        count_due(order, frame.header_bytes + bytes);
    }
    return at;
}

/* Like `put_texts`, but only if the turn is not over. Moves `data` and `size` to the end of these texts. */
static void keep_texts(Intake *self, Order *order, const uint8_t **data, size_t *size) {
    if (__atomic_load_n(&self->turn, __ATOMIC_ACQUIRE) != order->turn) return;
    size_t done = put_texts(self, order, *data, *size);
    if (done > 0) {
        double now = monotonic();
        __atomic_store(&self->heard_at, &now, __ATOMIC_RELEASE);
    }
    *data += done;
    *size -= done;
}

static PyObject *intake_pump(Intake *self, PyObject *args) {
    Order order = {0};
    Py_ssize_t limit, due_texts = 0, due_bytes = 0;
    unsigned long long turn;
    if (!PyArg_ParseTuple(args, "O!inK|nn:pump", &InboxType, &order.inbox, &order.fd, &limit, &turn, &due_texts, &due_bytes))
        return NULL;
    order.max_bytes = limit < 0 ? 0 : (size_t)limit;
    order.turn = turn;
    order.is_escaped = PyTuple_GET_SIZE(args) > 4;
    order.due_texts = due_texts < 0 ? 0 : (size_t)due_texts;
    order.due_bytes = due_bytes < 0 ? 0 : (size_t)due_bytes;
    uint8_t buffer[BUFFER_BYTES], *text = NULL;
    const uint8_t *data; /* points into one of these, at the received bytes that were not taken */
    size_t size;
    ssize_t received;
    pthread_mutex_lock(&order.inbox->mutex);
    bool keep = !self->is_kept;
    self->is_kept = true;
    self->pumps++;
    pthread_mutex_unlock(&order.inbox->mutex);
    if (keep) Py_INCREF(self);
    PyThreadState *state = PyEval_SaveThread();
    end_work();
    do {
        free(text);
        text = NULL;
        do {
            received = recv(order.fd, buffer, sizeof buffer, 0);
        } while (received < 0 && errno == EINTR);
        data = buffer;
        size = received < 0 ? 0 : (size_t)received;
        if (received <= 0) break;
        keep_texts(self, &order, &data, &size);
        text = with_rest(order.fd, data, &size, order.max_bytes);
        if (text != NULL) {
            data = text;
            keep_texts(self, &order, &data, &size);
        }
    } while (size == 0 && !order.is_due);
    int error = errno;
    restore_thread_in_turn(state);
    pthread_mutex_lock(&order.inbox->mutex);
    self->pumps--;
    bool let_go = may_let_go(self);
    pthread_mutex_unlock(&order.inbox->mutex);
    if (let_go) Py_DECREF(self); /* the caller has a reference, too */
    if (received < 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (received > 0 && size == 0) { /* all texts were taken, and an acknowledgement is due */
        free(text);
        Py_RETURN_NONE;
    }
    PyObject *rest = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    free(text);
    return rest;
}

/* ---- the type ---- */

static PyMethodDef intake_methods[] = {
    {"enter", (PyCFunction)intake_enter, METH_O, "See wsthreads.javascript.inbox."},
    {"leave", (PyCFunction)intake_leave, METH_O, "See wsthreads.javascript.inbox."},
    {"shut", (PyCFunction)intake_shut, METH_VARARGS, "See wsthreads.javascript.inbox."},
    {"pump", (PyCFunction)intake_pump, METH_VARARGS, "See wsthreads.javascript.inbox."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef intake_properties[] = {
    {"turn", (getter)intake_get_turn, NULL, "See wsthreads.javascript.inbox.", NULL},
    {"count", (getter)intake_get_count, NULL, "See wsthreads.javascript.inbox.", NULL},
    {"heard_at", (getter)intake_get_heard_at, NULL, "See wsthreads.javascript.inbox.", NULL},
    {"texts", (getter)intake_get_texts, NULL, "See wsthreads.javascript.inbox.", NULL},
    {"text_bytes", (getter)intake_get_bytes, NULL, "See wsthreads.javascript.inbox.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject IntakeType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._speedups.Intake",
    .tp_basicsize = sizeof(Intake),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_doc = "See wsthreads.javascript.inbox.",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)intake_init,
    .tp_methods = intake_methods,
    .tp_getset = intake_properties,
};

int add_intake_type(PyObject *module) {
    if (PyType_Ready(&IntakeType) < 0) return -1;
    return PyModule_AddObjectRef(module, "Intake", (PyObject *)&IntakeType);
}
