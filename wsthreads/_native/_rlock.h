#ifndef WSTHREADS_RLOCK_H
#define WSTHREADS_RLOCK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyTypeObject RLockType;

/* Take an RLock if it is free or this thread's; whether that was so. */
int try_rlock(PyObject *lock);

/* Let go of it. -1 with an exception if it is not this thread's. */
int release_rlock(PyObject *lock);

/* Adds the type RLock to the module; -1 with an exception on failure. */
int add_rlock_type(PyObject *module);

#endif
