/* The same functions as the Python ones in wsthreads.frames and wsthreads.outbox, for where they are called most.
 *
 * Optional: where it could not be built, or with WSTHREADS_PURE_PYTHON=1, those are used. What must hold:
 *
 * - decode_message takes exactly what frames.decode_message takes.
 * - append_all only appends to memory. The caller holds the room's order lock.
 * - send_queues lets go of the GIL around the system calls, and of nothing else. The caller holds the lock of every
 *   outbox that it passes, so no other thread takes from their queues, writes to their sockets or closes them. In this
 *   thread a finalizer could, as the locks let it in: so from when frames are taken from a queue to when an incomplete
 *   write is marked in `_draining`, which the caller unmarks, nothing is allocated that the garbage collector tracks.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static PyObject *name_queue, *name_fd, *name_close_frame, *name_detached, *name_blocked, *name_draining;

/* ---- decode_message(buffer, start, max_bytes) -> (message, next start) or None ---- */

static void unmask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t key[4]) {
    uint64_t wide;
    uint8_t twice[8];
    size_t i = 0;
    memcpy(twice, key, 4);
    memcpy(twice + 4, key, 4);
    memcpy(&wide, twice, 8);
    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, from + i, 8);
        word ^= wide;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++) to[i] = from[i] ^ key[i & 3];
}

static PyObject *decode_message(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 3 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "decode_message(buffer: bytes, start: int, max_bytes: int)");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(args[1]), limit = PyLong_AsSsize_t(args[2]);
    if ((start == -1 || limit == -1) && PyErr_Occurred()) return NULL;
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(args[0]);
    Py_ssize_t end = PyBytes_GET_SIZE(args[0]);
    if (start < 0 || end - start < 6) Py_RETURN_NONE;
    const uint8_t *at = data + start;
    uint8_t first = at[0];
    if ((first != 0x81 && first != 0x82) || !(at[1] & 0x80)) Py_RETURN_NONE;
    uint64_t size = at[1] & 0x7F;
    Py_ssize_t header = 6;
    if (size == 126) {
        header = 8;
        if (end - start < header) Py_RETURN_NONE;
        size = (uint64_t)at[2] << 8 | at[3];
        if (size < 126) Py_RETURN_NONE;
    } else if (size == 127) {
        header = 14;
        if (end - start < header) Py_RETURN_NONE;
        size = 0;
        for (int i = 2; i < 10; i++) size = size << 8 | at[i];
        if (size <= 0xFFFF) Py_RETURN_NONE;
    }
    if (limit < 0 || size > (uint64_t)limit || size > (uint64_t)(end - start - header)) Py_RETURN_NONE;
    PyObject *message = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (message == NULL) return NULL;
    unmask((uint8_t *)PyBytes_AS_STRING(message), at + header, (size_t)size, at + header - 4);
    if (first == 0x81) {
        PyObject *text = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(message), (Py_ssize_t)size, NULL);
        Py_DECREF(message);
        if (text == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) return NULL;
            PyErr_Clear();
            Py_RETURN_NONE;
        }
        message = text;
    }
    return Py_BuildValue("(Nn)", message, start + header + (Py_ssize_t)size);
}

/* ---- append_all(outboxes: tuple, frame, skip) -> None ---- */

/* 1 or 0, or -1 with an exception: whether an attribute of an outbox is the given constant. */
static int attribute_is(PyObject *outbox, PyObject *name, PyObject *constant) {
    PyObject *value = PyObject_GetAttr(outbox, name);
    if (value == NULL) return -1;
    Py_DECREF(value); /* a constant, or something that the outbox goes on holding */
    return value == constant;
}

static PyObject *append_all(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 3 || !PyTuple_Check(args[0]) || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "append_all(outboxes: tuple, frame: bytes, skip)");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args[0]); i++) {
        PyObject *outbox = PyTuple_GET_ITEM(args[0], i);
        if (outbox == args[2]) continue;
        int open = attribute_is(outbox, name_close_frame, Py_None);
        if (open > 0) open = attribute_is(outbox, name_detached, Py_False);
        if (open < 0) return NULL;
        if (!open) continue;
        PyObject *queue = PyObject_GetAttr(outbox, name_queue);
        if (queue == NULL) return NULL;
        int failed = PyList_Append(queue, args[1]);
        Py_DECREF(queue);
        if (failed) return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- send_queues(outboxes: list) -> [(outbox, data, sent or -errno), ...] of those not sent completely ---- */

typedef struct {
    PyObject *data; /* bytes, ours; NULL where there is nothing to send here */
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
    PyObject *data; /* ours; NULL where there is none */
} Shared;

static void forget(Shared *shared) {
    for (Py_ssize_t i = 0; i < shared->count; i++) Py_DECREF(shared->frames[i]);
    shared->count = 0;
    Py_CLEAR(shared->data);
}

/* Take everything from a queue as one bytes object; NULL with an exception on failure, the queue is then as it was. */
static PyObject *take(PyObject *queue, Shared *shared) {
    Py_ssize_t count = PyList_GET_SIZE(queue);
    int same = shared->data != NULL && count == shared->count;
    for (Py_ssize_t i = 0; same && i < count; i++) same = PyList_GET_ITEM(queue, i) == shared->frames[i];
    PyObject *data;
    if (same) {
        data = shared->data;
        Py_INCREF(data);
    } else {
        data = joined(queue, count);
        if (data == NULL) return NULL;
        forget(shared);
        if (count <= MAX_SHARED) {
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

    for (done = 0; done < total; done++) {
        Write *write = &writes[done];
        PyObject *outbox = PyList_GET_ITEM(outboxes, done);
        PyObject *fd = PyObject_GetAttr(outbox, name_fd);
        if (fd == NULL) break;
        write->fd = (int)PyLong_AsLong(fd);
        Py_DECREF(fd);
        if (write->fd == -1 && PyErr_Occurred()) break;
        int ready = attribute_is(outbox, name_close_frame, Py_None);
        if (ready > 0) ready = attribute_is(outbox, name_blocked, Py_False);
        if (ready < 0) break;
        if (!ready) write->fd = -1;
        if (write->fd < 0) continue; /* TLS, closing, over or full: the caller's */
        PyObject *queue = PyObject_GetAttr(outbox, name_queue);
        if (queue == NULL) break;
        int empty = !PyList_Check(queue) || PyList_GET_SIZE(queue) == 0;
        if (!empty) write->data = take(queue, &shared);
        Py_DECREF(queue);
        if (!empty && write->data == NULL) break;
    }
    /* On a failure above, what was taken is still sent, and the rest is still queued: the next call meets it again. */
    int failed = done < total;
    if (failed && done > 0) PyErr_Clear();
    PyObject *type, *value, *traceback; /* of the failure at the first outbox, kept for afterwards */
    PyErr_Fetch(&type, &value, &traceback);

    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < done; i++) {
        Write *write = &writes[i];
        if (write->data == NULL) continue;
        do {
            write->sent = send(write->fd, PyBytes_AS_STRING(write->data), (size_t)PyBytes_GET_SIZE(write->data),
                               MSG_DONTWAIT | MSG_NOSIGNAL);
        } while (write->sent < 0 && errno == EINTR);
        if (write->sent < 0) {
            write->error = errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : errno;
            write->sent = write->error ? -write->error : 0;
        }
    }
    Py_END_ALLOW_THREADS

    for (Py_ssize_t i = 0; i < done; i++) {
        Write *write = &writes[i];
        if (write->data != NULL && write->sent == PyBytes_GET_SIZE(write->data)) {
            Py_CLEAR(write->data);
            continue;
        }
        incomplete++;
        if (write->data == NULL) continue;
        PyObject *outbox = PyList_GET_ITEM(outboxes, i);
        if (PyObject_SetAttr(outbox, name_blocked, Py_True) < 0 || PyObject_SetAttr(outbox, name_draining, Py_True) < 0) {
            PyErr_Clear();
        }
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

static PyMethodDef methods[] = {
    {"decode_message", (PyCFunction)(void (*)(void))decode_message, METH_FASTCALL, "See wsthreads.frames."},
    {"append_all", (PyCFunction)(void (*)(void))append_all, METH_FASTCALL, "See wsthreads.outbox."},
    {"send_queues", send_queues, METH_O, "See wsthreads.outbox."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_speedups", "C versions of wsthreads' busiest functions.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__speedups(void) {
    name_queue = PyUnicode_InternFromString("_queue");
    name_fd = PyUnicode_InternFromString("_fd");
    name_close_frame = PyUnicode_InternFromString("_close_frame");
    name_detached = PyUnicode_InternFromString("_detached");
    name_blocked = PyUnicode_InternFromString("_blocked");
    name_draining = PyUnicode_InternFromString("_draining");
    if (!name_queue || !name_fd || !name_close_frame || !name_detached || !name_blocked || !name_draining) return NULL;
    return PyModule_Create(&module);
}
