/* One write to a socket: the frames in the queue of an outbox, as one bytes object. For the rules, see _sending.c. */
#include "_writes.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "_frames.h"
#include "_metrics.h"
#include "_outboxes.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* Returns the first `count` frames of a queue as one bytes object, or NULL with an exception on failure. Sets `marked`
 * to whether there are several frames, and one of them has marks. */
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

void forget_shared(Shared *shared) {
    for (Py_ssize_t i = 0; i < shared->count; i++) Py_DECREF(shared->frames[i]);
    shared->count = 0;
    Py_CLEAR(shared->data);
}

/* Returns how many of the first `count` frames of a queue are messages. Pings, pongs and the HTTP response are not. */
static Py_ssize_t count_messages(PyObject *queue, Py_ssize_t count) {
    Py_ssize_t messages = 0;
    for (Py_ssize_t i = 0; i < count; i++) messages += !(*PyBytes_AS_STRING(PyList_GET_ITEM(queue, i)) & CONTROL);
    return messages;
}

/* Store references to the frames of a queue in `write`. Returns -1 with an exception on failure. */
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

void release_write(Write *write) {
    if (write->frames != NULL) {
        for (Py_ssize_t i = 0; i < write->count; i++) Py_DECREF(write->frames[i]);
        PyMem_Free(write->frames);
        write->frames = NULL;
        write->count = 0;
    }
    Py_CLEAR(write->data);
}

/* Whether a frame is a counted message of wsthreads.1, like envelope.is_counted. */
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

/* Append the counted messages in a queue to `kept`, and count the messages in `write` again. Returns the bytes of the
 * counted messages, or -1 with an exception. */
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

/* Remove the frames in `kept` after the first `count`. Keeps the current exception. */
static void forget_kept(PyObject *kept, Py_ssize_t count) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyList_SetSlice(kept, count, PY_SSIZE_T_MAX, NULL) < 0) PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

/* Join all frames of a queue to `write->data`, unless the outbox is closing, and append the frames to `kept`. `kept` is
 * None, or the list of frames that the outbox keeps. Sets `count` to the number of frames. Returns -1 with an exception
 * on failure. */
static int hold_queue(PyObject *outbox, PyObject *kept, PyObject *queue, Shared *shared, Write *write, Py_ssize_t *count) {
    /* Read together with the frames, because an outbox is marked as closing before its close frame is queued. */
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
        forget_shared(shared);
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

/* Take all frames from a queue as one bytes object, `write->data`, which is NULL if there are no frames. `kept` is
 * None, or the list of frames that the outbox keeps. On failure, returns -1 with an exception, and the queue is
 * unchanged. */
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
    if (write->kept_bytes > 0 && tally_of(outbox) != NULL) COUNT_UP(tally_of(outbox)->kept_bytes, write->kept_bytes);
    return 0;
}

int begin_write(Write *write, PyObject *outbox, Shared *shared) {
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

void do_write(Write *write) {
    const char *data = PyBytes_AS_STRING(write->data);
    do {
        write->sent = send(write->fd, data, (size_t)PyBytes_GET_SIZE(write->data), MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (write->sent < 0 && errno == EINTR);
    if (write->sent < 0) {
        write->error = errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : errno;
        write->sent = write->error ? -write->error : 0;
    }
}

int end_write(Write *write, PyObject *outbox) {
    int complete = write->sent == PyBytes_GET_SIZE(write->data);
    Tally *tally = tally_of(outbox);
    if (write->sent >= 0 && tally != NULL) {
        COUNT_UP(tally->messages_out, write->messages);
        if (complete) COUNT_UP(tally->bytes_out, write->sent); /* otherwise, the caller counts the bytes */
    }
    if (complete) {
        release_write(write);
    } else if (PyObject_SetAttr(outbox, attribute_names[BLOCKED], Py_True) < 0 ||
               PyObject_SetAttr(outbox, attribute_names[DRAINING], Py_True) < 0) {
        PyErr_Clear();
    }
    return complete;
}

PyObject *unsent(const Write *write) {
    if (write->data == NULL) Py_RETURN_NONE;
    if (write->frames == NULL) return Py_NewRef(write->data);
    PyObject *list = PyList_New(write->count);
    for (Py_ssize_t i = 0; list != NULL && i < write->count; i++) PyList_SET_ITEM(list, i, Py_NewRef(write->frames[i]));
    return list;
}
