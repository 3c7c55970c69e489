/* limit: the least that a WebSocket server can do on this kernel, to measure others against. One epoll thread, one
 * send() per delivery, no checks, frames of less than 64 KiB. /room delivers to all in it, any other path echoes.
 *
 * Not for anything else: a delivery that does not fit into a socket's buffer is cut off.
 *
 *   limit PORT
 *
 * With JOIN=1 in the environment, what arrives in one turn of the loop is delivered by one send() per member.
 *
 * Build: cc -O2 -o limit limit.c -lcrypto */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/epoll.h>

#include "limits.h"

enum { MAX_MEMBERS = 65536, BUFFER_BYTES = 131072, TURN_BYTES = 1048576 };

typedef struct {
    int fd, upgraded, in_room;
    size_t bytes;
    uint8_t buffer[BUFFER_BYTES];
} Connection;

static int poller, members, joins;
static Connection *room[MAX_MEMBERS];
static uint8_t turn[TURN_BYTES]; /* frames for the room, with JOIN=1 */
static size_t turn_bytes;

static void drop(Connection *c) {
    close(c->fd);
    for (int i = 0; i < members; i++)
        if (room[i] == c) {
            room[i] = room[--members];
            break;
        }
    free(c);
}

static void accept_one(int listener) {
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    Connection *c = calloc(1, sizeof *c);
    c->fd = fd;
    struct epoll_event event = {EPOLLIN, {.ptr = c}};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

static void send_to_room(const uint8_t *frames, size_t bytes) {
    for (int i = 0; i < members; i++) send(room[i]->fd, frames, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void end_turn(void) {
    if (turn_bytes) send_to_room(turn, turn_bytes);
    turn_bytes = 0;
}

static void deliver_to_room(const uint8_t *frame, size_t bytes) {
    if (!joins) {
        send_to_room(frame, bytes);
        return;
    }
    if (turn_bytes + bytes > sizeof turn) end_turn();
    memcpy(turn + turn_bytes, frame, bytes);
    turn_bytes += bytes;
}

/* Delivers the complete frames from `done` on; returns where they end, or -1 at the end of the connection. */
static ssize_t deliver(Connection *c, size_t done) {
    uint8_t *out;
    size_t out_bytes;
    ssize_t n;
    while ((n = answer(c->buffer + done, c->bytes - done, &out, &out_bytes)) > 0) {
        done += n;
        if (c->in_room) deliver_to_room(out, out_bytes);
        else send(c->fd, out, out_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    return n < 0 ? -1 : (ssize_t)done;
}

/* Answers the handshake, and joins the room. Returns as `upgrade` does. */
static ssize_t open_connection(Connection *c) {
    c->buffer[c->bytes] = 0;
    ssize_t done = upgrade(c->fd, (char *)c->buffer);
    if (done <= 0) return done;
    c->upgraded = 1;
    c->in_room = !strncmp((char *)c->buffer, "GET /room", 9);
    if (c->in_room) {
        if (members == MAX_MEMBERS) return -1;
        room[members++] = c;
    }
    return done;
}

static void on_readable(Connection *c) {
    ssize_t n = recv(c->fd, c->buffer + c->bytes, BUFFER_BYTES - c->bytes - 1, 0), done = 0;
    if (n < 0 && errno == EAGAIN) return;
    if (n > 0) c->bytes += n;
    if (n > 0 && !c->upgraded) {
        done = open_connection(c);
        if (!done) return;
    }
    if (n > 0 && done >= 0) done = deliver(c, done);
    if (n <= 0 || done < 0) {
        drop(c);
        return;
    }
    memmove(c->buffer, c->buffer + done, c->bytes -= done);
}

int main(int argc, char **argv) {
    int listener = listen_on(argc > 1 ? argv[1] : "0");
    joins = getenv("JOIN") != NULL;
    poller = epoll_create1(0);
    struct epoll_event events[512], event = {EPOLLIN, {.ptr = NULL}};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(poller, events, 512, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) on_readable(events[i].data.ptr);
            else accept_one(listener);
        }
        end_turn();
    }
}
