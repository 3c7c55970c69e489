#ifndef WSTHREADS_RLOCK_H
#define WSTHREADS_RLOCK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyTypeObject RLockType;

/* Take an RLock if it is free, or if this thread has it already. Returns whether it was taken. */
int try_rlock(PyObject *lock);

/* Release an RLock. Returns -1 with an exception if this thread does not have it. */
int release_rlock(PyObject *lock);

/* Adds the type RLock to the module; -1 with an exception on failure. */
int add_rlock_type(PyObject *module);

#endif
