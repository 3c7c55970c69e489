/* OutboxState, the base class of an outbox (wsthreads.protocol.writer.Writer): the attributes that C functions use.
 *
 * - Each of these attributes is a member of the C struct. Any thread may read it at any time.
 * - The queue and the lock may be used without a reference of one's own, because the outbox keeps them for its whole
 *   life. Some objects are replaced only by the thread that holds the lock. This thread may use them without a
 *   reference, too. Of all other objects, only the address is used: they are constants, or None until they are set.
 * - For other objects, such as an outbox of the Python classes, these functions call Python.
 */
#ifndef WSTHREADS_OUTBOXES_H
#define WSTHREADS_OUTBOXES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_compat.h"
#include "_metrics.h"

enum { QUEUE, FD, CLOSE_FRAME, DETACHED, BLOCKED, DRAINING, LOCK, KEPT, ATTRIBUTES };

typedef struct {
    Tally tally;
    PyObject *attributes[ATTRIBUTES]; /* atomic */
} OutboxState;

extern PyTypeObject OutboxStateType;
extern PyObject *attribute_names[ATTRIBUTES];
extern PyTypeObject *usual_type; /* the first subtype of OutboxState that was seen; set once, and kept; atomic */

/* Whether objects of this type, which is not the usual type, are OutboxStates. */
int is_state_type(PyTypeObject *type);

/* Returns the outbox as the C struct, or NULL if it is not an OutboxState. */
static inline OutboxState *state_of(PyObject *outbox) {
    PyTypeObject *type = Py_TYPE(outbox);
    return type == __atomic_load_n(&usual_type, __ATOMIC_RELAXED) || is_state_type(type) ? (OutboxState *)outbox : NULL;
}

/* Returns an attribute as a borrowed reference (see above), or NULL with an exception on failure. */
static inline PyObject *get(PyObject *outbox, int attribute) {
    OutboxState *state = state_of(outbox);
    PyObject *value = state ? __atomic_load_n(&state->attributes[attribute], __ATOMIC_ACQUIRE) : NULL;
    if (value == NULL) {
        value = PyObject_GetAttr(outbox, attribute_names[attribute]);
        Py_XDECREF(value);
    }
    return value;
}

/* Returns whether an attribute is this constant: 1 or 0, or -1 with an exception on failure. */
static inline int is(PyObject *outbox, int attribute, PyObject *constant) {
    PyObject *value = get(outbox, attribute);
    return value == NULL ? -1 : value == constant;
}

/* Returns 1 if frames are queued, 0 if not, -1 with an exception on failure. */
static inline int has_queued(PyObject *outbox) {
    PyObject *queue = get(outbox, QUEUE);
    if (queue == NULL) return -1;
    return PyList_Check(queue) && PyList_GET_SIZE(queue) > 0;
}

/* Outbox.append: returns 1 if the outbox accepts the frame, 0 if it is closed, -1 with an exception on failure. */
int append_frame(PyObject *outbox, PyObject *frame);

/* Returns 1 if the lock of an outbox was taken, 0 if another thread has it, -1 with an exception on failure. */
int try_lock(PyObject *lock);

/* Releases the lock of an outbox. Returns -1 with an exception on failure. */
int release_lock(PyObject *lock);

/* Adds the type OutboxState to the module; -1 with an exception on failure. */
int add_outbox_type(PyObject *module);

/* Adds append_all, lock_queued and unlock to the module; -1 with an exception on failure. */
int add_outbox_functions(PyObject *module);

#endif
