/* Who waits for the GIL wakes up every 5 ms to ask for it. Thousands of clients that send, or leave, at once would have
 * thousands of threads do that, and nothing else be done for minutes. So all but some wait elsewhere, without a time
 * limit. (With one there would be no need to ask, but who is next would depend on who happens to run.)
 */
#ifndef WSTHREADS_TURNSTILE_H
#define WSTHREADS_TURNSTILE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* PyEval_RestoreThread, in turn. Leaves errno as it is. */
void restore_thread_in_turn(PyThreadState *state);

#endif
