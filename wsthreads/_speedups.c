/* The same functions as the Python ones in wsthreads.frames, transport and outbox, for where they are called most.
 *
 * Optional: where it could not be built, or with WSTHREADS_PURE_PYTHON=1, those are used. What must hold:
 *
 * - decode_message takes exactly what frames.decode_message takes.
 * - append_all only appends to memory. The caller holds the room's order lock.
 * - encode_text makes what frames.message_frame makes of text.
 * - send_queues lets go of the GIL around the system calls, and of nothing else; around none if there is but one outbox
 *   and little to send, since getting the GIL back takes longer than that. The caller holds the lock of every outbox
 *   that it passes, so no other thread takes from their queues, writes to their sockets or closes them. In this
 *   thread a finalizer could, as the locks let it in: so from when frames are taken from a queue to when an incomplete
 *   write is marked in `_draining`, which the caller unmarks, nothing is allocated that the garbage collector tracks.
 */
#define _GNU_SOURCE /* POLLRDHUP */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

#include "_frames.h"
#include "_inbox.h"
#include "_metrics.h"
#include "_rlock.h"
#include "_turnstile.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

/* ---- the attributes of an outbox ---- */

enum { QUEUE, FD, CLOSE_FRAME, DETACHED, BLOCKED, DRAINING, LOCK, ATTRIBUTES };

static const char *const spelled[ATTRIBUTES] = {"_queue",   "_fd",       "_close_frame", "_detached",
                                                "_blocked", "_draining", "_lock"};
static PyObject *names[ATTRIBUTES], *acquire, *release;

/* The class of the last outbox, and where in its objects __slots__ has put each attribute; 0 for "ask Python". */
static PyTypeObject *known_type; /* ours */
static Py_ssize_t offsets[ATTRIBUTES];
static int known_counts; /* its objects begin with a Tally */

static void know(PyTypeObject *type) {
    Py_INCREF(type);
    Py_XSETREF(known_type, type);
    known_counts = PyType_IsSubtype(type, &TallyType);
    for (int i = 0; i < ATTRIBUTES; i++) {
        PyObject *member = _PyType_Lookup(type, names[i]); /* borrowed */
        offsets[i] = 0;
        if (member != NULL && Py_IS_TYPE(member, &PyMemberDescr_Type)) {
            const PyMemberDef *slot = ((PyMemberDescrObject *)member)->d_member;
            if (slot->type == T_OBJECT_EX && PyType_IsSubtype(type, PyDescr_TYPE(member))) offsets[i] = slot->offset;
        }
    }
}

/* An attribute, borrowed: a constant, or something that the outbox goes on holding. NULL with an exception. */
static PyObject *get(PyObject *outbox, int attribute) {
    if (Py_TYPE(outbox) != known_type) know(Py_TYPE(outbox));
    PyObject *value = offsets[attribute] ? *(PyObject **)((char *)outbox + offsets[attribute]) : NULL;
    if (value == NULL) {
        value = PyObject_GetAttr(outbox, names[attribute]);
        Py_XDECREF(value);
    }
    return value;
}

/* 1 or 0, or -1 with an exception: whether an attribute is the given constant. */
static int is(PyObject *outbox, int attribute, PyObject *constant) {
    PyObject *value = get(outbox, attribute);
    return value == NULL ? -1 : value == constant;
}

/* ---- receive(fd, size) -> bytes, give_way() -> None ---- */

/* What comes in is little as a rule: it is read into the stack, and needs no memory that is then too much. */
#define STACK_BYTES 2048

#define MAX_WAITING 16

static sem_t turnstile;

/* Of those who will be busy for a while, since their clients had sent more than was asked for, or want to be let in, or
 * have left, one at a time may wait for the GIL. So a client that sends little waits for two of them at most, however
 * many clients flood us. Nor do they come in between where a room's members are written to: `defer_to_writers`. */
static sem_t gate;

/* Writes to so many sockets take milliseconds, without the GIL. Whoever takes it meanwhile, on the same core, has them
 * take twice as long, and the members of a room wait. So who is busy waits until one of those who write is done: not for
 * all of them, since there may always be another. Nor longer than this, in nanoseconds. */
#define MANY_WRITES 64
#define MAX_DEFERRED_NS 20000000

static pthread_mutex_t writing; /* guards the next two; a leaf, held for a moment */
static unsigned long writers;   /* threads that write to many sockets now */
static unsigned long written;   /* how often one of them was done */
static pthread_cond_t one_done;

static void renew_turnstile(void) { /* in a child process, too, where nobody is left who would open it */
    sem_init(&turnstile, 0, MAX_WAITING);
    sem_init(&gate, 0, 1);
    pthread_mutex_init(&writing, NULL);
    pthread_cond_init(&one_done, NULL);
    writers = 0;
}

static void begin_writing(void) {
    pthread_mutex_lock(&writing);
    writers++;
    pthread_mutex_unlock(&writing);
}

static void end_writing(void) {
    pthread_mutex_lock(&writing);
    writers--;
    written++;
    pthread_cond_broadcast(&one_done);
    pthread_mutex_unlock(&writing);
}

/* Called without the GIL. */
static void defer_to_writers(void) {
    struct timespec deadline; /* of the clock that all systems have for this: set back, it leaves us the end of a write */
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_nsec += MAX_DEFERRED_NS;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&writing);
    unsigned long before = written;
    while (writers > 0 && written == before && pthread_cond_timedwait(&one_done, &writing, &deadline) == 0) continue;
    pthread_mutex_unlock(&writing);
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

static void pass_gate(void) {
    wait_for(&gate);
    defer_to_writers();
}

static void restore_thread_through_gate(PyThreadState *state) {
    pass_gate();
    restore_thread_in_turn(state);
    sem_post(&gate);
}

static PyObject *give_way(PyObject *module, PyObject *nothing) {
    (void)module, (void)nothing;
    PyThreadState *state = PyEval_SaveThread();
    restore_thread_through_gate(state);
    Py_RETURN_NONE;
}

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
        received = recv((int)fd, to, (size_t)size, 0);
        int is_full = received > 0 && received == size;
        if (is_full) pass_gate();
        restore_thread_in_turn(state);
        if (is_full) sem_post(&gate);
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

/* ---- linger(fd, timeout_s, first_pause_s, last_pause_s) -> None ---- */

#define DISCARD_LITTLE_BYTES 65536
#define DISCARD_MUCH_BYTES 1048576

static double monotonic(void) { /* as time.monotonic() */
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void discard_until(int fd, double deadline, double pause, double last_pause) {
    struct pollfd peer = {.fd = fd, .events = POLLIN | POLLRDHUP};
    char *room = malloc(DISCARD_MUCH_BYTES); /* never written to under TCP, where MSG_TRUNC throws away */
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
    discard_until(fd, monotonic() + timeout_s, first_pause_s, last_pause_s);
    restore_thread_through_gate(state);
    Py_RETURN_NONE;
}

/* ---- decode_message(buffer, start, max_bytes) -> (message, next start) or None ---- */

static PyObject *decode_message(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 3 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "decode_message(buffer: bytes, start: int, max_bytes: int)");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(args[1]), limit = PyLong_AsSsize_t(args[2]);
    if ((start == -1 || limit == -1) && PyErr_Occurred()) return NULL;
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(args[0]);
    Py_ssize_t end = PyBytes_GET_SIZE(args[0]);
    if (start < 0 || start > end) Py_RETURN_NONE;
    const uint8_t *at = data + start;
    Frame frame;
    if (parse_data_frame(at, (size_t)(end - start), &frame) <= 0) Py_RETURN_NONE;
    uint64_t size = frame.payload_bytes;
    Py_ssize_t header = (Py_ssize_t)frame.header_bytes;
    if (limit < 0 || size > (uint64_t)limit || size > (uint64_t)(end - start - header)) Py_RETURN_NONE;
    int is_text = at[0] == FIN_TEXT;
    /* Text is ASCII mostly, and then its own UTF-8: it is unmasked to where it stays. */
    PyObject *message = is_text ? PyUnicode_New((Py_ssize_t)size, 127) : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (message == NULL) return NULL;
    uint8_t *payload = is_text ? PyUnicode_1BYTE_DATA(message) : (uint8_t *)PyBytes_AS_STRING(message);
    int is_ascii = unmask(payload, at + header, (size_t)size, at + header - 4);
    if (is_text && !is_ascii) {
        PyObject *text = PyUnicode_DecodeUTF8((const char *)payload, (Py_ssize_t)size, NULL);
        Py_DECREF(message);
        if (text == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) return NULL;
            PyErr_Clear();
            Py_RETURN_NONE;
        }
        message = text;
    }
    return Py_BuildValue("(Nn)", message, start + header + (Py_ssize_t)size);
}

/* ---- encode_text(text) -> frame, or None for a str that has no UTF-8 ---- */

static PyObject *encode_text(PyObject *module, PyObject *text) {
    (void)module;
    if (!PyUnicode_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "encode_text(text: str)");
        return NULL;
    }
    PyObject *encoded = NULL; /* ours; NULL where the str is its own UTF-8 */
    const char *payload;
    size_t size;
    if (PyUnicode_IS_READY(text) && PyUnicode_IS_COMPACT_ASCII(text)) {
        payload = (const char *)PyUnicode_1BYTE_DATA(text);
        size = (size_t)PyUnicode_GET_LENGTH(text);
    } else {
        encoded = PyUnicode_AsUTF8String(text);
        if (encoded == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return NULL;
            PyErr_Clear();
            Py_RETURN_NONE;
        }
        payload = PyBytes_AS_STRING(encoded);
        size = (size_t)PyBytes_GET_SIZE(encoded);
    }
    uint8_t header[10] = {0x81};
    size_t header_bytes;
    if (size <= 125) {
        header[1] = (uint8_t)size;
        header_bytes = 2;
    } else if (size <= 0xFFFF) {
        header[1] = 126;
        header_bytes = 4;
        for (int i = 0; i < 2; i++) header[2 + i] = (uint8_t)(size >> (8 - 8 * i));
    } else {
        header[1] = 127;
        header_bytes = 10;
        for (int i = 0; i < 8; i++) header[2 + i] = (uint8_t)((uint64_t)size >> (56 - 8 * i));
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(header_bytes + size));
    if (frame != NULL) {
        memcpy(PyBytes_AS_STRING(frame), header, header_bytes);
        memcpy(PyBytes_AS_STRING(frame) + header_bytes, payload, size);
    }
    Py_XDECREF(encoded);
    return frame;
}

/* ---- append_all(outboxes: tuple, frame, skip) -> how many took it ---- */

static PyObject *append_all(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 3 || !PyTuple_Check(args[0]) || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "append_all(outboxes: tuple, frame: bytes, skip)");
        return NULL;
    }
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args[0]); i++) {
        PyObject *outbox = PyTuple_GET_ITEM(args[0], i);
        if (outbox == args[2]) continue;
        int open = is(outbox, CLOSE_FRAME, Py_None);
        if (open > 0) open = is(outbox, DETACHED, Py_False);
        if (open < 0) return NULL;
        if (!open) continue;
        PyObject *queue = get(outbox, QUEUE);
        if (queue == NULL || PyList_Append(queue, args[1]) < 0) return NULL;
        count++;
    }
    return PyLong_FromSsize_t(count);
}

/* ---- lock_queued(outboxes, start, count) -> (locked: list, blocked: list), unlock(locked) -> list ---- */

/* 1 if something is queued, 0 if not, -1 with an exception. */
static int has_queued(PyObject *outbox) {
    PyObject *queue = get(outbox, QUEUE);
    if (queue == NULL) return -1;
    return PyList_Check(queue) && PyList_GET_SIZE(queue) > 0;
}

/* 1 if the lock of an outbox has been taken, 0 if another thread has it, -1 with an exception. */
static int try_lock(PyObject *lock) {
    if (Py_IS_TYPE(lock, &RLockType)) return try_rlock(lock);
    PyObject *taken = PyObject_CallMethodOneArg(lock, acquire, Py_False);
    Py_XDECREF(taken);
    return taken == NULL ? -1 : taken == Py_True;
}

static int release_lock(PyObject *lock) {
    if (Py_IS_TYPE(lock, &RLockType)) return release_rlock(lock);
    PyObject *none = PyObject_CallMethodNoArgs(lock, release);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

/* Let go of the locks of all, whatever goes wrong; -1 with an exception if something has. */
static int release_all(PyObject *outboxes) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(outboxes); i++) {
        PyObject *lock = get(PyList_GET_ITEM(outboxes, i), LOCK);
        if (lock != NULL && release_lock(lock) == 0) continue;
        if (type == NULL) PyErr_Fetch(&type, &value, &traceback);
        PyErr_Clear();
    }
    if (type == NULL) return 0;
    PyErr_Restore(type, value, traceback);
    return -1;
}

static PyObject *lock_queued(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    Py_ssize_t start = nargs == 3 ? PyLong_AsSsize_t(args[1]) : -1, count = nargs == 3 ? PyLong_AsSsize_t(args[2]) : -1;
    if (start < 0 || count < 0 || !(PyTuple_Check(args[0]) || PyList_Check(args[0]))) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "lock_queued(outboxes, start: int, count: int)");
        return NULL;
    }
    PyObject *locked = PyList_New(0), *blocked = PyList_New(0), *result = NULL;
    if (locked == NULL || blocked == NULL) goto done;
    for (Py_ssize_t i = start; i < PySequence_Fast_GET_SIZE(args[0]) && i - start < count; i++) {
        PyObject *outbox = PySequence_Fast_GET_ITEM(args[0], i), *lock;
        int wanted = has_queued(outbox);
        if (wanted > 0) wanted = is(outbox, DRAINING, Py_False);
        if (wanted < 0) goto failed;
        if (!wanted) continue;
        int is_blocked = is(outbox, BLOCKED, Py_True);
        if (is_blocked < 0 || (is_blocked && PyList_Append(blocked, outbox) < 0)) goto failed;
        if (is_blocked) continue;
        if ((lock = get(outbox, LOCK)) == NULL || PyList_Append(locked, outbox) < 0) goto failed;
        int taken = try_lock(lock);
        if (taken < 1 && PyList_SetSlice(locked, PyList_GET_SIZE(locked) - 1, PY_SSIZE_T_MAX, NULL) < 0) goto failed;
        if (taken < 0) goto failed;
    }
    result = PyTuple_Pack(2, locked, blocked);
failed:
    if (result == NULL) release_all(locked);
done:
    Py_XDECREF(locked);
    Py_XDECREF(blocked);
    return result;
}

static PyObject *unlock(PyObject *module, PyObject *outboxes) {
    (void)module;
    if (!PyList_Check(outboxes)) {
        PyErr_SetString(PyExc_TypeError, "unlock(outboxes: list)");
        return NULL;
    }
    if (release_all(outboxes) < 0) return NULL;
    PyObject *left = PyList_New(0);
    for (Py_ssize_t i = 0; left != NULL && i < PyList_GET_SIZE(outboxes); i++) {
        PyObject *outbox = PyList_GET_ITEM(outboxes, i);
        int queued = has_queued(outbox);
        if (queued < 0 || (queued && PyList_Append(left, outbox) < 0)) Py_CLEAR(left);
    }
    return left;
}

/* ---- send_queues(outboxes: list) -> [(outbox, data, sent or -errno), ...] of those not sent completely ---- */

/* Up to so many bytes for one socket are sent with the GIL held: some 10 µs, with which a message of 16 KiB is within. */
#define MAX_HELD_BYTES 32768

typedef struct {
    PyObject *data; /* bytes, ours; NULL where there is nothing to send here */
    Py_ssize_t messages; /* in it */
    Py_ssize_t sent;
    int fd;
    int error;
} Write;

/* The first `count` frames of a queue, as one bytes object; NULL with an exception on failure. */
static PyObject *joined(PyObject *queue, Py_ssize_t count) {
    Py_ssize_t size = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *frame = PyList_GET_ITEM(queue, i);
        if (!PyBytes_Check(frame)) {
            PyErr_SetString(PyExc_TypeError, "a queue holds bytes");
            return NULL;
        }
        size += PyBytes_GET_SIZE(frame);
    }
    if (count == 1) {
        PyObject *frame = PyList_GET_ITEM(queue, 0);
        Py_INCREF(frame);
        return frame;
    }
    PyObject *whole = PyBytes_FromStringAndSize(NULL, size);
    if (whole == NULL) return NULL;
    char *to = PyBytes_AS_STRING(whole);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *frame = PyList_GET_ITEM(queue, i);
        memcpy(to, PyBytes_AS_STRING(frame), (size_t)PyBytes_GET_SIZE(frame));
        to += PyBytes_GET_SIZE(frame);
    }
    return whole;
}

/* Members of a room mostly have the same frames in their queues: remember the last queue's, and what they made. */
#define MAX_SHARED 64

typedef struct {
    PyObject *frames[MAX_SHARED]; /* ours, so that no other object can get their addresses */
    Py_ssize_t count;
    Py_ssize_t messages;
    PyObject *data; /* ours; NULL where there is none */
} Shared;

static void forget(Shared *shared) {
    for (Py_ssize_t i = 0; i < shared->count; i++) Py_DECREF(shared->frames[i]);
    shared->count = 0;
    Py_CLEAR(shared->data);
}

/* How many of the first `count` frames of a queue are messages: pings, pongs and the HTTP answer are none. */
static Py_ssize_t count_messages(PyObject *queue, Py_ssize_t count) {
    Py_ssize_t messages = 0;
    for (Py_ssize_t i = 0; i < count; i++) messages += !(*PyBytes_AS_STRING(PyList_GET_ITEM(queue, i)) & CONTROL);
    return messages;
}

/* Take everything from a queue as one bytes object; NULL with an exception on failure, the queue is then as it was. */
static PyObject *take(PyObject *queue, Shared *shared, Py_ssize_t *messages) {
    Py_ssize_t count = PyList_GET_SIZE(queue);
    int same = shared->data != NULL && count == shared->count;
    for (Py_ssize_t i = 0; same && i < count; i++) same = PyList_GET_ITEM(queue, i) == shared->frames[i];
    PyObject *data;
    if (same) {
        data = shared->data;
        *messages = shared->messages;
        Py_INCREF(data);
    } else {
        data = joined(queue, count);
        if (data == NULL) return NULL;
        *messages = count_messages(queue, count);
        forget(shared);
        if (count <= MAX_SHARED) {
            shared->messages = *messages;
            for (; shared->count < count; shared->count++) {
                shared->frames[shared->count] = PyList_GET_ITEM(queue, shared->count);
                Py_INCREF(shared->frames[shared->count]);
            }
            shared->data = data;
            Py_INCREF(data);
        }
    }
    if (PyList_SetSlice(queue, 0, count, NULL) < 0) Py_CLEAR(data);
    return data;
}

static PyObject *send_queues(PyObject *module, PyObject *outboxes) {
    (void)module;
    if (!PyList_Check(outboxes)) {
        PyErr_SetString(PyExc_TypeError, "send_queues(outboxes: list)");
        return NULL;
    }
    Py_ssize_t total = PyList_GET_SIZE(outboxes), done = 0, incomplete = 0;
    Write *writes = PyMem_Calloc(total ? total : 1, sizeof *writes);
    if (writes == NULL) return PyErr_NoMemory();
    Shared shared = {.count = 0, .data = NULL};

    for (done = 0; done < total; done++) {
        Write *write = &writes[done];
        PyObject *outbox = PyList_GET_ITEM(outboxes, done);
        PyObject *fd = get(outbox, FD);
        if (fd == NULL) break;
        write->fd = (int)PyLong_AsLong(fd);
        if (write->fd == -1 && PyErr_Occurred()) break;
        int ready = is(outbox, CLOSE_FRAME, Py_None);
        if (ready > 0) ready = is(outbox, BLOCKED, Py_False);
        if (ready < 0) break;
        if (!ready) write->fd = -1;
        if (write->fd < 0) continue; /* TLS, closing, over or full: the caller's */
        PyObject *queue = get(outbox, QUEUE);
        if (queue == NULL) break;
        int empty = !PyList_Check(queue) || PyList_GET_SIZE(queue) == 0;
        if (!empty) write->data = take(queue, &shared, &write->messages);
        if (!empty && write->data == NULL) break;
    }
    /* On a failure above, what was taken is still sent, and the rest is still queued: the next call meets it again. */
    int failed = done < total;
    if (failed && done > 0) PyErr_Clear();
    PyObject *type, *value, *traceback; /* of the failure at the first outbox, kept for afterwards */
    PyErr_Fetch(&type, &value, &traceback);

    int is_small = total == 1 && done == 1 && writes->data != NULL && PyBytes_GET_SIZE(writes->data) <= MAX_HELD_BYTES;
    int are_many = done >= MANY_WRITES;
    if (are_many) begin_writing();
    PyThreadState *state = is_small ? NULL : PyEval_SaveThread();
    for (Py_ssize_t i = 0; i < done; i++) {
        Write *write = &writes[i];
        if (write->data == NULL) continue;
        do {
            write->sent = send(write->fd, PyBytes_AS_STRING(write->data), (size_t)PyBytes_GET_SIZE(write->data),
                               MSG_DONTWAIT | MSG_NOSIGNAL);
        } while (write->sent < 0 && errno == EINTR);
        if (write->sent < 0) {
            write->error = errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : errno;
            write->sent = write->error ? -write->error : 0;
        }
    }
    if (state != NULL) PyEval_RestoreThread(state);
    if (are_many) end_writing(); /* with the GIL: who has waited gets it after us */

    for (Py_ssize_t i = 0; i < done; i++) {
        Write *write = &writes[i];
        PyObject *outbox = PyList_GET_ITEM(outboxes, i);
        int complete = write->data != NULL && write->sent == PyBytes_GET_SIZE(write->data);
        if (write->data != NULL && write->sent >= 0 && known_counts && Py_TYPE(outbox) == known_type) {
            ((Tally *)outbox)->messages_out += (uint64_t)write->messages;
            if (complete) ((Tally *)outbox)->bytes_out += (uint64_t)write->sent; /* else the caller counts them */
        }
        if (complete) {
            Py_CLEAR(write->data);
            continue;
        }
        incomplete++;
        if (write->data == NULL) continue;
        if (PyObject_SetAttr(outbox, names[BLOCKED], Py_True) < 0 ||
            PyObject_SetAttr(outbox, names[DRAINING], Py_True) < 0) {
            PyErr_Clear();
        }
    }
    forget(&shared);
    PyObject *result = PyList_New(0);
    for (Py_ssize_t i = 0; incomplete && i < done; i++) {
        Write *write = &writes[i];
        if (write->data == NULL && write->fd >= 0) continue;
        PyObject *row = NULL;
        if (result != NULL) {
            PyObject *data = write->data ? write->data : Py_None;
            row = Py_BuildValue("(OOn)", PyList_GET_ITEM(outboxes, i), data, write->sent);
            if (row == NULL || PyList_Append(result, row) < 0) Py_CLEAR(result);
        }
        Py_XDECREF(row);
    }
    for (Py_ssize_t i = 0; result == NULL && i < done; i++) {
        /* Nobody will be told of what is left of these writes, so their streams end here. */
        if (writes[i].data != NULL) shutdown(writes[i].fd, SHUT_RDWR);
    }
    for (Py_ssize_t i = 0; i < total; i++) Py_XDECREF(writes[i].data);
    PyMem_Free(writes);
    if (type != NULL) {
        Py_XDECREF(result);
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    return result;
}

static PyMethodDef methods[] = {
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL, "See wsthreads.transport."},
    {"give_way", give_way, METH_NOARGS, "See wsthreads.transport."},
    {"linger", linger, METH_VARARGS, "See wsthreads.transport."},
    {"decode_message", (PyCFunction)(void (*)(void))decode_message, METH_FASTCALL, "See wsthreads.frames."},
    {"encode_text", encode_text, METH_O, "See wsthreads.frames."},
    {"append_all", (PyCFunction)(void (*)(void))append_all, METH_FASTCALL, "See wsthreads.outbox."},
    {"lock_queued", (PyCFunction)(void (*)(void))lock_queued, METH_FASTCALL, "See wsthreads.outbox."},
    {"unlock", unlock, METH_O, "See wsthreads.outbox."},
    {"send_queues", send_queues, METH_O, "See wsthreads.outbox."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_speedups", "C versions of wsthreads' busiest functions.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__speedups(void) {
    for (int i = 0; i < ATTRIBUTES; i++) {
        names[i] = PyUnicode_InternFromString(spelled[i]);
        if (names[i] == NULL) return NULL;
    }
    acquire = PyUnicode_InternFromString("acquire");
    release = PyUnicode_InternFromString("release");
    if (acquire == NULL || release == NULL) return NULL;
    renew_turnstile();
    if (pthread_atfork(NULL, NULL, renew_turnstile)) return PyErr_NoMemory();
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && (add_inbox_types(made) < 0 || add_metrics_types(made) < 0 || add_rlock_type(made) < 0)) {
        Py_CLEAR(made);
    }
    return made;
}
