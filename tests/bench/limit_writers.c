/* limit_writers: how much faster two threads write to the sockets of a large room than one, on this kernel. Each thread
 * writes to its half, without checks. The other ends do not read, and hold everything in their buffers.
 *
 *   limit_writers SOCKETS BYTES ROUNDS
 *
 * Build: cc -O2 -o limit_writers limit_writers.c -pthread */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_BYTES = 65536, PAUSE_US = 20000, FIRST_ROUNDS = 2 };

static int sockets, size, rounds, *fds;
static char message[MOST_BYTES];
static pthread_barrier_t begin, end;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void write_to(int first, int past) {
    for (int i = first; i < past; i++)
        if (send(fds[i], message, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL) != size) fail("send");
}

static void *help(void *nothing) {
    for (int i = 0; i < rounds; i++) {
        pthread_barrier_wait(&begin);
        write_to(sockets / 2, sockets);
        pthread_barrier_wait(&end);
    }
    return nothing;
}

static void connect_all(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (void *)&address, length) || listen(listener, 100)) fail("listen");
    getsockname(listener, (void *)&address, &length);
    for (int i = 0; i < sockets; i++) {
        int client = socket(AF_INET, SOCK_STREAM, 0);
        if (client < 0 || connect(client, (void *)&address, length)) fail("connect");
        if ((fds[i] = accept(listener, NULL, NULL)) < 0) fail("accept");
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
}

int main(int argc, char **argv) {
    if (argc != 4 || (sockets = atoi(argv[1])) < 1 || (size = atoi(argv[2])) < 1 || size > MOST_BYTES ||
        (rounds = atoi(argv[3])) < 1) {
        fprintf(stderr, "limit_writers SOCKETS BYTES ROUNDS\n");
        return 2;
    }
    if ((fds = calloc((size_t)sockets, sizeof *fds)) == NULL) fail("calloc");
    connect_all();
    pthread_barrier_init(&begin, NULL, 2);
    pthread_barrier_init(&end, NULL, 2);
    pthread_t helper;
    if (pthread_create(&helper, NULL, help, NULL)) fail("pthread_create");
    for (int i = 0; i < FIRST_ROUNDS; i++) write_to(0, sockets);
    double alone = 0, both = 0;
    for (int i = 0; i < rounds; i++) {
        usleep(PAUSE_US);
        double start = now();
        write_to(0, sockets);
        alone += now() - start;
        usleep(PAUSE_US);
        start = now();
        pthread_barrier_wait(&begin);
        write_to(0, sockets / 2);
        pthread_barrier_wait(&end);
        both += now() - start;
    }
    printf("C alone, %d sockets: one thread %.1f ms, two threads %.1f ms: %.2f times as fast\n", sockets,
           alone / rounds * 1e3, both / rounds * 1e3, alone / both);
    return 0;
}
