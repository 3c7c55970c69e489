/* Reading from sockets, and the queue for the GIL.
 *
 * A thread that waits for the GIL wakes up every 5 ms to ask for it. If thousands of clients send or leave at once,
 * thousands of threads do this, and nothing else happens for minutes. So only `MAX_WAITING` threads wait for the GIL.
 * The others wait on a semaphore until it is their turn, without a time limit. Without a GIL, only busy threads wait,
 * and only for a moment.
 */
#ifndef WSTHREADS_READING_H
#define WSTHREADS_READING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

/* Waits until it is this thread's turn, then calls PyEval_RestoreThread. Keeps errno. */
void restore_thread_in_turn(PyThreadState *state);

/* Must be called before the thread waits for its client, because another thread may then be busy. Needs no GIL. */
void end_work(void);

/* Returns seconds, by the clock of time.monotonic(). */
double monotonic(void);

/* Reads the rest of the data frame that begins with `data`. Returns a copy of `data`, followed by those bytes of the
 * frame that arrive within 50 ms, and sets `size` to the size of this copy. Returns NULL if `data` is not the beginning
 * of a data frame, or if the message has more than `max_bytes`. If the rest takes longer, the caller gets an incomplete
 * frame. The caller must check the time limit and the UTF-8. Needs no GIL. */
uint8_t *with_rest(int fd, const uint8_t *data, size_t *size, size_t max_bytes);

/* Adds the functions that read from sockets to the module; -1 with an exception on failure. */
int add_reading_functions(PyObject *module);

#endif
