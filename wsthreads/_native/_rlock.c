/* RLock: threading.RLock without timeouts, for the lock of an outbox, which is taken for every delivery.
 *
 * Taking it costs about 50 instructions. threading's RLock is used by method calls, and reads a clock: this would cost
 * 1,300 of the 1,900 instructions of a delivery, without the system call.
 *
 * It needs no GIL. Only the thread that has the mutex writes the owner. So a thread has the lock exactly if it reads
 * its own number there. Only the owner uses the count. A thread that waits for the mutex releases the GIL. No signal
 * handler runs during this wait. The wait is short, because no thread holds this lock for long.
 */
#include "_rlock.h"

#include <pthread.h>

#include "_compat.h"

typedef struct {
    PyObject_HEAD
    pthread_mutex_t mutex;
    unsigned long owner; /* the number of a thread, or NOBODY; atomic */
    Py_ssize_t count;
} RLock;

enum { NOBODY = 0 }; /* PyThread_get_thread_ident never returns this number */

static int is_ours(RLock *self) {
    return __atomic_load_n(&self->owner, __ATOMIC_RELAXED) == PyThread_get_thread_ident();
}

static void own(RLock *self, Py_ssize_t count) {
    self->count = count;
    __atomic_store_n(&self->owner, PyThread_get_thread_ident(), __ATOMIC_RELAXED);
}

int try_rlock(PyObject *lock) {
    RLock *self = (RLock *)lock;
    if (is_ours(self)) {
        self->count++;
        return 1;
    }
    FENCE(); /* if the lock is taken now, its owner will see this thread's work after the release */
    if (pthread_mutex_trylock(&self->mutex)) return 0;
    own(self, 1);
    return 1;
}

int release_rlock(PyObject *lock) {
    RLock *self = (RLock *)lock;
    if (!is_ours(self)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot release un-acquired lock");
        return -1;
    }
    if (--self->count == 0) {
        __atomic_store_n(&self->owner, NOBODY, __ATOMIC_RELAXED);
        pthread_mutex_unlock(&self->mutex);
        FENCE(); /* see the FENCE in try_rlock */
    }
    return 0;
}

static void wait_for_mutex(RLock *self) {
    if (pthread_mutex_trylock(&self->mutex) == 0) return;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&self->mutex);
    Py_END_ALLOW_THREADS
}

static PyObject *rlock_new(PyTypeObject *type, PyObject *args, PyObject *options) {
    if (PyTuple_GET_SIZE(args) > 0 || (options != NULL && PyDict_GET_SIZE(options) > 0)) {
        PyErr_SetString(PyExc_TypeError, "RLock()");
        return NULL;
    }
    RLock *self = (RLock *)type->tp_alloc(type, 0);
    if (self != NULL) pthread_mutex_init(&self->mutex, NULL);
    return (PyObject *)self;
}

static void rlock_dealloc(RLock *self) {
    pthread_mutex_destroy(&self->mutex);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *rlock_acquire(PyObject *lock, PyObject *const *args, Py_ssize_t nargs) {
    int blocking = nargs == 0 ? 1 : nargs == 1 ? PyObject_IsTrue(args[0]) : -1;
    if (blocking < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "acquire(blocking: bool = True)");
        return NULL;
    }
    if (try_rlock(lock)) Py_RETURN_TRUE;
    if (!blocking) Py_RETURN_FALSE;
    wait_for_mutex((RLock *)lock);
    own((RLock *)lock, 1);
    Py_RETURN_TRUE;
}

static PyObject *rlock_release(PyObject *lock, PyObject *const *args, Py_ssize_t nargs) {
    (void)args, (void)nargs; /* the arguments of __exit__ */
    if (release_rlock(lock) < 0) return NULL;
    Py_RETURN_NONE;
}

/* ---- for threading.Condition ---- */

static PyObject *rlock_is_owned(RLock *self, PyObject *none) {
    (void)none;
    return PyBool_FromLong(is_ours(self));
}

static PyObject *rlock_release_save(RLock *self, PyObject *none) {
    (void)none;
    int ours = is_ours(self);
    PyObject *count = PyLong_FromSsize_t(ours ? self->count : 0);
    if (count == NULL) return NULL;
    if (ours) self->count = 1;
    if (release_rlock((PyObject *)self) < 0) Py_CLEAR(count);
    return count;
}

static PyObject *rlock_acquire_restore(RLock *self, PyObject *saved) {
    Py_ssize_t count = PyLong_AsSsize_t(saved);
    if (count == -1 && PyErr_Occurred()) return NULL;
    wait_for_mutex(self);
    own(self, count);
    Py_RETURN_NONE;
}

static PyMethodDef rlock_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))rlock_acquire, METH_FASTCALL, "See threading.RLock."},
    {"release", (PyCFunction)(void (*)(void))rlock_release, METH_FASTCALL, "See threading.RLock."},
    {"__enter__", (PyCFunction)(void (*)(void))rlock_acquire, METH_FASTCALL, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))rlock_release, METH_FASTCALL, NULL},
    {"_is_owned", (PyCFunction)rlock_is_owned, METH_NOARGS, NULL},
    {"_release_save", (PyCFunction)rlock_release_save, METH_NOARGS, NULL},
    {"_acquire_restore", (PyCFunction)rlock_acquire_restore, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject RLockType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._speedups.RLock",
    .tp_basicsize = sizeof(RLock),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "threading.RLock, without time limits.",
    .tp_new = rlock_new,
    .tp_dealloc = (destructor)rlock_dealloc,
    .tp_methods = rlock_methods,
};

int add_rlock_type(PyObject *module) {
    if (PyType_Ready(&RLockType) < 0) return -1;
    return PyModule_AddObjectRef(module, "RLock", (PyObject *)&RLockType);
}
