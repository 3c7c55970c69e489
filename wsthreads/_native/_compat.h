/* The differences between Pythons with and without a GIL. A free-threaded build of Python defines Py_GIL_DISABLED. */
#ifndef WSTHREADS_COMPAT_H
#define WSTHREADS_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Between these two macros, no other thread changes the object. With a GIL, they do nothing, because the GIL is held.
 * The code between them must not contain `return`, or a call that locks the same object. */
#ifndef Py_BEGIN_CRITICAL_SECTION
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

/* An entry in the slots of a module, which says that the module needs no GIL. */
#ifdef Py_mod_gil
#define NEEDS_NO_GIL {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#else
#define NEEDS_NO_GIL
#endif

/* Put this between a store and a load, if another thread does the same with the two variables exchanged. At least one
 * of the two threads then sees the store of the other. With a GIL, passing the GIL on has this effect. */
#ifdef Py_GIL_DISABLED
#define FENCE() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#else
#define FENCE() ((void)0)
#endif

#endif
