#ifndef WSTHREADS_WRITES_H
#define WSTHREADS_WRITES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* One write to a socket: all frames that an outbox has queued. */
typedef struct {
    PyObject *data; /* bytes, a strong reference; NULL if there is nothing to send here */
    PyObject **frames; /* strong references to the frames in `data`, if the caller may need them; otherwise NULL */
    Py_ssize_t count; /* how many `frames` there are */
    Py_ssize_t messages; /* how many messages are in `data` */
    Py_ssize_t kept_bytes; /* the bytes of `data` that the outbox keeps */
    Py_ssize_t sent;
    int fd;
    int error;
} Write;

/* Most members of a room have the same frames in their queues. So this struct keeps the frames of the last queue, and
 * the bytes of these frames joined. */
#define MAX_SHARED 64

typedef struct {
    PyObject *frames[MAX_SHARED]; /* strong references, so that no other object gets the same address */
    Py_ssize_t count;
    Py_ssize_t messages;
    int marked;
    PyObject *data; /* a strong reference, or NULL if there is no data */
} Shared;

/* Take the queued frames of an outbox. Returns -1 with an exception on failure. Otherwise:
 *
 * - If `fd` < 0, no frame was taken, because of TLS, or because the outbox is closing, has ended or is full, or its
 *   window is full. The caller must send the frames in another way.
 * - If `fd` >= 0, `data` is NULL if nothing is queued.
 */
int begin_write(Write *write, PyObject *outbox, Shared *shared);

/* Write to the socket. Needs no GIL. */
void do_write(Write *write);

/* Count the written bytes. Returns whether all bytes were written, in which case `data` is released. Otherwise marks
 * the outbox, and the caller must continue with the rest. */
int end_write(Write *write, PyObject *outbox);

/* Returns an incomplete write as `Outbox._after_send_locked` needs it: a new reference, or NULL with an exception. */
PyObject *unsent(const Write *write);

void release_write(Write *write);

void forget_shared(Shared *shared);

#endif
