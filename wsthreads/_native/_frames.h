/* Frames in the form in which clients send them (RFC 6455, 5.2), for the C files that read frames. Needs no Python. */
#ifndef WSTHREADS_FRAMES_H
#define WSTHREADS_FRAMES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { FIN_TEXT = 0x81, FIN_BINARY = 0x82 };

enum { CONTROL = 0x08 }; /* set in the first byte of a ping, a pong or a close frame, and of "HTTP/1.1" */

typedef struct {
    uint64_t payload_bytes;
    size_t header_bytes; /* including the masking key, which is the last four bytes */
} Frame;

/* Returns 1 if `data` begins with the complete header of an unfragmented, masked data frame. Returns 0 if it may do so
 * when more bytes come. Returns -1 for any other frame, and for bytes that are not a frame. */
static inline int parse_data_frame(const uint8_t *data, size_t size, Frame *frame) {
    if (size > 0 && data[0] != FIN_TEXT && data[0] != FIN_BINARY) return -1;
    if (size > 1 && !(data[1] & 0x80)) return -1;
    if (size < 6) return 0;
    frame->payload_bytes = data[1] & 0x7F;
    frame->header_bytes = 6;
    if (frame->payload_bytes < 126) return 1;
    size_t length_bytes = frame->payload_bytes == 126 ? 2 : 8;
    frame->header_bytes += length_bytes;
    if (size < frame->header_bytes) return 0;
    frame->payload_bytes = 0;
    for (size_t i = 0; i < length_bytes; i++) frame->payload_bytes = frame->payload_bytes << 8 | data[2 + i];
    return frame->payload_bytes > (length_bytes == 2 ? 125 : 0xFFFF) ? 1 : -1; /* -1: not the shortest form */
}

/* Unmask a payload, and return whether the result is ASCII. This is done in one pass, because a long message does not
 * stay in the nearest cache. */
static inline int unmask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t key[4]) {
    uint64_t wide, seen = 0;
    uint8_t twice[8];
    size_t i = 0;
    memcpy(twice, key, 4);
    memcpy(twice + 4, key, 4);
    memcpy(&wide, twice, 8);
    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, from + i, 8);
        word ^= wide;
        seen |= word;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++) seen |= to[i] = from[i] ^ key[i & 3];
    return !(seen & 0x8080808080808080u);
}

#endif
