/* limit_threads: the least that a WebSocket server with a thread for each connection can do on this kernel: a blocking
 * recv() and one send() for each message, without Python. Echo only, no checks, frames of less than 64 KiB.
 *
 *   limit_threads PORT
 *
 * In the environment:
 *   ONE_LOCK=1    one mutex around each message, as a GIL
 *   ONE_CORE=N    all threads on core N
 *   OWN_LINES=N   each thread reads and writes N cache lines of its own for each message. It learns the address of each
 *                 line from the one before
 *
 * Build: cc -O2 -o limit_threads limit_threads.c -lcrypto -pthread */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>

#include "limits.h"

enum { BUFFER_BYTES = 70000, STACK_BYTES = 262144, LINE_BYTES = 64, LINES_APART = 7 };

typedef struct Line {
    struct Line *next;
    char rest[LINE_BYTES - sizeof(struct Line *)];
} Line;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int one_lock, own_lines;

static int option(const char *name) { return getenv(name) ? atoi(getenv(name)) : 0; }

/* A ring of lines in an order that the processor does not guess, with unused lines between them. */
static Line *ring_of(int lines, unsigned seed) {
    if (!lines) return NULL;
    Line *all = aligned_alloc(LINE_BYTES, (size_t)lines * LINES_APART * sizeof *all);
    int order[lines];
    for (int i = 0; i < lines; i++) {
        int j = rand_r(&seed) % (i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < lines; i++) all[order[i] * LINES_APART].next = &all[order[(i + 1) % lines] * LINES_APART];
    for (int i = 0; i < lines; i++) all[i * LINES_APART].rest[0] = 0;
    return all;
}

static ssize_t echo(int fd, uint8_t *frame, size_t bytes, Line *line) {
    uint8_t *out;
    size_t out_bytes;
    if (one_lock) pthread_mutex_lock(&lock);
    ssize_t done = answer(frame, bytes, &out, &out_bytes);
    for (int i = 0; done > 0 && i < own_lines; i++, line = line->next) line->rest[0]++;
    if (done > 0 && send(fd, out, out_bytes, MSG_NOSIGNAL) < 0) done = -1;
    if (one_lock) pthread_mutex_unlock(&lock);
    return done;
}

static void *serve(void *argument) {
    int fd = (int)(intptr_t)argument, upgraded = 0, one = 1;
    uint8_t buffer[BUFFER_BYTES];
    size_t bytes = 0;
    ssize_t n = 0;
    Line *lines = ring_of(own_lines, fd);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (n >= 0) {
        ssize_t got = recv(fd, buffer + bytes, sizeof buffer - bytes - 1, 0);
        if (got <= 0) break;
        bytes += got;
        size_t done = 0;
        if (!upgraded) {
            buffer[bytes] = 0;
            n = upgrade(fd, (char *)buffer);
            upgraded = n > 0;
            done = n > 0 ? n : 0;
        }
        while (upgraded && (n = echo(fd, buffer + done, bytes - done, lines)) > 0) done += n;
        memmove(buffer, buffer + done, bytes -= done);
    }
    close(fd);
    free(lines);
    return NULL;
}

int main(int argc, char **argv) {
    one_lock = option("ONE_LOCK");
    own_lines = option("OWN_LINES");
    if (getenv("ONE_CORE")) {
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET(option("ONE_CORE"), &cores);
        sched_setaffinity(0, sizeof cores, &cores);
    }
    int listener = listen_on(argc > 1 ? argv[1] : "0");
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd >= 0 && pthread_create(&thread, &attributes, serve, (void *)(intptr_t)fd)) close(fd);
    }
}
