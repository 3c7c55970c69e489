/* The module `_speedups`: C versions of the functions and types that are used for each message or each delivery.
 *
 * The module is optional: without it, or with WSTHREADS_PURE_PYTHON=1, the Python versions with the same names are
 * used. This file has the module itself, and two functions that make frames: `encode_text`, like frames.message_frame,
 * and `escaped_frame`, like the one in envelope. The other functions and types, by file:
 *
 * - _outboxes.c: append_all, lock_queued, unlock
 * - _sending.c, _writes.c: send_queues, post
 * - _reading.c: functions that read from sockets
 * - _inbox.c: Inbox
 * - _intake.c: Intake
 * - _fast_path.c: FastPath
 * - _rlock.c: RLock
 * - _metrics.c: Tally, Histogram
 * - _loop.c: MessageLoop
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "_compat.h"
#include "_fast_path.h"
#include "_inbox.h"
#include "_loop.h"
#include "_metrics.h"
#include "_outboxes.h"
#include "_reading.h"
#include "_rlock.h"
#include "_sending.h"

/* Returns a new frame with space for a payload. The caller must write the payload to `payload`. NULL with an exception
 * on failure. */
static PyObject *new_frame(uint8_t first, size_t size, char **payload) {
    uint8_t header[10] = {first};
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
    if (frame == NULL) return NULL;
    memcpy(PyBytes_AS_STRING(frame), header, header_bytes);
    *payload = PyBytes_AS_STRING(frame) + header_bytes;
    return frame;
}

/* ---- encode_text(text) -> frame, or None for a str with lone surrogates, which UTF-8 cannot encode ---- */

static PyObject *encode_text(PyObject *module, PyObject *text) {
    (void)module;
    if (!PyUnicode_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "encode_text(text: str)");
        return NULL;
    }
    PyObject *encoded = NULL; /* our own copy of the text in UTF-8, or NULL if the str contains it already */
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
    char *to;
    PyObject *frame = new_frame(0x81, size, &to);
    if (frame != NULL) memcpy(to, payload, size);
    Py_XDECREF(encoded);
    return frame;
}

/* ---- escaped_frame(frame) -> the frame, or a longer one if its message begins with DLE ---- */

enum { DLE = 0x10 };

static PyObject *escaped_frame(PyObject *module, PyObject *frame) {
    (void)module;
    if (!PyBytes_Check(frame) || PyBytes_GET_SIZE(frame) < 2) {
        PyErr_SetString(PyExc_TypeError, "escaped_frame takes a frame, as bytes, with 2 bytes or more");
        return NULL;
    }
    const uint8_t *bytes = (const uint8_t *)PyBytes_AS_STRING(frame);
    Py_ssize_t at = bytes[1] < 126 ? 2 : bytes[1] == 126 ? 4 : 10, size = PyBytes_GET_SIZE(frame) - at;
    if (size < 1 || bytes[at] != DLE) return Py_NewRef(frame);
    char *to;
    PyObject *longer = new_frame(bytes[0], (size_t)size + 1, &to);
    if (longer == NULL) return NULL;
    *to = DLE;
    memcpy(to + 1, bytes + at, (size_t)size);
    if (PyBytes_CheckExact(frame)) return longer;
    return PyObject_CallMethod(frame, "like", "N", longer); /* the frame is a frames.MarkedFrame */
}

/* ---- the module ---- */

static PyMethodDef methods[] = {
    {"encode_text", encode_text, METH_O, "See wsthreads.protocol.frames."},
    {"escaped_frame", escaped_frame, METH_O, "See wsthreads.protocol.envelope."},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module) {
    if (add_outbox_functions(module) < 0 || add_sending_functions(module) < 0 || add_reading_functions(module) < 0 ||
        add_inbox_type(module) < 0 || add_intake_type(module) < 0 || add_metrics_types(module) < 0 ||
        add_outbox_type(module) < 0 || add_rlock_type(module) < 0 ||
        add_fast_path_type(module) < 0 || add_loop_type(module) < 0) {
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill},
    NEEDS_NO_GIL
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_speedups", "C versions of wsthreads' busiest functions.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__speedups(void) {
    return PyModuleDef_Init(&module);
}
