/* Inbox and Intake, the types of javascript/inbox.py: events from the threads of sessions to the isolate's thread.
 *
 * - The isolate is the interpreter of a script. An intake belongs to one session.
 * - `mutex` guards the queue of an inbox. It also guards `queued`, `pumps` and `is_kept` of the intakes that use the
 *   queue, and writes to their `turn`, `texts` and `bytes`. A thread that holds it neither waits nor takes the GIL.
 * - A text in the queue holds no reference to its intake, because `pump` has no GIL and must not count references.
 *   Instead, the intake has a reference to itself (`is_kept`) while `pump` runs, and until the last text has left the
 *   queue: see `may_let_go`.
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
    Py_ssize_t count, size; /* of messages that were entered; atomic; only the session's thread calls `enter` */
    double heard_at;        /* when the last text arrived, by time.monotonic(); 0 if none has; atomic */
    uint64_t turn;          /* `pump` takes texts while this is the turn with which it was called; atomic */
    uint64_t texts, bytes;  /* taken by `pump`, including headers; atomic */
    Py_ssize_t queued;      /* texts that are in the inbox, or are just being taken out */
    Py_ssize_t pumps;       /* how many calls of `pump` are running */
    bool is_kept;
} Intake;

/* An item in the queue: an object (a strong reference), or a text that an intake has read. */
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
    bool is_waited_for; /* whether a thread waits until it is `filled` */
    bool is_closed;
    Item *first, **end;
} Inbox;

extern PyTypeObject InboxType;

/* Queue a text of an intake, which had `wire_bytes` on the wire. Returns false, without any effect, if this turn is
 * over or the inbox is closed. Needs no GIL. */
bool append_text(Inbox *inbox, Item *item, uint64_t turn, size_t wire_bytes);

/* Both functions are only for the thread that calls `get`. Neither waits. `next_intake` returns the intake of the next
 * item if this item is a text, as a borrowed reference. The second function returns the next item, like `get`. Without
 * a next item, both return NULL without an exception. */
PyObject *next_intake(Inbox *inbox);
PyObject *get_now(Inbox *inbox);

/* Whether the intake's reference to itself must be dropped. Called with the mutex held. The caller drops the reference
 * after it has released the mutex. */
bool may_let_go(Intake *intake);

/* Add the types to the module; -1 with an exception on failure. */
int add_inbox_type(PyObject *module);
int add_intake_type(PyObject *module);

#endif
