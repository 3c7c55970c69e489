/* send_queues and post: write the queued frames of outboxes to their sockets, as wsthreads.protocol.outbox does.
 *
 * What must hold:
 *
 * - The GIL is released around the system calls and nothing else. It is kept where there is one outbox with little to
 *   send, since getting the GIL back takes longer than the call.
 * - The caller of send_queues holds the lock of every outbox that it passes. So no other thread takes from their
 *   queues, writes to their sockets or closes them; it may append. A finalizer in this thread could: the locks are re-entrant. So
 *   nothing that the garbage collector tracks is allocated from the moment when frames are taken from a queue until an
 *   incomplete write is marked in `_draining`. The caller removes that mark.
 * - Frames of a subclass of bytes (frames.MarkedFrame) are written like others. Where they are joined for an incomplete
 *   write, the caller gets the frames back, since it may remove some of them. So it does if the outbox keeps what it
 *   has written (protocol.kept): all frames are taken for written, and the caller takes some of them back.
 */
#include "_sending.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "_frames.h"
#include "_outboxes.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* ---- send_queues(outboxes: list) -> [(outbox, data, sent or -errno), ...] of those not sent completely ---- */

/* Up to this many bytes for one socket are sent with the GIL held, which takes some 10 µs. */
#define MAX_HELD_BYTES 32768

typedef struct {
    PyObject *data; /* bytes, a strong reference; NULL if there is nothing to send here */
    PyObject **frames; /* strong references: the frames in `data` if the caller may want them back; else NULL */
    Py_ssize_t count; /* of `frames` */
    Py_ssize_t messages; /* in `data` */
    Py_ssize_t kept_bytes; /* of `data`, if the outbox keeps */
    Py_ssize_t sent;
    int fd;
    int error;
} Write;

/* The first `count` frames of a queue, as one bytes object; NULL with an exception on failure. `marked` becomes whether
 * any of several frames is more than bytes. */
static PyObject *joined(PyObject *queue, Py_ssize_t count, int *marked) {
    Py_ssize_t size = 0;
    *marked = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *frame = PyList_GET_ITEM(queue, i);
        if (!PyBytes_Check(frame)) {
            PyErr_SetString(PyExc_TypeError, "a queue holds bytes");
            return NULL;
        }
        size += PyBytes_GET_SIZE(frame);
        *marked |= !PyBytes_CheckExact(frame) && count > 1;
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

/* The members of a room mostly have the same frames in their queues: keep the frames of the last queue, and their join.
 */
#define MAX_SHARED 64

typedef struct {
    PyObject *frames[MAX_SHARED]; /* strong references, so that no other object gets their addresses */
    Py_ssize_t count;
    Py_ssize_t messages;
    int marked;
    PyObject *data; /* a strong reference; NULL if there is none */
} Shared;

static void forget(Shared *shared) {
    for (Py_ssize_t i = 0; i < shared->count; i++) Py_DECREF(shared->frames[i]);
    shared->count = 0;
    Py_CLEAR(shared->data);
}

/* How many of the first `count` frames of a queue are messages, and not pings, pongs or the HTTP answer. */
static Py_ssize_t count_messages(PyObject *queue, Py_ssize_t count) {
    Py_ssize_t messages = 0;
    for (Py_ssize_t i = 0; i < count; i++) messages += !(*PyBytes_AS_STRING(PyList_GET_ITEM(queue, i)) & CONTROL);
    return messages;
}

/* Hold the frames of a queue in `write`; -1 with an exception on failure. */
static int hold_frames(Write *write, PyObject *queue, Py_ssize_t count) {
    write->frames = PyMem_New(PyObject *, count);
    if (write->frames == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (; write->count < count; write->count++) {
        write->frames[write->count] = PyList_GET_ITEM(queue, write->count);
        Py_INCREF(write->frames[write->count]);
    }
    return 0;
}

static void release_write(Write *write) {
    if (write->frames != NULL) {
        for (Py_ssize_t i = 0; i < write->count; i++) Py_DECREF(write->frames[i]);
        PyMem_Free(write->frames);
        write->frames = NULL;
        write->count = 0;
    }
    Py_CLEAR(write->data);
}

/* Whether a frame is a counted message of wsthreads.1, as envelope.is_counted. */
static int is_counted(PyObject *frame) {
    const unsigned char *bytes = (const unsigned char *)PyBytes_AS_STRING(frame);
    Py_ssize_t size = PyBytes_GET_SIZE(frame);
    if (size < 2) return 0;
    if (bytes[0] != 0x81) return bytes[0] == 0x82 || bytes[0] == 0xC1 || bytes[0] == 0xC2;
    Py_ssize_t at = bytes[1] < 126 ? 2 : bytes[1] == 126 ? 4 : 10;
    return size < at + 2 || bytes[at] != 0x10 || memchr("hwap", bytes[at + 1], 4) == NULL;
}

static Tally *tally_of(PyObject *outbox) {
    OutboxState *state = state_of(outbox);
    return state ? &state->tally : NULL;
}

/* Append the counted frames of a queue to `kept`, and count the messages in `write` anew. Returns their bytes, or -1 with
 * an exception. */
static Py_ssize_t keep(PyObject *kept, PyObject *queue, Py_ssize_t count, Write *write) {
    Py_ssize_t size = 0;
    write->messages = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *frame = PyList_GET_ITEM(queue, i);
        if (!is_counted(frame)) continue;
        if (PyList_Append(kept, frame) < 0) return -1;
        write->messages++;
        size += PyBytes_GET_SIZE(frame);
    }
    return size;
}

/* Drop what was appended to `kept` behind the first `count` frames, without changing the exception that is set. */
static void forget_kept(PyObject *kept, Py_ssize_t count) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyList_SetSlice(kept, count, PY_SSIZE_T_MAX, NULL) < 0) PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

/* Make `write->data` of all frames of a queue, if the outbox is not closing, and append them to `kept`: None, or the list
 * of frames that the outbox keeps. Sets `count` to their number. -1 with an exception on failure. */
static int hold_queue(PyObject *outbox, PyObject *kept, PyObject *queue, Shared *shared, Write *write, Py_ssize_t *count) {
    /* The frames and this in one look: whoever closes an outbox marks it before the close frame is queued. */
    int open = is(outbox, CLOSE_FRAME, Py_None);
    if (open < 1) {
        write->fd = -1;
        return open;
    }
    *count = PyList_GET_SIZE(queue);
    if (*count == 0) return 0;
    int same = shared->data != NULL && *count == shared->count;
    for (Py_ssize_t i = 0; same && i < *count; i++) same = PyList_GET_ITEM(queue, i) == shared->frames[i];
    int marked;
    if (same) {
        write->data = shared->data;
        write->messages = shared->messages;
        marked = shared->marked;
        Py_INCREF(write->data);
    } else {
        write->data = joined(queue, *count, &marked);
        if (write->data == NULL) return -1;
        write->messages = count_messages(queue, *count);
        forget(shared);
        if (*count <= MAX_SHARED) {
            shared->messages = write->messages;
            shared->marked = marked;
            for (; shared->count < *count; shared->count++) {
                shared->frames[shared->count] = PyList_GET_ITEM(queue, shared->count);
                Py_INCREF(shared->frames[shared->count]);
            }
            shared->data = write->data;
            Py_INCREF(write->data);
        }
    }
    if (kept == Py_None) return marked ? hold_frames(write, queue, *count) : 0;
    if (*count > 1 && hold_frames(write, queue, *count) < 0) return -1;
    write->kept_bytes = keep(kept, queue, *count, write);
    return write->kept_bytes < 0 ? -1 : 0;
}

/* Take all frames from a queue as one bytes object, `write->data`: NULL if there are none. `kept` is None, or the list of
 * frames that the outbox keeps. -1 with an exception on failure; then the queue is unchanged. */
static int take(PyObject *outbox, PyObject *kept, PyObject *queue, Shared *shared, Write *write) {
    Py_ssize_t before = kept == Py_None ? 0 : PyList_GET_SIZE(kept), count = 0;
    int failed;
    Py_BEGIN_CRITICAL_SECTION(queue);
    failed = hold_queue(outbox, kept, queue, shared, write, &count);
    Py_END_CRITICAL_SECTION();
    if (failed || (write->data != NULL && PyList_SetSlice(queue, 0, count, NULL) < 0)) {
        if (kept != Py_None) forget_kept(kept, before);
        release_write(write);
        return -1;
    }
    if (write->kept_bytes > 0 && tally_of(outbox) != NULL) tally_of(outbox)->kept_bytes += (uint64_t)write->kept_bytes;
    return 0;
}

/* Take the queued frames of an outbox; -1 with an exception on failure. Afterwards:
 *
 * - `fd` < 0: nothing is taken, because of TLS, or because the outbox is closing, ended or full, or has written more
 *   than its window holds. The caller handles it.
 * - otherwise, `data` is NULL if nothing is queued. */
static int begin_write(Write *write, PyObject *outbox, Shared *shared) {
    PyObject *fd = get(outbox, FD);
    if (fd == NULL) return -1;
    write->fd = (int)PyLong_AsLong(fd);
    if (write->fd == -1 && PyErr_Occurred()) return -1;
    int ready = is(outbox, BLOCKED, Py_False);
    if (ready < 0) return -1;
    if (!ready) write->fd = -1;
    if (write->fd < 0) return 0;
    PyObject *queue = get(outbox, QUEUE), *kept = get(outbox, KEPT);
    if (queue == NULL || kept == NULL) return -1;
    if (kept != Py_None) {
        if (!PyList_Check(kept)) {
            PyErr_SetString(PyExc_TypeError, "an outbox keeps a list");
            return -1;
        }
        Tally *tally = tally_of(outbox);
        if (tally != NULL && tally->kept_bytes > tally->window) {
            write->fd = -1;
            return 0;
        }
    }
    if (PyList_Check(queue)) return take(outbox, kept, queue, shared, write);
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

/* Count the bytes written. Returns whether they were all; then `data` is released. Otherwise marks the outbox, and the
 * caller continues with it. */
static int end_write(Write *write, PyObject *outbox) {
    int complete = write->sent == PyBytes_GET_SIZE(write->data);
    Tally *tally = tally_of(outbox);
    if (write->sent >= 0 && tally != NULL) {
        tally->messages_out += (uint64_t)write->messages;
        if (complete) tally->bytes_out += (uint64_t)write->sent; /* otherwise the caller counts them */
    }
    if (complete) {
        release_write(write);
    } else if (PyObject_SetAttr(outbox, attribute_names[BLOCKED], Py_True) < 0 ||
               PyObject_SetAttr(outbox, attribute_names[DRAINING], Py_True) < 0) {
        PyErr_Clear();
    }
    return complete;
}

/* What `Outbox._after_send_locked` gets of an incomplete write: a new reference, or NULL with an exception. */
static PyObject *unsent(const Write *write) {
    if (write->data == NULL) Py_RETURN_NONE;
    if (write->frames == NULL) return Py_NewRef(write->data);
    PyObject *list = PyList_New(write->count);
    for (Py_ssize_t i = 0; list != NULL && i < write->count; i++) PyList_SET_ITEM(list, i, Py_NewRef(write->frames[i]));
    return list;
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
    /* On a failure above, the taken frames are still sent, and the others are still queued: the next call fails again.
     */
    if (done < total && done > 0) PyErr_Clear();
    PyObject *type, *value, *traceback; /* the failure at the first outbox, kept until the end */
    PyErr_Fetch(&type, &value, &traceback);

    PyThreadState *state = total == 1 && done == 1 && is_small(writes) ? NULL : PyEval_SaveThread();
    for (Py_ssize_t i = 0; i < done; i++) {
        if (writes[i].data != NULL) do_write(&writes[i]);
    }
    if (state != NULL) PyEval_RestoreThread(state);

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
            PyObject *data = unsent(write);
            if (data != NULL) row = Py_BuildValue("(ONn)", PyList_GET_ITEM(outboxes, i), data, write->sent);
            if (row == NULL || PyList_Append(result, row) < 0) Py_CLEAR(result);
        }
        Py_XDECREF(row);
    }
    for (Py_ssize_t i = 0; result == NULL && i < done; i++) {
        /* The caller does not learn what is left of these writes, so their streams end here. */
        if (writes[i].data != NULL) shutdown(writes[i].fd, SHUT_RDWR);
    }
    for (Py_ssize_t i = 0; i < total; i++) release_write(&writes[i]);
    PyMem_Free(writes);
    if (type != NULL) {
        Py_XDECREF(result);
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    return result;
}

/* ---- post(outbox, frame) -> whether it took it ---- */

static PyObject *flush, *after_send;

/* _send_queues and _after_send_locked for one outbox, whose lock the caller holds. 1 if all queued frames are written,
 * 0 if there is more to do, -1 with an exception. */
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
    PyObject *sent = PyLong_FromSsize_t(write.sent), *data = sent ? unsent(&write) : NULL;
    PyObject *told = data ? PyObject_CallMethodObjArgs(outbox, after_send, data, sent, NULL) : NULL;
    if (data == NULL) shutdown(write.fd, SHUT_RDWR); /* the outbox does not learn what is left of the write */
    Py_XDECREF(data);
    Py_XDECREF(sent);
    Py_XDECREF(told);
    release_write(&write);
    return told == NULL ? -1 : 0;
}

/* Outbox.flush for the common case: the outbox is open, not full, and not locked by another thread. 1 if done, 0 if
 * Outbox.flush must be called, -1 with an exception. */
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
    int took = append_frame(args[0], args[1]);
    if (took < 1) return took < 0 ? NULL : Py_NewRef(Py_False);
    int flushed = flush_plain(args[0]);
    if (flushed < 0) return NULL;
    PyObject *none = flushed ? NULL : PyObject_CallMethodNoArgs(args[0], flush);
    if (!flushed && none == NULL) return NULL;
    Py_XDECREF(none);
    Py_RETURN_TRUE;
}

/* ---- the module ---- */

static PyMethodDef methods[] = {
    {"send_queues", send_queues, METH_O, "See wsthreads.protocol.outbox."},
    {"post", (PyCFunction)(void (*)(void))post, METH_FASTCALL, "See wsthreads.protocol.outbox."},
    {NULL, NULL, 0, NULL},
};

int add_sending_functions(PyObject *module) {
    if (flush == NULL) flush = PyUnicode_InternFromString("flush");
    if (after_send == NULL) after_send = PyUnicode_InternFromString("_after_send_locked");
    return flush == NULL || after_send == NULL ? -1 : PyModule_AddFunctions(module, methods);
}
