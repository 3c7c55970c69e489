/* limit: the least that a WebSocket server can do on this kernel, to measure others against. One epoll thread, one
 * send() per delivery, no checks, frames of less than 64 KiB. /room delivers to all in it, any other path echoes.
 *
 * Not for anything else: a delivery that does not fit into a socket's buffer is cut off.
 *
 *   limit PORT
 *
 * Build: cc -O2 -o limit limit.c -lcrypto */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_MEMBERS = 65536, BUFFER_BYTES = 131072 };

typedef struct {
    int fd, upgraded, in_room;
    size_t bytes;
    uint8_t buffer[BUFFER_BYTES];
} Connection;

static int poller, members;
static Connection *room[MAX_MEMBERS];

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

/* Answers the handshake; returns its length, 0 if it is not complete, -1 if it is none. */
static ssize_t upgrade(Connection *c) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char *text = (char *)c->buffer, input[128], accept[40], response[256];
    uint8_t hash[SHA_DIGEST_LENGTH];
    c->buffer[c->bytes] = 0;
    char *end = strstr(text, "\r\n\r\n"), *key = strcasestr(text, "sec-websocket-key:");
    if (!end) return 0;
    if (!key) return -1;
    key += strlen("sec-websocket-key:");
    key += strspn(key, " ");
    int bytes = snprintf(input, sizeof input, "%.*s%s", (int)strcspn(key, "\r"), key, guid);
    SHA1((uint8_t *)input, bytes, hash);
    EVP_EncodeBlock((uint8_t *)accept, hash, sizeof hash);
    bytes = snprintf(response, sizeof response,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    if (send(c->fd, response, bytes, MSG_NOSIGNAL) != bytes) return -1;
    c->upgraded = 1;
    c->in_room = !strncmp(text, "GET /room", 9);
    if (c->in_room) {
        if (members == MAX_MEMBERS) return -1;
        room[members++] = c;
    }
    return end + 4 - text;
}

/* Delivers the complete frames from `done` on; returns where they end, or -1 at the end of the connection. */
static ssize_t deliver(Connection *c, size_t done) {
    while (c->bytes - done >= 6) {
        uint8_t *frame = c->buffer + done;
        size_t length = frame[1] & 127, head = 2;
        if (length == 127 || (frame[0] & 15) == 8) return -1;
        if (length == 126) {
            if (c->bytes - done < 8) break;
            length = frame[2] << 8 | frame[3];
            head = 4;
        }
        if (c->bytes - done < head + 4 + length) break;
        uint8_t *mask = frame + head, *payload = mask + 4, *out = payload - head;
        for (size_t i = 0; i < length; i++) payload[i] ^= mask[i & 3];
        done += head + 4 + length;
        if (head == 4) { /* written from its end, since it may overlap the mask */
            out[3] = length;
            out[2] = length >> 8;
        }
        out[1] = head == 4 ? 126 : length;
        out[0] = 0x81;
        for (int i = 0; i < (c->in_room ? members : 1); i++)
            send(c->in_room ? room[i]->fd : c->fd, out, head + length, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    return done;
}

static void on_readable(Connection *c) {
    ssize_t n = recv(c->fd, c->buffer + c->bytes, BUFFER_BYTES - c->bytes - 1, 0), done = 0;
    if (n < 0 && errno == EAGAIN) return;
    if (n > 0) c->bytes += n;
    if (n > 0 && !c->upgraded) {
        done = upgrade(c);
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
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("limit");
        return 1;
    }
    poller = epoll_create1(0);
    struct epoll_event events[512], event = {EPOLLIN, {.ptr = NULL}};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(poller, events, 512, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) on_readable(events[i].data.ptr);
            else accept_one(listener);
        }
    }
}
