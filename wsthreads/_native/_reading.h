/* Who waits for the GIL wakes up every 5 ms to ask for it. Thousands of clients that send, or leave, at once would have
 * thousands of threads do that, and nothing else be done for minutes. So all but some wait elsewhere, without a time
 * limit. (With one there would be no need to ask, but who is next would depend on who happens to run.)
 */
#ifndef WSTHREADS_READING_H
#define WSTHREADS_READING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

/* PyEval_RestoreThread, in turn. Leaves errno as it is. */
void restore_thread_in_turn(PyThreadState *state);

/* Writes to so many sockets take milliseconds, without the GIL. Whoever takes it meanwhile, on the same core, has them
 * take twice as long, and the members of a room wait. So who is busy waits, for a moment, until one of those is done who
 * have called the first of these, and not yet the second: that with the GIL, so that who has waited gets it after it. */
enum { MANY_WRITES = 64 };
void begin_writing(void);
void end_writing(void);

/* Seconds, as time.monotonic(). */
double monotonic(void);

/* A copy of the data frame that `data` is the beginning of, with what comes in of it within 50 ms; `size` is then that
 * of the copy. NULL if it is no such beginning, or has more than `max_bytes`. What takes longer is the caller's as far
 * as it has come: how long it may take, and whether its beginning is UTF-8, is not judged here. Needs no GIL. */
uint8_t *with_rest(int fd, const uint8_t *data, size_t *size, size_t max_bytes);

/* Adds what reads from sockets to the module; -1 with an exception on failure. */
int add_reading_functions(PyObject *module);

#endif
