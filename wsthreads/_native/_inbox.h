/* Inbox and Intake, the types of javascript/inbox.py: events from the threads of sessions for the isolate's thread.
 *
 * - `mutex` guards the queue. It also guards `queued`, `pumps` and `is_kept` of the queue's intakes, and writes of
 *   their `turn`, `texts` and `bytes`. A thread that holds it neither waits nor takes the GIL.
 * - A queued text holds no reference to its intake, because `pump` has no GIL and must not count references. Instead,
 *   the intake has a reference to itself (`is_kept`) while `pump` runs, and until the last text has left the queue: see
 *   `may_let_go`.
 */
#ifndef WSTHREADS_INBOX_H
#define WSTHREADS_INBOX_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    PyObject_HEAD
    Py_ssize_t max_count, max_size;
    Py_ssize_t count, size; /* of messages that are in; atomic; only the session's thread calls `enter` */
    double heard_at;        /* when the last text arrived, by time.monotonic(); 0 if none has; atomic */
    uint64_t turn;          /* `pump` keeps texts as long as this is the turn that it was called with; atomic */
    uint64_t texts, bytes;  /* kept by `pump`, headers included; atomic */
    Py_ssize_t queued;      /* texts in the inbox, or just leaving it */
    Py_ssize_t pumps;       /* running calls of `pump` */
    bool is_kept;
} Intake;

/* An item of the queue: an object, as a strong reference, or a text that an intake has read. */
typedef struct Item {
    struct Item *next;
    PyObject *object; /* NULL for a text */
    Intake *intake;
    size_t size;
    char text[];
} Item;

typedef struct {
    PyObject_HEAD
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    bool is_waited_for; /* a thread waits until it is `filled` */
    bool is_closed;
    Item *first, **end;
} Inbox;

extern PyTypeObject InboxType;

/* Queue a text, which took `wire_bytes` on the wire, in this turn of an intake. Returns false, without any effect, if
 * the turn is over or the inbox is closed. Needs no GIL. */
bool append_text(Inbox *inbox, Item *item, uint64_t turn, size_t wire_bytes);

/* Both functions are only for the thread that calls `get`. The first one returns the intake of the next item if this is
 * a text, as a borrowed reference. The second one returns the next item, like `get`. Neither waits. Without a next
 * item, both return NULL without an exception. */
PyObject *next_intake(Inbox *inbox);
PyObject *get_now(Inbox *inbox);

/* With the mutex held: whether the intake's reference to itself must be dropped. The caller drops it after releasing
 * the mutex. */
bool may_let_go(Intake *intake);

/* Add the types to the module; -1 with an exception on failure. */
int add_inbox_type(PyObject *module);
int add_intake_type(PyObject *module);

#endif
