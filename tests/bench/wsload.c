/* wsload: a WebSocket load generator on one epoll thread, for measuring servers side by side (Linux).
 *
 *   wsload -p PORT [-u PATH] [-m echo|fan|idle|churn] [-n CONNECTIONS] [-s PAYLOAD BYTES] [-d SECONDS]
 *          [-W WARM-UP SECONDS] [-w WINDOW] [-k SENDERS] [-r RATE] [-c COUNT] [-D SECONDS] [-P SERVER PID] [-H HEADER]
 *          [-o AT ONCE] [-S | -E | -Q]
 *
 *   echo    every connection keeps WINDOW messages in flight
 *   fan     the first SENDERS connections send to a room that echoes to all; each keeps WINDOW messages in flight
 *   idle    the connections are opened and held
 *   churn   each connection is opened, echoes one message, is closed, and starts again
 *
 *   -r      open loop: so many messages a second in all, whether they are answered or not
 *   -c      end before SECONDS are over, once COUNT messages (churn: connections) are done
 *   -D      with -r: at the end, wait so long at most for what has been sent and not come yet
 *   -o      so many handshakes under way at once, 64 if not given: listen backlogs of 128 are common
 *   -P      report the CPU time and the memory of this process and its children
 *   -S      speak Socket.IO 4
 *   -E      speak wsthreads.1 (docs/reference/protocol.rst), and acknowledge as it says
 *   -Q      the same, and send requests in place of messages
 *
 * Writes "measuring" to the standard error when it begins to. SIGTERM ends that before its time.
 * Prints one line of JSON. Status: 0, 1 if not all connections could be opened, 2 if nothing was measured.
 * Build: cc -O2 -o wsload wsload.c */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "gauges.h"
#include "wire.h"

enum {
    HEADER_CHARS = 28,       /* what each payload begins with: its sender, and when it was sent */
    ACK_MESSAGES = 1024,     /* wsthreads.1: acknowledge after so many messages, */
    ACK_BYTES = 65536,       /* or bytes */
    SCRATCH_BYTES = 1 << 20, /* what is read at once, and the largest message */
    STALL_S = 20,            /* a server that makes no progress for so long is given up */
};

typedef enum { CLOSED, UPGRADING, JOINING /* Socket.IO and wsthreads.1 only */, OPEN, CLOSING, FAILED } State;

typedef struct {
    int fd, index;
    State state;
    uint64_t started_ns;
    uint8_t *rest; /* the beginning of a frame whose end has not come yet */
    size_t rest_bytes, rest_capacity;
    uint64_t counted, acknowledged, requests; /* wsthreads.1 only */
    size_t unacknowledged_bytes;
} Connection;

static struct {
    const char *path, *mode, *header;
    int port, connections, payload, senders, window, at_once, socket_io, envelope, requests, pid;
    double seconds, warm_s, rate, drain_s;
    uint64_t count;
} options = {.path = "/", .mode = "echo", .header = "", .connections = 1, .payload = 32, .senders = 1, .window = 1,
             .at_once = 64, .seconds = 5, .warm_s = 1};

static Connection *connections;
static int poller, opening, churn, fan, idle;
static uint8_t scratch[SCRATCH_BYTES];
static enum { WARMING, MEASURING, OVER } phase;
static volatile sig_atomic_t told_to_end;
static uint64_t sent, received, cycles, errors;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void on_sigterm(int number) {
    (void)number;
    told_to_end = 1;
}

static void die(const char *what) {
    fprintf(stderr, "wsload: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* Sending */

static void fail(Connection *c) {
    if (c->state == FAILED) return;
    if (c->state == UPGRADING || c->state == JOINING) opening--;
    if (phase != OVER) errors++;
    epoll_ctl(poller, EPOLL_CTL_DEL, c->fd, NULL);
    c->state = FAILED;
}

static void write_all(Connection *c, const uint8_t *data, size_t bytes) {
    uint64_t deadline = 0;
    while (bytes) {
        ssize_t n = send(c->fd, data, bytes, MSG_NOSIGNAL);
        if (n >= 0) {
            data += n;
            bytes -= n;
            continue;
        }
        if (!deadline) deadline = now_ns() + STALL_S * 1000000000ull;
        if (errno != EAGAIN || now_ns() > deadline) {
            fail(c);
            return;
        }
        usleep(100);
    }
}

static void write_frame(Connection *c, uint8_t opcode, const char *data, size_t bytes) {
    static uint8_t frame[SCRATCH_BYTES + MAX_HEAD];
    write_all(c, frame, encode_frame(frame, opcode, data, bytes));
}

static void send_message(Connection *c, uint64_t due_ns) {
    static char text[SCRATCH_BYTES];
    int start = options.socket_io ? sprintf(text, "42[\"m\",\"") : 0;
    if (options.requests) start = sprintf(text, "\x10q%llu:", (unsigned long long)++c->requests);
    int end = start + sprintf(text + start, "%06d %020llu ", c->index, (unsigned long long)due_ns);
    memset(text + end, 'x', start + options.payload - end);
    end = start + options.payload;
    if (options.socket_io) end += sprintf(text + end, "\"]");
    sent++;
    write_frame(c, 1, text, end);
}

/* Connecting */

static void start(Connection *c) {
    int one = 1;
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(options.port)};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->started_ns = now_ns();
    c->rest_bytes = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    if (churn) { /* many source addresses, so that closed connections do not use up the ports */
        static uint32_t turn;
        struct sockaddr_in local = {.sin_family = AF_INET};
        local.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + turn++ % 250);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (struct sockaddr *)&local, sizeof local)) die("bind");
    }
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {EPOLLIN, {.ptr = c}};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
    char request[2048];
    int bytes = snprintf(request, sizeof request,
                         "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                         options.path, options.port, options.envelope ? "Sec-WebSocket-Protocol: wsthreads.1\r\n" : "",
                         options.header, *options.header ? "\r\n" : "");
    c->counted = c->acknowledged = c->requests = c->unacknowledged_bytes = 0;
    c->state = UPGRADING;
    opening++;
    write_all(c, (uint8_t *)request, bytes);
}

static void opened(Connection *c) {
    c->state = OPEN;
    opening--;
    if (churn && phase != OVER) send_message(c, now_ns());
}

static void closed(Connection *c) {
    if (c->state != CLOSING) {
        fail(c);
        return;
    }
    close(c->fd);
    c->state = CLOSED;
    if (phase == MEASURING) cycles++;
    if (phase != OVER) start(c);
}

/* Receiving */

static uint64_t digits(const uint8_t *p, int n) {
    uint64_t value = 0;
    while (n--) value = value * 10 + (*p++ - '0');
    return value;
}

/* Counts a message of wsthreads.1, and acknowledges if it is time. */
static void count(Connection *c, size_t bytes) {
    c->counted++;
    c->unacknowledged_bytes += bytes;
    if (c->counted - c->acknowledged < ACK_MESSAGES && c->unacknowledged_bytes < ACK_BYTES) return;
    char text[32];
    int chars = sprintf(text, "\x10" "a%llu", (unsigned long long)c->counted);
    c->acknowledged = c->counted;
    c->unacknowledged_bytes = 0;
    write_frame(c, 1, text, chars);
}

static void on_text(Connection *c, const uint8_t *text, size_t chars) {
    if (options.envelope) {
        if (c->state == JOINING) {
            if (chars > 2 && text[0] == 0x10 && text[1] == 'w') opened(c);
            else fail(c);
            return;
        }
        if (chars > 1 && text[0] == 0x10 && text[1] == 'a') return;
        count(c, chars);
        if (options.requests) {
            const uint8_t *colon = memchr(text, ':', chars);
            if (!colon || text[0] != 0x10 || text[1] != 'r') {
                fail(c);
                return;
            }
            chars -= colon + 1 - text;
            text = colon + 1;
        }
    }
    if (options.socket_io) {
        if (chars == 1 && text[0] == '2') { /* Engine.IO ping */
            write_frame(c, 1, "3", 1);
            return;
        }
        if (c->state == JOINING) { /* Engine.IO open, then Socket.IO connected */
            if (text[0] == '0') write_frame(c, 1, "40", 2);
            if (chars >= 2 && text[0] == '4' && text[1] == '0') opened(c);
            return;
        }
        if (chars < 10) return;
        text += 8;
        chars -= 10;
    }
    if (chars < HEADER_CHARS) return;
    uint64_t now = now_ns();
    if (phase == MEASURING) {
        received++;
        record(now - (churn ? c->started_ns : digits(text + 7, 20)));
    }
    if (churn) {
        c->state = CLOSING;
        write_frame(c, 8, "\x03\xe8", 2);
    } else if (options.rate == 0 && phase != OVER && digits(text, 6) == (uint64_t)c->index) {
        send_message(c, now);
    }
}

/* Handles what is complete in `data`; returns how much of it that was. */
static size_t on_data(Connection *c, const uint8_t *data, size_t bytes) {
    size_t done = 0;
    if (c->state == UPGRADING) {
        const uint8_t *end = memmem(data, bytes, "\r\n\r\n", 4);
        if (!end) return 0;
        if (bytes < 12 || memcmp(data, "HTTP/1.1 101", 12)) {
            fprintf(stderr, "wsload: refused: %.*s\n", (int)(strcspn((const char *)data, "\r")), data);
            fail(c);
            return bytes;
        }
        done = end + 4 - data;
        if (options.socket_io || options.envelope) c->state = JOINING;
        else opened(c);
        if (options.envelope) write_frame(c, 1, "\x10h{}", 4);
    }
    while (bytes - done >= 2 && c->state != FAILED && c->state != CLOSING) {
        const uint8_t *frame = data + done;
        uint64_t length;
        size_t head = decode_head(frame, bytes - done, &length);
        if (!head || bytes - done < head + length) break;
        int opcode = frame[0] & 15;
        if (opcode == 1) on_text(c, frame + head, length);
        else if (opcode == 8) fail(c);
        else if (opcode == 9) write_frame(c, 10, (const char *)frame + head, length);
        done += head + length;
    }
    return c->state == FAILED || c->state == CLOSING ? bytes : done;
}

static void on_readable(Connection *c) {
    size_t bytes = c->rest_bytes, space;
    memcpy(scratch, c->rest, bytes);
    ssize_t n;
    do {
        space = SCRATCH_BYTES - 1 - bytes;
        n = recv(c->fd, scratch + bytes, space, 0);
        if (n <= 0) {
            if (n < 0 && errno == EAGAIN) break;
            closed(c);
            return;
        }
        bytes += n;
        scratch[bytes] = 0;
        size_t done = on_data(c, scratch, bytes);
        memmove(scratch, scratch + done, bytes -= done);
    } while ((size_t)n == space);
    if (bytes > c->rest_capacity) c->rest = realloc(c->rest, c->rest_capacity = bytes);
    memcpy(c->rest, scratch, c->rest_bytes = bytes);
}

static void step(int timeout_ms) {
    struct epoll_event events[512];
    int n = epoll_wait(poller, events, 512, timeout_ms);
    for (int i = 0; i < n; i++) {
        Connection *c = events[i].data.ptr;
        if (c->state != FAILED && c->state != CLOSED) on_readable(c);
    }
}

/* Each message bears the time at which it was due, so that what holds us up counts as latency too. */
static void send_at_rate(void) {
    static double credit;
    static uint64_t last;
    static int turn;
    uint64_t now = now_ns();
    if (last) credit += (now - last) / 1e9 * options.rate;
    last = now;
    for (; credit >= 1; credit--) {
        Connection *c = &connections[turn++ % (fan ? options.senders : options.connections)];
        if (c->state == OPEN) send_message(c, now - (uint64_t)((credit - 1) / options.rate * 1e9));
    }
}

static void pump(double seconds) {
    uint64_t end = now_ns() + seconds * 1e9, now;
    while ((now = now_ns()) < end && !told_to_end) {
        if (phase == MEASURING && options.count && (churn ? cycles : received) >= options.count) break;
        uint64_t left_ms = (end - now) / 1000000 + 1;
        if (options.rate > 0 && phase == MEASURING) {
            send_at_rate();
            left_ms = 1;
        }
        step(left_ms < 20 ? left_ms : 20);
    }
}

static double open_all(void) {
    uint64_t started = now_ns(), progress = started;
    for (int i = 0, before = 0; i < options.connections || (opening && !churn); before = opening) {
        if (i < options.connections && opening < options.at_once) start(&connections[i++]);
        step(i == options.connections || opening == options.at_once ? 20 : 0);
        if (opening != before) progress = now_ns();
        else if (now_ns() - progress > STALL_S * 1000000000ull) break;
    }
    return (now_ns() - started) / 1e9;
}

static void parse(int argc, char **argv) {
    for (int o; (o = getopt(argc, argv, "p:u:m:n:s:d:W:w:k:r:c:D:o:P:H:SEQ")) > 0;) switch (o) {
        case 'p': options.port = atoi(optarg); break;
        case 'u': options.path = optarg; break;
        case 'm': options.mode = optarg; break;
        case 'n': options.connections = atoi(optarg); break;
        case 's': options.payload = atoi(optarg); break;
        case 'd': options.seconds = atof(optarg); break;
        case 'W': options.warm_s = atof(optarg); break;
        case 'w': options.window = atoi(optarg); break;
        case 'k': options.senders = atoi(optarg); break;
        case 'r': options.rate = atof(optarg); break;
        case 'c': options.count = strtoull(optarg, NULL, 10); break;
        case 'D': options.drain_s = atof(optarg); break;
        case 'o': options.at_once = atoi(optarg); break;
        case 'P': options.pid = atoi(optarg); break;
        case 'H': options.header = optarg; break;
        case 'S': options.socket_io = 1; break;
        case 'Q': options.requests = 1; /* fall through */
        case 'E': options.envelope = 1; break;
        default: exit(2);
        }
    churn = !strcmp(options.mode, "churn");
    fan = !strcmp(options.mode, "fan");
    idle = !strcmp(options.mode, "idle");
    errno = EINVAL;
    if (!churn && !fan && !idle && strcmp(options.mode, "echo")) die(options.mode);
    if (options.payload < HEADER_CHARS + 2) options.payload = HEADER_CHARS + 2;
    if (options.payload > SCRATCH_BYTES / 2) die("-s");
    if (options.at_once < 1) die("-o");
    if (options.connections < 1 || options.connections > 999999) die("-n");
    if (options.senders > options.connections) options.senders = options.connections;
}

int main(int argc, char **argv) {
    parse(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc(options.connections, sizeof *connections);
    for (int i = 0; i < options.connections; i++) connections[i].index = i;

    Usage unused = usage_of_tree(options.pid);
    double connect_s = open_all();
    int ok = 0;
    for (int i = 0; i < options.connections; i++)
        ok += connections[i].state == OPEN || (churn && connections[i].state != FAILED);
    pump(0.3); /* the 101 does not mean that the server has joined its room yet */
    Usage loaded = usage_of_tree(options.pid);
    if (!idle && !churn && options.rate == 0)
        for (int i = 0; i < (fan ? options.senders : options.connections); i++)
            for (int w = 0; w < options.window && connections[i].state == OPEN; w++)
                send_message(&connections[i], now_ns());
    pump(options.warm_s);

    sent = 0;
    phase = MEASURING;
    signal(SIGTERM, on_sigterm);
    fputs("wsload: measuring\n", stderr);
    Usage before = usage_of_tree(options.pid);
    double own_before = own_cpu_s(), machine_before = machine_cpu_s();
    uint64_t started = now_ns();
    pump(options.seconds);
    double seconds = (now_ns() - started) / 1e9, own = own_cpu_s() - own_before;
    Usage after = usage_of_tree(options.pid);
    double server = after.cpu_s - before.cpu_s, others = machine_cpu_s() - machine_before - own - server;
    if (options.drain_s > 0) {
        uint64_t due = sent * (fan ? options.connections : 1), end = now_ns() + options.drain_s * 1e9;
        while (received < due && now_ns() < end) step(20);
    }
    phase = OVER;

    int open = 0;
    for (int i = 0; i < options.connections; i++) open += connections[i].state != FAILED;
    printf("{\"mode\":\"%s\",\"conns\":%d,\"ok\":%d,\"open\":%d,\"errors\":%llu,\"connect_s\":%.4f,\"seconds\":%.3f,"
           "\"sent\":%llu,\"received\":%llu,\"cycles\":%llu,\"sent_per_s\":%.1f,\"recv_per_s\":%.1f,"
           "\"cycles_per_s\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,"
           "\"client_cpu\":%.3f,\"server_cpu\":%.3f,\"other_cpu\":%.3f,\"rss_kb_per_conn\":%.1f,\"rss_mb\":%.1f}\n",
           options.mode, options.connections, ok, open, (unsigned long long)errors, connect_s, seconds,
           (unsigned long long)sent, (unsigned long long)received, (unsigned long long)cycles, sent / seconds,
           received / seconds, cycles / seconds, quantile_us(.5), quantile_us(.9), quantile_us(.99), longest_ns / 1e3,
           own / seconds, server / seconds, others > 0 ? others / seconds : 0,
           ok > 0 ? (loaded.rss_kib - unused.rss_kib) / (double)ok : 0, after.rss_kib / 1024.0);
    return ok == options.connections ? 0 : 1;
}
