/* Calls from JavaScript to Python without JSON: one function for the runtime of scripts, `python(name, ...arguments)`.
 *
 * The module is optional: if it is not built, or with WSTHREADS_PURE_PYTHON=1, dukpy's call_python does the same at ten
 * times the cost. Rules:
 *
 * - Everything here runs in the thread of the script's interpreter (the isolate), with the GIL held, inside a call of
 *   the engine.
 * - Text, numbers, booleans, null and undefined are passed directly. Other values of JavaScript are passed as JSON.
 *   Python answers with one of these (None is undefined), with a tuple of these, which becomes an array, or with bytes,
 *   which are JSON.
 * - A Python exception never enters JavaScript: `refusal(name, error)` makes an answer from it.
 * - If JavaScript throws here, because it has no memory, its exception is passed to the caller.
 *
 * The module needs no header of the engine: the engine's functions are passed as addresses, and quickjs.py has checked
 * the layout of its data.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "_alarm.h"
#include "_compat.h"

/* The engine's type JSValue, on platforms with 64-bit pointers. */
typedef struct {
    union {
        int32_t int32;
        double float64;
        uint64_t bits;
    } u;
    int64_t tag;
} Value;

enum { TAG_INT = 0, TAG_BOOL = 1, TAG_NULL = 2, TAG_UNDEFINED = 3, TAG_EXCEPTION = 6, TAG_FLOAT64 = 8, TAG_STRING = -7 };

#define PROP_C_W_E 7 /* the property is configurable, writable and enumerable */

static const Value UNDEFINED = {.u.bits = 0, .tag = TAG_UNDEFINED};
static const Value EXCEPTION = {.u.bits = 0, .tag = TAG_EXCEPTION};

typedef struct Runtime Runtime; /* the engine's JSRuntime */
typedef struct Context Context; /* the engine's JSContext */
typedef Value Callback(Context *, Value receiver, int count, Value *arguments, int magic, Value *data);

static struct {
    Value (*JS_NewCFunctionData)(Context *, Callback *, int length, int magic, int data_count, Value *data);
    Value (*JS_NewStringLen)(Context *, const char *, size_t);
    const char *(*JS_ToCStringLen2)(Context *, size_t *, Value, bool);
    void (*JS_FreeCString)(Context *, const char *);
    Value (*JS_NewArray)(Context *);
    int (*JS_DefinePropertyValueUint32)(Context *, Value array, uint32_t index, Value, int flags);
    Value (*JS_ParseJSON)(Context *, const char *, size_t, const char *file_name);
    Value (*JS_JSONStringify)(Context *, Value, Value replacer, Value space);
    void (*JS_FreeValue)(Context *, Value);
    bool (*JS_IsJobPending)(Runtime *);
} js;

static const struct {
    const char *name;
    void *slot;
} imports[] = {
#define IMPORT(name) {#name, &js.name}
    IMPORT(JS_NewCFunctionData), IMPORT(JS_NewStringLen), IMPORT(JS_ToCStringLen2), IMPORT(JS_FreeCString),
    IMPORT(JS_NewArray), IMPORT(JS_DefinePropertyValueUint32), IMPORT(JS_ParseJSON), IMPORT(JS_JSONStringify),
    IMPORT(JS_FreeValue), IMPORT(JS_IsJobPending),
};

typedef struct {
    PyObject_HEAD
    PyObject *functions; /* dict: name -> callable */
    PyObject *refusal;   /* (name, exception) -> bytes */
    PyObject *parse;     /* JSON text -> object */
    Runtime *runtime;    /* NULL until make() is called */
} Bridge;

/* ---- values ---- */

/* Returns the text of a value, as a new reference. On failure, returns NULL: with a Python exception, or without one if
 * JavaScript has thrown. */
static PyObject *text_of(Context *context, Value value) {
    size_t size;
    const char *text = js.JS_ToCStringLen2(context, &size, value, false);
    if (text == NULL) return NULL;
    PyObject *result = PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, "surrogatepass");
    js.JS_FreeCString(context, text);
    return result;
}

/* As in JSON, 1000.0 becomes 1000, and numbers that are not finite become null. */
static PyObject *number_of(double number) {
    if (!isfinite(number)) Py_RETURN_NONE;
    return number == floor(number) && fabs(number) < 1e21 ? PyLong_FromDouble(number) : PyFloat_FromDouble(number);
}

/* Converts a value to a Python object, a new reference. On failure, returns NULL like `text_of`. */
static PyObject *to_python(Bridge *self, Context *context, Value value) {
    switch ((int32_t)value.tag) {
    case TAG_INT: return PyLong_FromLong(value.u.int32);
    case TAG_BOOL: return PyBool_FromLong(value.u.int32);
    case TAG_NULL:
    case TAG_UNDEFINED: Py_RETURN_NONE;
    case TAG_FLOAT64: return number_of(value.u.float64);
    case TAG_STRING: return text_of(context, value);
    }
    Value json = js.JS_JSONStringify(context, value, UNDEFINED, UNDEFINED);
    if ((int32_t)json.tag == TAG_EXCEPTION) return NULL;
    if ((int32_t)json.tag == TAG_UNDEFINED) Py_RETURN_NONE; /* a function, a symbol */
    PyObject *text = text_of(context, json), *result = NULL;
    js.JS_FreeValue(context, json);
    if (text != NULL) result = PyObject_CallOneArg(self->parse, text);
    Py_XDECREF(text);
    return result;
}

/* Converts a Python object to a value. On failure, returns a JavaScript exception, or sets a Python exception. */
static Value to_javascript(Context *context, PyObject *object) {
    if (object == Py_None) return UNDEFINED;
    if (PyBool_Check(object)) return (Value){.u.int32 = object == Py_True, .tag = TAG_BOOL};
    if (PyUnicode_Check(object)) {
        Py_ssize_t size;
        const char *text = PyUnicode_AsUTF8AndSize(object, &size);
        if (text != NULL) return js.JS_NewStringLen(context, text, (size_t)size);
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return EXCEPTION;
        PyErr_Clear(); /* the text has a lone surrogate, which is possible in JavaScript */
        PyObject *encoded = PyUnicode_AsEncodedString(object, "utf-8", "surrogatepass");
        if (encoded == NULL) return EXCEPTION;
        Value value = js.JS_NewStringLen(context, PyBytes_AS_STRING(encoded), (size_t)PyBytes_GET_SIZE(encoded));
        Py_DECREF(encoded);
        return value;
    }
    if (PyBytes_Check(object))
        return js.JS_ParseJSON(context, PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object), "<wsthreads>");
    if (PyTuple_Check(object)) {
        Value array = js.JS_NewArray(context);
        for (Py_ssize_t i = 0; (int32_t)array.tag != TAG_EXCEPTION && i < PyTuple_GET_SIZE(object); i++) {
            Value item = to_javascript(context, PyTuple_GET_ITEM(object, i));
            if ((int32_t)item.tag == TAG_EXCEPTION ||
                js.JS_DefinePropertyValueUint32(context, array, (uint32_t)i, item, PROP_C_W_E) < 0) {
                js.JS_FreeValue(context, array);
                return EXCEPTION;
            }
        }
        return array;
    }
    double number = PyFloat_AsDouble(object);
    if (number == -1.0 && PyErr_Occurred()) return EXCEPTION;
    if (number == (int32_t)number) return (Value){.u.int32 = (int32_t)number, .tag = TAG_INT};
    return (Value){.u.float64 = number, .tag = TAG_FLOAT64};
}

/* ---- python(name, ...arguments) ---- */

#define MAX_ARGUMENTS 8

/* Returns the answer for the Python exception that is set. NULL if this fails. */
static PyObject *refused(Bridge *self, PyObject *name) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL) PyException_SetTraceback(error, traceback);
    PyObject *answer = PyObject_CallFunctionObjArgs(self->refusal, name, error, NULL);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return answer;
}

/* Returns the function with a name, as a new reference. NULL without an exception if there is no such function, NULL
 * with an exception on failure. */
static PyObject *function_of(Bridge *self, PyObject *name) {
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *function;
    PyDict_GetItemRef(self->functions, name, &function);
    return function;
#else
    return Py_XNewRef(PyDict_GetItemWithError(self->functions, name));
#endif
}

static Value call(Context *context, Value receiver, int count, Value *arguments, int magic, Value *data) {
    (void)receiver, (void)magic;
    Bridge *self = (Bridge *)(uintptr_t)((uint64_t)(uint32_t)data[0].u.int32 << 32 | (uint32_t)data[1].u.int32);
    PyObject *objects[MAX_ARGUMENTS], *answer = NULL;
    Value value = EXCEPTION;
    int done = 0;
    if (count < 1 || count > MAX_ARGUMENTS) return UNDEFINED; /* cannot happen, because only our runtime calls this */
    Py_INCREF(self);
    for (; done < count; done++) {
        objects[done] = to_python(self, context, arguments[done]);
        if (objects[done] == NULL) break;
    }
    if (done == count) {
        PyObject *function = function_of(self, objects[0]);
        if (function != NULL) {
            answer = PyObject_Vectorcall(function, objects + 1, (size_t)(count - 1), NULL);
            Py_DECREF(function);
        } else if (!PyErr_Occurred()) {
            PyErr_SetObject(PyExc_LookupError, objects[0]);
        }
    }
    if (answer != NULL) value = to_javascript(context, answer);
    if (PyErr_Occurred()) {
        Py_XSETREF(answer, refused(self, done > 0 ? objects[0] : Py_None));
        value = answer == NULL ? EXCEPTION : to_javascript(context, answer);
    }
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable((PyObject *)self);
        value = UNDEFINED;
    }
    Py_XDECREF(answer);
    for (int i = 0; i < done; i++) Py_DECREF(objects[i]);
    Py_DECREF(self);
    return value;
}

/* ---- Bridge(functions, refusal, parse), .make(runtime, context, addresses, place), .has_jobs() ---- */

static int bridge_init(Bridge *self, PyObject *args, PyObject *keywords) {
    PyObject *functions, *refusal, *parse;
    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Bridge(functions, refusal, parse)");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "O!OO", &PyDict_Type, &functions, &refusal, &parse)) return -1;
    Py_INCREF(functions), Py_INCREF(refusal), Py_INCREF(parse);
    Py_XSETREF(self->functions, functions);
    Py_XSETREF(self->refusal, refusal);
    Py_XSETREF(self->parse, parse);
    return 0;
}

static int bridge_traverse(Bridge *self, visitproc visit, void *arg) {
    Py_VISIT(self->functions);
    Py_VISIT(self->refusal);
    Py_VISIT(self->parse);
    return 0;
}

static int bridge_clear(Bridge *self) {
    Py_CLEAR(self->functions);
    Py_CLEAR(self->refusal);
    Py_CLEAR(self->parse);
    return 0;
}

static void bridge_dealloc(Bridge *self) {
    PyObject_GC_UnTrack(self);
    bridge_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* make(address of the runtime, of the context, {name: address}, address of a JSValue): stores our function at the last
 * address. */
static PyObject *bridge_make(Bridge *self, PyObject *args) {
    unsigned long long runtime, context, place;
    PyObject *addresses;
    if (!PyArg_ParseTuple(args, "KKO!K", &runtime, &context, &PyDict_Type, &addresses, &place)) return NULL;
    void *pointers[sizeof imports / sizeof *imports];
    for (size_t i = 0; i < sizeof imports / sizeof *imports; i++) {
        PyObject *address = PyMapping_GetItemString(addresses, imports[i].name);
        pointers[i] = address == NULL ? NULL : PyLong_AsVoidPtr(address);
        Py_XDECREF(address);
        if (pointers[i] == NULL) {
            if (!PyErr_Occurred()) PyErr_Format(PyExc_LookupError, "no address of %s", imports[i].name);
            return NULL;
        }
    }
    /* All scripts have the same engine. So the functions do not change for a thread that is already in the engine. */
    static pthread_mutex_t importing = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&importing);
    for (size_t i = 0; i < sizeof imports / sizeof *imports; i++) {
        void *slot = imports[i].slot;
        if (memcmp(slot, &pointers[i], sizeof pointers[i])) memcpy(slot, &pointers[i], sizeof pointers[i]);
    }
    pthread_mutex_unlock(&importing);
    self->runtime = (Runtime *)(uintptr_t)runtime;
    uint64_t bits = (uint64_t)(uintptr_t)self;
    Value halves[2] = {{.u.bits = bits >> 32, .tag = TAG_INT}, {.u.bits = (uint32_t)bits, .tag = TAG_INT}};
    Value function = js.JS_NewCFunctionData((Context *)(uintptr_t)context, call, 1, 0, 2, halves);
    memcpy((void *)(uintptr_t)place, &function, sizeof function);
    Py_RETURN_NONE;
}

static PyObject *bridge_has_jobs(Bridge *self, PyObject *none) {
    (void)none;
    return PyBool_FromLong(self->runtime != NULL && js.JS_IsJobPending(self->runtime));
}

static PyMethodDef bridge_methods[] = {
    {"make", (PyCFunction)bridge_make, METH_VARARGS, "make(runtime, context, addresses, place)"},
    {"has_jobs", (PyCFunction)bridge_has_jobs, METH_NOARGS, "Whether a promise job is pending."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject BridgeType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsthreads._native._bridge.Bridge",
    .tp_basicsize = sizeof(Bridge),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "Bridge(functions, refusal, parse). It must outlive the interpreter.",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)bridge_init,
    .tp_dealloc = (destructor)bridge_dealloc,
    .tp_traverse = (traverseproc)bridge_traverse,
    .tp_clear = (inquiry)bridge_clear,
    .tp_methods = bridge_methods,
};

static int fill(PyObject *module) {
    if (PyType_Ready(&BridgeType) < 0 || add_alarm_type(module) < 0) return -1;
    return PyModule_AddObjectRef(module, "Bridge", (PyObject *)&BridgeType);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill},
    NEEDS_NO_GIL
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_bridge", "JavaScript calls Python.", 0, NULL, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__bridge(void) {
    return PyModuleDef_Init(&module);
}
