/* The attributes of an outbox (wsthreads.protocol.outbox.Outbox), as the C functions read them.
 *
 * The class of the outbox seen last is remembered, with the offset at which `__slots__` has put each attribute. So an
 * attribute costs one comparison and one read.
 */
#ifndef WSTHREADS_OUTBOXES_H
#define WSTHREADS_OUTBOXES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

enum { QUEUE, FD, CLOSE_FRAME, DETACHED, BLOCKED, DRAINING, LOCK, KEPT, ATTRIBUTES };

extern PyObject *attribute_names[ATTRIBUTES];
extern PyTypeObject *known_type;              /* a strong reference */
extern Py_ssize_t known_offsets[ATTRIBUTES];  /* 0: ask Python */
extern int known_has_tally;                   /* its objects begin with a Tally */

/* Make `type` the known type. */
void know(PyTypeObject *type);

/* An attribute, borrowed: a constant, or an object that the outbox keeps. NULL with an exception. */
static inline PyObject *get(PyObject *outbox, int attribute) {
    if (Py_TYPE(outbox) != known_type) know(Py_TYPE(outbox));
    PyObject *value = known_offsets[attribute] ? *(PyObject **)((char *)outbox + known_offsets[attribute]) : NULL;
    if (value == NULL) {
        value = PyObject_GetAttr(outbox, attribute_names[attribute]);
        Py_XDECREF(value);
    }
    return value;
}

/* 1 or 0, or -1 with an exception: whether an attribute is the given constant. */
static inline int is(PyObject *outbox, int attribute, PyObject *constant) {
    PyObject *value = get(outbox, attribute);
    return value == NULL ? -1 : value == constant;
}

/* 1 if frames are queued, 0 if not, -1 with an exception. */
static inline int has_queued(PyObject *outbox) {
    PyObject *queue = get(outbox, QUEUE);
    if (queue == NULL) return -1;
    return PyList_Check(queue) && PyList_GET_SIZE(queue) > 0;
}

/* Outbox.append: 1 if it took the frame, 0 if it is closed, -1 with an exception. */
int append_frame(PyObject *outbox, PyObject *frame);

/* 1 if the lock of an outbox has been taken, 0 if another thread has it, -1 with an exception. */
int try_lock(PyObject *lock);

/* -1 with an exception on failure. */
int release_lock(PyObject *lock);

/* Adds append_all, lock_queued and unlock to the module; -1 with an exception on failure. */
int add_outbox_functions(PyObject *module);

#endif
