/* send_queues and post: write the queued frames of outboxes to their sockets, as wsthreads.protocol.outbox does.
 *
 * Rules:
 *
 * - The GIL is released only around system calls. It is not released for a single outbox with little to send, because
 *   getting the GIL back takes longer than the call.
 * - The caller of send_queues holds the lock of every outbox that it passes. So no other thread takes frames from the
 *   queues, writes to the sockets or closes them. (Other threads may append frames.) But a finalizer in this thread
 *   could do all this, because the locks are re-entrant. A finalizer runs when the garbage collector runs. So no object
 *   that the garbage collector tracks may be allocated after frames were taken from a queue, and before an incomplete
 *   write is marked in `_draining`. The caller removes this mark.
 * - Frames of a subclass of bytes (frames.MarkedFrame) are written like others. If they are joined for a write that is
 *   incomplete, the caller gets the frames back, because it may remove some of them. It also gets them back if the
 *   outbox keeps written frames (protocol.unacknowledged). All of them then count as written, and the caller removes
 *   some of them again.
 */
#include "_sending.h"

#include <sys/socket.h>

#include "_outboxes.h"
#include "_writes.h"

/* ---- send_queues(outboxes: list) -> [(outbox, data, sent or -errno), ...] of those not sent completely ---- */

/* If there are at most this many bytes for a single socket, they are sent with the GIL held, which takes some 10 µs. */
#define MAX_HELD_BYTES 32768

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
    /* On a failure above, the frames that were taken are still sent, and the others stay queued. The next call fails
     * again. */
    if (done < total && done > 0) PyErr_Clear();
    PyObject *type, *value, *traceback; /* the failure at the first outbox, which is kept until the end */
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
    forget_shared(&shared);
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
        /* The caller does not get the rest of these writes, so their streams end here. */
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

/* ---- post(outbox, frame) -> whether the outbox took the frame ---- */

static PyObject *flush, *after_send;

/* Does what _send_queues and _after_send_locked do, for one outbox whose lock the caller holds. Returns 1 if all queued
 * frames were written, 0 if there is more to do, -1 with an exception on failure. */
static int send_queue_locked(PyObject *outbox) {
    Write write = {.data = NULL};
    Shared none = {.count = 0, .data = NULL};
    int failed = begin_write(&write, outbox, &none);
    forget_shared(&none);
    if (failed || write.data == NULL) return failed;
    PyThreadState *state = is_small(&write) ? NULL : PyEval_SaveThread();
    do_write(&write);
    if (state != NULL) PyEval_RestoreThread(state);
    if (end_write(&write, outbox)) return 1;
    PyObject *sent = PyLong_FromSsize_t(write.sent), *data = sent ? unsent(&write) : NULL;
    PyObject *told = data ? PyObject_CallMethodObjArgs(outbox, after_send, data, sent, NULL) : NULL;
    if (data == NULL) shutdown(write.fd, SHUT_RDWR); /* the outbox does not get the rest: its stream ends */
    Py_XDECREF(data);
    Py_XDECREF(sent);
    Py_XDECREF(told);
    release_write(&write);
    return told == NULL ? -1 : 0;
}

/* Does what Outbox.flush does in the usual case: the outbox is open and not full, and no other thread has its lock.
 * Returns 1 if this is done, 0 if Outbox.flush must be called, -1 with an exception on failure. */
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
