/* Functions that read from sockets, like the Python functions in wsthreads.protocol.transport and frames.
 *
 * decode_message and receive_message accept exactly those frames that frames.decode_message in Python accepts.
 */
#define _GNU_SOURCE /* POLLRDHUP */
#include "_reading.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "_compat.h"
#include "_frames.h"

#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

/* ---- the queue for the GIL ---- */

/* A compiler option can set each number below, because tests/bench/tricks.py measures the effect of the number. */
#ifndef MAX_WAITING
#define MAX_WAITING 16 /* at most this many threads ask for the GIL at once; the others wait at the turnstile */
#endif
#ifndef MAX_BUSY
#define MAX_BUSY 1 /* at most this many of these threads are busy */
#endif

/* A thread is busy if it will compute for a while, because its client has sent much, or has left. Busy threads also
 * wait at this gate. */
static sem_t gate;

#ifndef Py_GIL_DISABLED

static sem_t turnstile; /* its value is the number of threads that may still ask for the GIL */

static int prepare_turnstile(void) {
    return 0;
}

static void renew_turnstile(void) { /* also called in a forked process, which lacks the threads with places */
    sem_init(&turnstile, 0, MAX_WAITING);
    sem_init(&gate, 0, MAX_BUSY);
}

static void wait_for(sem_t *semaphore) {
    while (sem_wait(semaphore) < 0 && errno == EINTR) continue;
}

void restore_thread_in_turn(PyThreadState *state) {
    int error = errno;
    wait_for(&turnstile);
    PyEval_RestoreThread(state);
    sem_post(&turnstile);
    errno = error;
}

/* Only one busy thread at a time may wait for the GIL. So a client that sends little waits for at most two busy
 * threads, even if very many clients flood the server. */
static void restore_busy_thread(PyThreadState *state) {
    int error = errno;
    wait_for(&gate);
    errno = error;
    restore_thread_in_turn(state);
    sem_post(&gate);
}

static void restore_thread_that_leaves(PyThreadState *state) {
    restore_busy_thread(state);
}

void end_work(void) {}

#else

/* Without a GIL, a busy thread keeps its place at the gate until it reads again. So one core is free for clients that
 * send little. Otherwise, these clients would wait for seconds, because a thread that finds one of Python's locks taken
 * gives up its core again and again. After `MAX_BUSY_WAIT_MS`, a thread continues without a place, because a thread
 * with a place may be blocked in a handler. */
#define MAX_BUSY_WAIT_MS 200

static pthread_key_t place; /* set in each thread that has a place */

static void give_up_place(void *set) { /* also called when a thread ends */
    (void)set;
    sem_post(&gate);
}

static int prepare_turnstile(void) {
    return pthread_key_create(&place, give_up_place);
}

static void renew_turnstile(void) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    sem_init(&gate, 0, cores > 2 ? (unsigned)cores - 1 : 1);
    pthread_setspecific(place, NULL);
}

void restore_thread_in_turn(PyThreadState *state) {
    int error = errno;
    PyEval_RestoreThread(state);
    errno = error;
}

static void restore_busy_thread(PyThreadState *state) {
    int error = errno, failed;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += MAX_BUSY_WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    do {
        failed = sem_timedwait(&gate, &until);
    } while (failed && errno == EINTR);
    if (!failed && pthread_setspecific(place, &gate)) sem_post(&gate);
    errno = error;
    restore_thread_in_turn(state);
}

static void restore_thread_that_leaves(PyThreadState *state) {
    restore_thread_in_turn(state);
}

void end_work(void) {
    if (pthread_getspecific(place) == NULL) return;
    pthread_setspecific(place, NULL);
    sem_post(&gate);
}

#endif

/* ---- receive(fd, size) -> bytes ---- */

/* Most messages are small. They are read onto the stack, so no large buffer is needed. */
#define STACK_BYTES 2048

static PyObject *receive(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "receive(fd: int, size: int)");
        return NULL;
    }
    long fd = PyLong_AsLong(args[0]);
    Py_ssize_t size = PyLong_AsSsize_t(args[1]), received;
    if ((fd == -1 || size == -1) && PyErr_Occurred()) return NULL;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "a negative size");
        return NULL;
    }
    char little[STACK_BYTES];
    PyObject *data = NULL;
    if (size > STACK_BYTES && (data = PyBytes_FromStringAndSize(NULL, size)) == NULL) return NULL;
    for (;;) {
        char *to = data ? PyBytes_AS_STRING(data) : little;
        PyThreadState *state = PyEval_SaveThread();
        end_work();
        received = recv((int)fd, to, (size_t)size, 0);
        int is_full = received > 0 && received == size;
        if (is_full) restore_busy_thread(state);
        else restore_thread_in_turn(state);
        if (received >= 0) break;
        if (errno != EINTR) PyErr_SetFromErrno(PyExc_OSError);
        else if (PyErr_CheckSignals() == 0) continue;
        Py_XDECREF(data);
        return NULL;
    }
    if (data == NULL) return PyBytes_FromStringAndSize(little, received);
    _PyBytes_Resize(&data, received);
    return data;
}

double monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- the rest of a message ---- */

#define REST_S 0.05

uint8_t *with_rest(int fd, const uint8_t *data, size_t *size, size_t max_bytes) {
    Frame frame;
    if (parse_data_frame(data, *size, &frame) <= 0 || frame.payload_bytes > max_bytes) return NULL;
    size_t bytes = frame.header_bytes + (size_t)frame.payload_bytes;
    uint8_t *whole = bytes > *size ? malloc(bytes) : NULL;
    if (whole == NULL) return NULL;
    memcpy(whole, data, *size);
    struct pollfd socket = {.fd = fd, .events = POLLIN};
    double until = monotonic() + REST_S;
    while (*size < bytes) {
        ssize_t received = recv(fd, whole + *size, bytes - *size, MSG_DONTWAIT);
        if (received > 0) {
            *size += (size_t)received;
        } else if (received == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            break; /* the next read will find the same end or error */
        } else {
            double left_s = until - monotonic();
            if (left_s <= 0) break;
            poll(&socket, 1, (int)ceil(left_s * 1000));
        }
    }
    return whole;
}

/* ---- decode_message(buffer, start, max_bytes) -> (message, next start) or None ---- */

/* Returns the message of the complete frame at `data`, as a new str or bytes, and sets `end` to the end of the frame.
 * Returns NULL without an exception for any other frame, and for text that is not UTF-8. Returns NULL with an exception
 * on failure. */
static PyObject *decoded(const uint8_t *data, size_t size, size_t max_bytes, size_t *end) {
    Frame frame;
    if (parse_data_frame(data, size, &frame) <= 0) return NULL;
    size_t header = frame.header_bytes, bytes = (size_t)frame.payload_bytes;
    if (frame.payload_bytes > max_bytes || frame.payload_bytes > size - header) return NULL;
    int is_text = data[0] == FIN_TEXT;
    /* Most text is ASCII, for which UTF-8 has the same bytes. So it is unmasked directly into the str. */
    PyObject *message = is_text ? PyUnicode_New((Py_ssize_t)bytes, 127) : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
    if (message == NULL) return NULL;
    uint8_t *payload = is_text ? PyUnicode_1BYTE_DATA(message) : (uint8_t *)PyBytes_AS_STRING(message);
    int is_ascii = unmask(payload, data + header, bytes, data + header - 4);
    if (is_text && !is_ascii) {
        PyObject *text = PyUnicode_DecodeUTF8((const char *)payload, (Py_ssize_t)bytes, NULL);
        Py_DECREF(message);
        if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) PyErr_Clear();
        message = text;
    }
    *end = header + bytes;
    return message;
}

static PyObject *with_size(PyObject *message, Py_ssize_t size) {
    PyObject *number = PyLong_FromSsize_t(size), *pair = number == NULL ? NULL : PyTuple_New(2);
    if (pair == NULL) {
        Py_XDECREF(number);
        Py_DECREF(message);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, message);
    PyTuple_SET_ITEM(pair, 1, number);
    return pair;
}

static PyObject *decode_message(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 3 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "decode_message(buffer: bytes, start: int, max_bytes: int)");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(args[1]), limit = PyLong_AsSsize_t(args[2]), size = PyBytes_GET_SIZE(args[0]);
    if ((start == -1 || limit == -1) && PyErr_Occurred()) return NULL;
    if (start < 0 || start > size || limit < 0) Py_RETURN_NONE;
    size_t end = 0;
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(args[0]) + start;
    PyObject *message = decoded(data, (size_t)(size - start), (size_t)limit, &end);
    if (message != NULL) return with_size(message, start + (Py_ssize_t)end);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* ---- receive_message(fd, max_bytes, takes_binary) -> (message, bytes on the wire), or what came in ---- */

#define LONG_BYTES 65536 /* the thread is busy with a message of this size */

static PyObject *receive_message(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "receive_message(fd: int, max_bytes: int, takes_binary: bool)");
        return NULL;
    }
    long fd = PyLong_AsLong(args[0]);
    Py_ssize_t limit = PyLong_AsSsize_t(args[1]), received;
    if ((fd == -1 || limit == -1) && PyErr_Occurred()) return NULL;
    size_t max_bytes = limit < 0 ? 0 : (size_t)limit, size, end = 0;
    uint8_t little[STACK_BYTES], *whole = NULL;
    for (;;) {
        PyThreadState *state = PyEval_SaveThread();
        end_work();
        received = recv((int)fd, little, sizeof little, 0);
        size = received < 0 ? 0 : (size_t)received;
        if (received > 0) whole = with_rest((int)fd, little, &size, max_bytes);
        int is_long = whole == NULL ? size == sizeof little : size >= LONG_BYTES;
        if (is_long) restore_busy_thread(state);
        else restore_thread_in_turn(state);
        if (received >= 0) break;
        if (errno != EINTR) return PyErr_SetFromErrno(PyExc_OSError);
        if (PyErr_CheckSignals() < 0) return NULL;
    }
    const uint8_t *data = whole == NULL ? little : whole;
    PyObject *message = size > 0 && (*data == FIN_TEXT || args[2] == Py_True) ? decoded(data, size, max_bytes, &end) : NULL;
    PyObject *answer;
    if (message != NULL && end == size) {
        answer = with_size(message, (Py_ssize_t)size);
    } else {
        Py_XDECREF(message);
        answer = PyErr_Occurred() ? NULL : PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    }
    free(whole);
    return answer;
}

/* ---- linger(fd, timeout_s, first_pause_s, last_pause_s) -> None ---- */

#define DISCARD_LITTLE_BYTES 65536
#define DISCARD_MUCH_BYTES 1048576

static void discard_until(int fd, double deadline, double pause, double last_pause) {
    struct pollfd peer = {.fd = fd, .events = POLLIN | POLLRDHUP};
    char *room = malloc(DISCARD_MUCH_BYTES); /* TCP never writes to it, because MSG_TRUNC discards the data */
    for (double left; room != NULL && fd >= 0 && (left = deadline - monotonic()) > 0;) {
        int ready = poll(&peer, 1, left < 1000 ? (int)(left * 1000) + 1 : 1000000);
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) break;
        size_t size = pause < last_pause ? DISCARD_LITTLE_BYTES : DISCARD_MUCH_BYTES;
        ssize_t received = recv(fd, room, size, MSG_DONTWAIT | MSG_TRUNC);
        if (received == 0 || (received < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) break;
        if (peer.revents & (POLLRDHUP | POLLHUP | POLLERR)) continue;
        if (pause > left) pause = left;
        struct timespec time = {.tv_sec = (time_t)pause, .tv_nsec = (long)((pause - (double)(time_t)pause) * 1e9)};
        nanosleep(&time, NULL);
        pause = 2 * pause < last_pause ? 2 * pause : last_pause;
    }
    free(room);
}

static PyObject *linger(PyObject *module, PyObject *args) {
    (void)module;
    int fd;
    double timeout_s, first_pause_s, last_pause_s;
    if (!PyArg_ParseTuple(args, "iddd:linger", &fd, &timeout_s, &first_pause_s, &last_pause_s)) return NULL;
    PyThreadState *state = PyEval_SaveThread();
    end_work();
    discard_until(fd, monotonic() + timeout_s, first_pause_s, last_pause_s);
    restore_thread_that_leaves(state);
    Py_RETURN_NONE;
}

static PyObject *rest(PyObject *module, PyObject *none) {
    (void)module, (void)none;
    end_work();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL, "See wsthreads.protocol.transport."},
    {"receive_message", (PyCFunction)(void (*)(void))receive_message, METH_FASTCALL, "See wsthreads.protocol.transport."},
    {"linger", linger, METH_VARARGS, "See wsthreads.protocol.transport."},
    {"rest", rest, METH_NOARGS, "See wsthreads.protocol.transport."},
    {"decode_message", (PyCFunction)(void (*)(void))decode_message, METH_FASTCALL, "See wsthreads.protocol.frames."},
    {NULL, NULL, 0, NULL},
};

int add_reading_functions(PyObject *module) {
    static int is_ready;
    if (!is_ready && (prepare_turnstile() || pthread_atfork(NULL, NULL, renew_turnstile))) {
        PyErr_NoMemory();
        return -1;
    }
    if (!is_ready) renew_turnstile();
    is_ready = 1;
    return PyModule_AddFunctions(module, functions);
}
