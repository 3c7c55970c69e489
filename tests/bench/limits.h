/* What the minimal servers share: listening, the handshake, and frames as a server reads them. No checks. */
#ifndef LIMITS_H
#define LIMITS_H

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* Raises the limit of open files, and listens on 127.0.0.1. */
static int listen_on(const char *port) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("listen");
        exit(1);
    }
    return listener;
}

/* Answers a handshake that ends with a 0. Returns its length, 0 if it is not complete, -1 if it is none. */
static ssize_t upgrade(int fd, const char *request) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char input[128], accept[40], response[256];
    uint8_t hash[SHA_DIGEST_LENGTH];
    const char *end = strstr(request, "\r\n\r\n"), *key = strcasestr(request, "sec-websocket-key:");
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
    return send(fd, response, bytes, MSG_NOSIGNAL) == bytes ? end + 4 - request : -1;
}

/* Makes a client's frame of less than 64 KiB into the server's, in place. Sets where that is and how long. Returns the
 * length of the client's, 0 if it is not complete, -1 if it ends the connection. */
static ssize_t answer(uint8_t *frame, size_t bytes, uint8_t **out, size_t *out_bytes) {
    if (bytes < 6) return 0;
    size_t length = frame[1] & 127, head = 2;
    if (length == 127 || (frame[0] & 15) == 8) return -1;
    if (length == 126) {
        if (bytes < 8) return 0;
        length = frame[2] << 8 | frame[3];
        head = 4;
    }
    if (bytes < head + 4 + length) return 0;
    uint8_t *mask = frame + head, *payload = mask + 4, *start = payload - head;
    for (size_t i = 0; i < length; i++) payload[i] ^= mask[i & 3];
    if (head == 4) { /* written from its end, since it may overlap the mask */
        start[3] = length;
        start[2] = length >> 8;
    }
    start[1] = head == 4 ? 126 : length;
    start[0] = 0x81;
    *out = start;
    *out_bytes = head + length;
    return head + 4 + length;
}

#endif
