/* The same functions as the Python ones in wsthreads.protocol.frames and outbox, for where they are called most, and the module;
 * what reads, and the types, are in the other files.
 *
 * Optional: where it could not be built, or with WSTHREADS_PURE_PYTHON=1, those are used. What must hold:
 *
 * - append_all only appends to memory. The caller holds the room's order lock.
 * - encode_text makes what frames.message_frame makes of text.
 * - send_queues lets go of the GIL around the system calls, and of nothing else; around none if there is but one outbox
 *   and little to send, since getting the GIL back takes longer than that. The caller holds the lock of every outbox
 *   that it passes, so no other thread takes from their queues, writes to their sockets or closes them. In this
 *   thread a finalizer could, as the locks let it in: so from when frames are taken from a queue to when an incomplete
 *   write is marked in `_draining`, which the caller unmarks, nothing is allocated that the garbage collector tracks.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "_frames.h"
#include "_inbox.h"
#include "_metrics.h"
#include "_reading.h"
#include "_rlock.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* ---- the attributes of an outbox ---- */

enum { QUEUE, FD, CLOSE_FRAME, DETACHED, BLOCKED, DRAINING, LOCK, ATTRIBUTES };

static const char *const spelled[ATTRIBUTES] = {"_queue",   "_fd",       "_close_frame", "_detached",
                                                "is_blocked", "_draining", "_lock"};
static PyObject *names[ATTRIBUTES], *acquire, *release, *flush, *after_send;

/* The class of the last outbox, and where in its objects __slots__ has put each attribute; 0 for "ask Python". */
static PyTypeObject *known_type; /* ours */
static Py_ssize_t offsets[ATTRIBUTES];
static int known_counts; /* its objects begin with a Tally */

static void know(PyTypeObject *type) {
    Py_INCREF(type);
    Py_XSETREF(known_type, type);
    known_counts = PyType_IsSubtype(type, &TallyType);
    for (int i = 0; i < ATTRIBUTES; i++) {
        PyObject *member = _PyType_Lookup(type, names[i]); /* borrowed */
        offsets[i] = 0;
        if (member != NULL && Py_IS_TYPE(member, &PyMemberDescr_Type)) {
            const PyMemberDef *slot = ((PyMemberDescrObject *)member)->d_member;
            if (slot->type == T_OBJECT_EX && PyType_IsSubtype(type, PyDescr_TYPE(member))) offsets[i] = slot->offset;
        }
    }
}

/* An attribute, borrowed: a constant, or something that the outbox goes on holding. NULL with an exception. */
static PyObject *get(PyObject *outbox, int attribute) {
    if (Py_TYPE(outbox) != known_type) know(Py_TYPE(outbox));
    PyObject *value = offsets[attribute] ? *(PyObject **)((char *)outbox + offsets[attribute]) : NULL;
    if (value == NULL) {
        value = PyObject_GetAttr(outbox, names[attribute]);
        Py_XDECREF(value);
    }
    return value;
}

/* 1 or 0, or -1 with an exception: whether an attribute is the given constant. */
static int is(PyObject *outbox, int attribute, PyObject *constant) {
    PyObject *value = get(outbox, attribute);
    return value == NULL ? -1 : value == constant;
}

/* ---- encode_text(text) -> frame, or None for a str that has no UTF-8 ---- */

static PyObject *encode_text(PyObject *module, PyObject *text) {
    (void)module;
    if (!PyUnicode_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "encode_text(text: str)");
        return NULL;
    }
    PyObject *encoded = NULL; /* ours; NULL where the str is its own UTF-8 */
    const char *payload;
    size_t size;
    if (PyUnicode_IS_READY(text) && PyUnicode_IS_COMPACT_ASCII(text)) {
        payload = (const char *)PyUnicode_1BYTE_DATA(text);
        size = (size_t)PyUnicode_GET_LENGTH(text);
    } else {
        encoded = PyUnicode_AsUTF8String(text);
        if (encoded == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return NULL;
            PyErr_Clear();
            Py_RETURN_NONE;
        }
        payload = PyBytes_AS_STRING(encoded);
        size = (size_t)PyBytes_GET_SIZE(encoded);
    }
    uint8_t header[10] = {0x81};
    size_t header_bytes;
    if (size <= 125) {
        header[1] = (uint8_t)size;
        header_bytes = 2;
    } else if (size <= 0xFFFF) {
        header[1] = 126;
        header_bytes = 4;
        for (int i = 0; i < 2; i++) header[2 + i] = (uint8_t)(size >> (8 - 8 * i));
    } else {
        header[1] = 127;
        header_bytes = 10;
        for (int i = 0; i < 8; i++) header[2 + i] = (uint8_t)((uint64_t)size >> (56 - 8 * i));
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(header_bytes + size));
    if (frame != NULL) {
        memcpy(PyBytes_AS_STRING(frame), header, header_bytes);
        memcpy(PyBytes_AS_STRING(frame) + header_bytes, payload, size);
    }
    Py_XDECREF(encoded);
    return frame;
}

/* ---- append_all(outboxes: tuple, frame, skip) -> how many took it ---- */

/* Outbox.append: 1 if it took the frame, 0 if it is closed, -1 with an exception. */
static int append(PyObject *outbox, PyObject *frame) {
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
        int took = append(outbox, args[1]);
        if (took < 0) return NULL;
        count += took;
    }
    return PyLong_FromSsize_t(count);
}

/* ---- lock_queued(outboxes, start, count) -> (locked: list, blocked: list), unlock(locked) -> list ---- */

/* 1 if something is queued, 0 if not, -1 with an exception. */
static int has_queued(PyObject *outbox) {
    PyObject *queue = get(outbox, QUEUE);
    if (queue == NULL) return -1;
    return PyList_Check(queue) && PyList_GET_SIZE(queue) > 0;
}

/* 1 if the lock of an outbox has been taken, 0 if another thread has it, -1 with an exception. */
static int try_lock(PyObject *lock) {
    if (Py_IS_TYPE(lock, &RLockType)) return try_rlock(lock);
    PyObject *taken = PyObject_CallMethodOneArg(lock, acquire, Py_False);
    Py_XDECREF(taken);
    return taken == NULL ? -1 : taken == Py_True;
}

static int release_lock(PyObject *lock) {
    if (Py_IS_TYPE(lock, &RLockType)) return release_rlock(lock);
    PyObject *none = PyObject_CallMethodNoArgs(lock, release);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

/* Let go of the locks of all, whatever goes wrong; -1 with an exception if something has. */
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

/* ---- send_queues(outboxes: list) -> [(outbox, data, sent or -errno), ...] of those not sent completely ---- */

/* Up to so many bytes for one socket are sent with the GIL held: some 10 µs, with which a message of 16 KiB is within. */
#define MAX_HELD_BYTES 32768

typedef struct {
    PyObject *data; /* bytes, ours; NULL where there is nothing to send here */
    Py_ssize_t messages; /* in it */
    Py_ssize_t sent;
    int fd;
    int error;
} Write;

/* The first `count` frames of a queue, as one bytes object; NULL with an exception on failure. */
static PyObject *joined(PyObject *queue, Py_ssize_t count) {
    Py_ssize_t size = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *frame = PyList_GET_ITEM(queue, i);
        if (!PyBytes_Check(frame)) {
            PyErr_SetString(PyExc_TypeError, "a queue holds bytes");
            return NULL;
        }
        size += PyBytes_GET_SIZE(frame);
    }
    if (count == 1) {
        PyObject *frame = PyList_GET_ITEM(queue, 0);
        Py_INCREF(frame);
        return frame;
    }
    PyObject *whole = PyBytes_FromStringAndSize(NULL, size);
    if (whole == NULL) return NULL;
    char *to = PyBytes_AS_STRING(whole);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *frame = PyList_GET_ITEM(queue, i);
        memcpy(to, PyBytes_AS_STRING(frame), (size_t)PyBytes_GET_SIZE(frame));
        to += PyBytes_GET_SIZE(frame);
    }
    return whole;
}

/* Members of a room mostly have the same frames in their queues: remember the last queue's, and what they made. */
#define MAX_SHARED 64

typedef struct {
    PyObject *frames[MAX_SHARED]; /* ours, so that no other object can get their addresses */
    Py_ssize_t count;
    Py_ssize_t messages;
    PyObject *data; /* ours; NULL where there is none */
} Shared;

static void forget(Shared *shared) {
    for (Py_ssize_t i = 0; i < shared->count; i++) Py_DECREF(shared->frames[i]);
    shared->count = 0;
    Py_CLEAR(shared->data);
}

/* How many of the first `count` frames of a queue are messages: pings, pongs and the HTTP answer are none. */
static Py_ssize_t count_messages(PyObject *queue, Py_ssize_t count) {
    Py_ssize_t messages = 0;
    for (Py_ssize_t i = 0; i < count; i++) messages += !(*PyBytes_AS_STRING(PyList_GET_ITEM(queue, i)) & CONTROL);
    return messages;
}

/* Take everything from a queue as one bytes object; NULL with an exception on failure, the queue is then as it was. */
static PyObject *take(PyObject *queue, Shared *shared, Py_ssize_t *messages) {
    Py_ssize_t count = PyList_GET_SIZE(queue);
    int same = shared->data != NULL && count == shared->count;
    for (Py_ssize_t i = 0; same && i < count; i++) same = PyList_GET_ITEM(queue, i) == shared->frames[i];
    PyObject *data;
    if (same) {
        data = shared->data;
        *messages = shared->messages;
        Py_INCREF(data);
    } else {
        data = joined(queue, count);
        if (data == NULL) return NULL;
        *messages = count_messages(queue, count);
        forget(shared);
        if (count <= MAX_SHARED) {
            shared->messages = *messages;
            for (; shared->count < count; shared->count++) {
                shared->frames[shared->count] = PyList_GET_ITEM(queue, shared->count);
                Py_INCREF(shared->frames[shared->count]);
            }
            shared->data = data;
            Py_INCREF(data);
        }
    }
    if (PyList_SetSlice(queue, 0, count, NULL) < 0) Py_CLEAR(data);
    return data;
}

/* Take what an outbox has queued; -1 with an exception on failure. What `write` is then:
 *
 * - with `fd` < 0, nothing is taken: TLS, closing, over or full, the caller's;
 * - else without `data`, nothing is queued. */
static int begin_write(Write *write, PyObject *outbox, Shared *shared) {
    PyObject *fd = get(outbox, FD);
    if (fd == NULL) return -1;
    write->fd = (int)PyLong_AsLong(fd);
    if (write->fd == -1 && PyErr_Occurred()) return -1;
    int ready = is(outbox, CLOSE_FRAME, Py_None);
    if (ready > 0) ready = is(outbox, BLOCKED, Py_False);
    if (ready < 0) return -1;
    if (!ready) write->fd = -1;
    if (write->fd < 0) return 0;
    PyObject *queue = get(outbox, QUEUE);
    if (queue == NULL) return -1;
    if (PyList_Check(queue) && PyList_GET_SIZE(queue) > 0) {
        write->data = take(queue, shared, &write->messages);
        if (write->data == NULL) return -1;
    }
    return 0;
}

/* Needs no GIL. */
static void do_write(Write *write) {
    const char *data = PyBytes_AS_STRING(write->data);
    do {
        write->sent = send(write->fd, data, (size_t)PyBytes_GET_SIZE(write->data), MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (write->sent < 0 && errno == EINTR);
    if (write->sent < 0) {
        write->error = errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : errno;
        write->sent = write->error ? -write->error : 0;
    }
}

/* Count what has been written. Whether it was all, and `data` is gone; else the outbox is marked, for the caller to go
 * on with. */
static int end_write(Write *write, PyObject *outbox) {
    int complete = write->sent == PyBytes_GET_SIZE(write->data);
    if (write->sent >= 0 && known_counts && Py_TYPE(outbox) == known_type) {
        ((Tally *)outbox)->messages_out += (uint64_t)write->messages;
        if (complete) ((Tally *)outbox)->bytes_out += (uint64_t)write->sent; /* else the caller counts them */
    }
    if (complete) {
        Py_CLEAR(write->data);
    } else if (PyObject_SetAttr(outbox, names[BLOCKED], Py_True) < 0 ||
               PyObject_SetAttr(outbox, names[DRAINING], Py_True) < 0) {
        PyErr_Clear();
    }
    return complete;
}

static int is_small(const Write *write) {
    return write->data != NULL && PyBytes_GET_SIZE(write->data) <= MAX_HELD_BYTES;
}

static PyObject *send_queues(PyObject *module, PyObject *outboxes) {
    (void)module;
    if (!PyList_Check(outboxes)) {
        PyErr_SetString(PyExc_TypeError, "send_queues(outboxes: list)");
        return NULL;
    }
    Py_ssize_t total = PyList_GET_SIZE(outboxes), done = 0, incomplete = 0;
    Write *writes = PyMem_Calloc(total ? total : 1, sizeof *writes);
    if (writes == NULL) return PyErr_NoMemory();
    Shared shared = {.count = 0, .data = NULL};

    while (done < total && begin_write(&writes[done], PyList_GET_ITEM(outboxes, done), &shared) == 0) done++;
    /* On a failure above, what was taken is still sent, and the rest is still queued: the next call meets it again. */
    if (done < total && done > 0) PyErr_Clear();
    PyObject *type, *value, *traceback; /* of the failure at the first outbox, kept for afterwards */
    PyErr_Fetch(&type, &value, &traceback);

    int are_many = done >= MANY_WRITES;
    if (are_many) begin_writing();
    PyThreadState *state = total == 1 && done == 1 && is_small(writes) ? NULL : PyEval_SaveThread();
    for (Py_ssize_t i = 0; i < done; i++) {
        if (writes[i].data != NULL) do_write(&writes[i]);
    }
    if (state != NULL) PyEval_RestoreThread(state);
    if (are_many) end_writing();

    for (Py_ssize_t i = 0; i < done; i++) {
        int complete = writes[i].data == NULL ? writes[i].fd >= 0 : end_write(&writes[i], PyList_GET_ITEM(outboxes, i));
        incomplete += !complete;
    }
    forget(&shared);
    PyObject *result = PyList_New(0);
    for (Py_ssize_t i = 0; incomplete && i < done; i++) {
        Write *write = &writes[i];
        if (write->data == NULL && write->fd >= 0) continue;
        PyObject *row = NULL;
        if (result != NULL) {
            PyObject *data = write->data ? write->data : Py_None;
            row = Py_BuildValue("(OOn)", PyList_GET_ITEM(outboxes, i), data, write->sent);
            if (row == NULL || PyList_Append(result, row) < 0) Py_CLEAR(result);
        }
        Py_XDECREF(row);
    }
    for (Py_ssize_t i = 0; result == NULL && i < done; i++) {
        /* Nobody will be told of what is left of these writes, so their streams end here. */
        if (writes[i].data != NULL) shutdown(writes[i].fd, SHUT_RDWR);
    }
    for (Py_ssize_t i = 0; i < total; i++) Py_XDECREF(writes[i].data);
    PyMem_Free(writes);
    if (type != NULL) {
        Py_XDECREF(result);
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    return result;
}

/* ---- post(outbox, frame) -> whether it took it ---- */

/* What _send_queues and _after_send_locked are for one outbox, whose lock the caller holds. 1 if what was queued is
 * written, 0 if there is more to do than that, -1 with an exception. */
static int send_queue_locked(PyObject *outbox) {
    Write write = {.data = NULL};
    Shared none = {.count = 0, .data = NULL};
    int failed = begin_write(&write, outbox, &none);
    forget(&none);
    if (failed || write.data == NULL) return failed;
    PyThreadState *state = is_small(&write) ? NULL : PyEval_SaveThread();
    do_write(&write);
    if (state != NULL) PyEval_RestoreThread(state);
    if (end_write(&write, outbox)) return 1;
    PyObject *sent = PyLong_FromSsize_t(write.sent);
    PyObject *told = sent ? PyObject_CallMethodObjArgs(outbox, after_send, write.data, sent, NULL) : NULL;
    if (sent == NULL) shutdown(write.fd, SHUT_RDWR); /* nobody is told what is left of it */
    Py_XDECREF(sent);
    Py_XDECREF(told);
    Py_DECREF(write.data);
    return told == NULL ? -1 : 0;
}

/* Outbox.flush, for what an outbox mostly is: open, not full, and nobody else's just now. 0 where it is not, and
 * Outbox.flush must be called; 1 where that is done, -1 with an exception. */
static int flush_plain(PyObject *outbox) {
    int queued, sent = 1;
    while ((queued = has_queued(outbox)) > 0 && sent > 0) {
        int idle = is(outbox, DRAINING, Py_False);
        if (idle < 1) return idle < 0 ? -1 : 1;
        int ready = is(outbox, BLOCKED, Py_False);
        if (ready < 1) return ready;
        PyObject *lock = get(outbox, LOCK);
        int taken = lock == NULL ? -1 : try_lock(lock);
        if (taken < 1) return taken < 0 ? -1 : 1;
        sent = send_queue_locked(outbox);
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        if (release_lock(lock) < 0) sent = -1;
        if (type != NULL) PyErr_Restore(type, value, traceback);
    }
    return queued < 0 ? -1 : sent;
}

static PyObject *post(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 2 || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "post(outbox, frame: bytes)");
        return NULL;
    }
    int took = append(args[0], args[1]);
    if (took < 1) return took < 0 ? NULL : Py_NewRef(Py_False);
    int flushed = flush_plain(args[0]);
    if (flushed < 0) return NULL;
    PyObject *none = flushed ? NULL : PyObject_CallMethodNoArgs(args[0], flush);
    if (!flushed && none == NULL) return NULL;
    Py_XDECREF(none);
    Py_RETURN_TRUE;
}

static PyMethodDef methods[] = {
    {"encode_text", encode_text, METH_O, "See wsthreads.protocol.frames."},
    {"append_all", (PyCFunction)(void (*)(void))append_all, METH_FASTCALL, "See wsthreads.protocol.fanout."},
    {"lock_queued", (PyCFunction)(void (*)(void))lock_queued, METH_FASTCALL, "See wsthreads.protocol.fanout."},
    {"unlock", unlock, METH_O, "See wsthreads.protocol.fanout."},
    {"send_queues", send_queues, METH_O, "See wsthreads.protocol.outbox."},
    {"post", (PyCFunction)(void (*)(void))post, METH_FASTCALL, "See wsthreads.protocol.outbox."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_speedups", "C versions of wsthreads' busiest functions.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__speedups(void) {
    for (int i = 0; i < ATTRIBUTES; i++) {
        names[i] = PyUnicode_InternFromString(spelled[i]);
        if (names[i] == NULL) return NULL;
    }
    acquire = PyUnicode_InternFromString("acquire");
    release = PyUnicode_InternFromString("release");
    flush = PyUnicode_InternFromString("flush");
    after_send = PyUnicode_InternFromString("_after_send_locked");
    if (acquire == NULL || release == NULL || flush == NULL || after_send == NULL) return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made == NULL) return NULL;
    if (add_reading_functions(made) < 0 || add_inbox_types(made) < 0 || add_metrics_types(made) < 0 ||
        add_rlock_type(made) < 0) {
        Py_CLEAR(made);
    }
    return made;
}
