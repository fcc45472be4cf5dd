/*
 * A client that speaks TLS properly and frames as it pleases, with a blocking socket, on a thread
 * of its own: the hostile or broken peer of the stream's tests.
 */
#ifndef TESTS_LIB_RAW_CLIENT_H
#define TESTS_LIB_RAW_CLIENT_H

#include "common/base/mem.h"
#include "common/wire/msg.h"
#include "common/wire/tls.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct raw_client {
    int fd;
    struct fl_tls *tls;
    uint8_t plain[FL_FRAME_MAX + 64];
    size_t plain_size;
    bool closed;
    int status; /* of TLS */
};

static inline void raw_must(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "raw client: %s\n", what);
        abort();
    }
}

static inline int raw_connect_tcp(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 20};

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 32 * 1024;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    raw_must(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0, "connect");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
}

/* Sends what TLS made; false when the peer takes nothing more. */
static inline bool raw_send(struct raw_client *r, const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = send(r->fd, data + at, size - at, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        at += (size_t)n;
    }
    return true;
}

/* One turn of the pump, waiting for the socket when `wait`. */
static inline bool raw_turn(struct raw_client *r, bool wait)
{
    uint8_t in[20000], out[20000];
    struct fl_tls_io io = {.out = out,
                           .out_size = sizeof out,
                           .plain = r->plain + r->plain_size,
                           .plain_size = sizeof r->plain - r->plain_size};

    if (wait) {
        size_t want = fl_tls_want(r->tls);
        ssize_t n = recv(r->fd, in, want < sizeof in ? want : sizeof in, 0);
        r->closed = n <= 0;
        io.in = in;
        io.in_size = n > 0 ? (size_t)n : 0;
        io.eof = n == 0;
    }
    r->status = fl_tls_pump(r->tls, &io, NULL);
    r->plain_size += io.ret_plain;
    bool sent = raw_send(r, out, io.ret_out);
    r->closed = r->closed || fl_tls_state(r->tls) == FL_TLS_CLOSED || r->status < 0;
    return sent && !r->closed;
}

static inline struct raw_client *raw_open(uint16_t port, struct fl_tls_conf *conf)
{
    struct raw_client *r = fl_new(1, sizeof *r);

    r->fd = raw_connect_tcp(port);
    raw_must(fl_tls_new(conf, "localhost", &r->tls, NULL) == 0, "tls");
    raw_turn(r, false);
    while (!r->closed && fl_tls_state(r->tls) == FL_TLS_HANDSHAKE) {
        raw_turn(r, true);
    }
    return r;
}

static inline bool raw_write(struct raw_client *r, const void *data, size_t size)
{
    static _Thread_local uint8_t out[20000];

    for (size_t at = 0; at < size;) {
        struct fl_tls_io io = {.write = (const uint8_t *)data + at,
                               .write_size = size - at,
                               .out = out,
                               .out_size = sizeof out};
        if (fl_tls_pump(r->tls, &io, NULL) < 0 || !raw_send(r, out, io.ret_out)) {
            return false;
        }
        at += io.ret_written;
    }
    return true;
}

static inline bool raw_write_frame(struct raw_client *r, const Cohort__Frame *frame)
{
    size_t n = fl_msg_packed_size(frame);
    uint8_t *bytes = fl_new(n, 1);

    fl_msg_pack(frame, bytes);
    bool good = raw_write(r, bytes, n);
    fl_free(bytes);
    return good;
}

static inline bool raw_ping(struct raw_client *r)
{
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Ping ping = COHORT__PING__INIT;

    frame.body_case = COHORT__FRAME__BODY_PING;
    frame.ping = &ping;
    return raw_write_frame(r, &frame);
}

static inline bool raw_ask(struct raw_client *r)
{
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Ask ask = COHORT__ASK__INIT;

    frame.body_case = COHORT__FRAME__BODY_ASK;
    frame.ask = &ask;
    return raw_write_frame(r, &frame);
}

static inline bool raw_chunk(struct raw_client *r, const struct fl_digest *digest, uint64_t offset,
                             const uint8_t *data, size_t size)
{
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Chunk chunk = COHORT__CHUNK__INIT;

    chunk.digest = (ProtobufCBinaryData){FL_DIGEST_SIZE, (uint8_t *)(uintptr_t)digest->bytes};
    chunk.offset = offset;
    chunk.data = (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)data};
    frame.body_case = COHORT__FRAME__BODY_CHUNK;
    frame.chunk = &chunk;
    return raw_write_frame(r, &frame);
}

/* The next frame, or NULL when the connection ended. */
static inline Cohort__Frame *raw_read(struct raw_client *r)
{
    size_t n;
    Cohort__Frame *frame = NULL;

    while (fl_frame_next(r->plain, r->plain_size, FL_FRAME_MAX, &n, NULL) != 1) {
        size_t before = r->plain_size;
        if (r->closed || (!raw_turn(r, true) && r->plain_size == before)) {
            return NULL;
        }
    }
    raw_must(fl_msg_unpack(r->plain + FL_FRAME_HEAD, n, &frame, NULL) == 0, "unpack");
    r->plain_size -= FL_FRAME_HEAD + n;
    memmove(r->plain, r->plain + FL_FRAME_HEAD + n, r->plain_size);
    return frame;
}

/* Reads to the end; the reason of the Bye, 0 if there was none. */
static inline unsigned raw_read_to_bye(struct raw_client *r)
{
    unsigned reason = 0;
    Cohort__Frame *frame;

    while ((frame = raw_read(r))) {
        reason = frame->body_case == COHORT__FRAME__BODY_BYE ? frame->bye->reason : reason;
        fl_msg_free(frame);
    }
    return reason;
}

static inline void raw_close(struct raw_client *r)
{
    close(r->fd);
    fl_tls_free(r->tls);
    fl_free(r);
}

#endif
