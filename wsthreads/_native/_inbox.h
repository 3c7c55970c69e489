/* Inbox and Intake, the types of javascript/inbox.py: what the threads of sessions leave for the isolate's thread.
 *
 * - `mutex` guards the queue, and of its intakes `queued`, `pumps`, `is_kept` and the writing of `turn`, `texts` and
 *   `bytes`. It is a leaf: its holder neither waits nor asks for the GIL.
 * - A queued text holds no reference to its intake, since `pump` may count none. The intake has one to itself
 *   (`is_kept`) while `pump` runs, and until the last text was given out: `may_let_go`.
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
    Py_ssize_t count, size; /* of messages that have entered and not left; atomic, only the session's thread enters */
    double heard_at;        /* when the last text arrived, by time.monotonic(); 0 if none has; atomic */
    uint64_t turn;          /* `pump` keeps texts as long as this is the turn that it was called with; atomic */
    uint64_t texts, bytes;  /* kept by `pump`, headers included; atomic */
    Py_ssize_t queued;      /* texts in the inbox, and those that are being given out */
    Py_ssize_t pumps;       /* calls of `pump` that are running */
    bool is_kept;
} Intake;

/* Something in the queue: any object, which is ours, or a text that an intake has read. */
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

/* Queue a text, which came as so many bytes, for an intake whose turn it is. False, and nothing happens, if it is
 * another turn by now, or if the inbox is closed. Needs no GIL. */
bool append_text(Inbox *inbox, Item *item, uint64_t turn, size_t wire_bytes);

/* In the thread that gets: the intake of the next item if that is a text, a borrowed reference; and the next item, as
 * `get` answers it. Both do not wait; without a next item they return NULL without an exception. */
PyObject *next_intake(Inbox *inbox);
PyObject *get_now(Inbox *inbox);

/* With the mutex held: whether the intake's reference to itself has to go. The caller drops it behind the mutex. */
bool may_let_go(Intake *intake);

/* Add the types to the module; -1 with an exception on failure. */
int add_inbox_type(PyObject *module);
int add_intake_type(PyObject *module);

#endif
