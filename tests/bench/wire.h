/* WebSocket frames as a client writes and reads them (RFC 6455, 5.2). */
#ifndef WIRE_H
#define WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { MAX_HEAD = 14 };

/* Writes a frame; returns its length, of which the head is MAX_HEAD at most. */
static size_t encode_frame(uint8_t *frame, uint8_t opcode, const char *data, size_t bytes) {
    static const uint8_t twice[8] = {0x12, 0x34, 0x56, 0x78, 0x12, 0x34, 0x56, 0x78}, *mask = twice;
    size_t head = 2;
    frame[0] = 0x80 | opcode;
    if (bytes < 126) {
        frame[1] = 0x80 | bytes;
    } else if (bytes < 65536) {
        frame[1] = 0x80 | 126;
        frame[2] = bytes >> 8;
        frame[3] = bytes;
        head = 4;
    } else {
        frame[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) frame[2 + i] = (uint64_t)bytes >> (56 - 8 * i);
        head = 10;
    }
    memcpy(frame + head, mask, 4);
    head += 4;
    size_t i = 0;
    for (uint64_t word, wide; i + sizeof word <= bytes; i += sizeof word) { /* else long messages keep us busy */
        memcpy(&wide, twice, sizeof wide);
        memcpy(&word, data + i, sizeof word);
        word ^= wide;
        memcpy(frame + head + i, &word, sizeof word);
    }
    for (; i < bytes; i++) frame[head + i] = data[i] ^ mask[i & 3];
    return head + bytes;
}

/* Returns how long the head of a server's frame is, and sets the length of what follows; 0 if there is not all of it. */
static size_t decode_head(const uint8_t *frame, size_t bytes, uint64_t *length) {
    if (bytes < 2) return 0;
    *length = frame[1] & 127;
    if (*length < 126) return 2;
    size_t head = *length == 126 ? 4 : 10;
    if (bytes < head) return 0;
    *length = 0;
    for (size_t i = 2; i < head; i++) *length = *length << 8 | frame[i];
    return head;
}

#endif
