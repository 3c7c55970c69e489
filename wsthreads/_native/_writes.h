#ifndef WSTHREADS_WRITES_H
#define WSTHREADS_WRITES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* One write to a socket, of all frames that an outbox has queued. */
typedef struct {
    PyObject *data; /* bytes, a strong reference; NULL if there is nothing to send here */
    PyObject **frames; /* strong references: the frames in `data` if the caller may need them; else NULL */
    Py_ssize_t count; /* of `frames` */
    Py_ssize_t messages; /* in `data` */
    Py_ssize_t kept_bytes; /* of `data`, if the outbox keeps */
    Py_ssize_t sent;
    int fd;
    int error;
} Write;

/* The members of a room mostly have the same frames in their queues. So this keeps the frames of the last queue, and
 * the bytes of these frames joined.
 */
#define MAX_SHARED 64

typedef struct {
    PyObject *frames[MAX_SHARED]; /* strong references, so that no other object gets their addresses */
    Py_ssize_t count;
    Py_ssize_t messages;
    int marked;
    PyObject *data; /* a strong reference; NULL if there is none */
} Shared;

/* Take the queued frames of an outbox; -1 with an exception on failure. Afterwards:
 *
 * - `fd` < 0: nothing is taken, because of TLS, or because the outbox is closing, ended or full, or its window is full.
 *   The caller handles it.
 * - Otherwise, `data` is NULL if nothing is queued. */
int begin_write(Write *write, PyObject *outbox, Shared *shared);

/* Needs no GIL. */
void do_write(Write *write);

/* Count the written bytes. Returns whether all were written; then `data` is released. Otherwise marks the outbox, and
 * the caller continues with it. */
int end_write(Write *write, PyObject *outbox);

/* An incomplete write for `Outbox._after_send_locked`: a new reference, or NULL with an exception. */
PyObject *unsent(const Write *write);

void release_write(Write *write);

void forget_shared(Shared *shared);

#endif
