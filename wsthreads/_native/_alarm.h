#ifndef WSTHREADS_ALARM_H
#define WSTHREADS_ALARM_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Add the type Alarm, and the address of its interrupt handler, to the module; -1 with an exception on failure. */
int add_alarm_type(PyObject *module);

#endif
