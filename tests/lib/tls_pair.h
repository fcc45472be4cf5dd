/* Two ends of a TLS connection with nothing but memory between them. */
#ifndef TESTS_LIB_TLS_PAIR_H
#define TESTS_LIB_TLS_PAIR_H

#include "common/wire/tls.h"
#include "tests/lib/certs.h"
#include "tests/lib/check_main.h"

#include <string.h>

/* One end and the bytes on their way to it. */
struct end {
    struct fl_tls *tls;
    uint8_t in[65536];
    size_t in_size;
    bool eof;
    int status;
    struct fl_err e;
    size_t out_max; /* room it is given for cipher text */
};

struct pair {
    struct end server, client;
    uint64_t moved;
    uint64_t flip; /* the number of the byte on the wire whose bit is flipped, 0 = none */
};

static inline void begin_pair(struct pair *p, struct fl_tls_conf *server,
                              struct fl_tls_conf *client, const char *name)
{
    memset(p, 0, sizeof *p);
    ck_assert_int_eq(fl_tls_new(server, NULL, &p->server.tls, NULL), 0);
    ck_assert_int_eq(fl_tls_new(client, name, &p->client.tls, NULL), 0);
    p->server.out_max = p->client.out_max = 20000;
}

static inline void end_pair(struct pair *p)
{
    fl_tls_free(p->server.tls);
    fl_tls_free(p->client.tls);
}

/* Bytes travel; one of them may be damaged on the way. */
static inline void deliver(struct pair *p, struct end *to, const uint8_t *bytes, size_t size)
{
    ck_assert_uint_le(size, sizeof to->in - to->in_size);
    for (size_t i = 0; i < size; i++) {
        p->moved++;
        to->in[to->in_size++] = bytes[i] ^ (p->moved == p->flip ? 0x80 : 0);
    }
}

/* One turn of one end; whether anything moved. */
static inline bool turn(struct pair *p, struct end *from, struct end *to, struct fl_tls_io *io)
{
    static uint8_t out[65536];

    if (from->status < 0) {
        return false;
    }
    io->in = from->in;
    io->in_size = from->in_size;
    io->eof = from->eof;
    io->out = out;
    io->out_size = from->out_max;
    from->status = fl_tls_pump(from->tls, io, &from->e);
    from->in_size -= io->ret_in;
    memmove(from->in, from->in + io->ret_in, from->in_size);
    deliver(p, to, out, io->ret_out);
    return io->ret_in || io->ret_out || io->ret_plain || io->ret_written;
}

static inline void shake_hands(struct pair *p)
{
    struct fl_tls_io io;
    bool moved = true;

    while (moved) {
        uint8_t plain[16];
        io = (struct fl_tls_io){.plain = plain, .plain_size = sizeof plain};
        moved = turn(p, &p->client, &p->server, &io);
        io = (struct fl_tls_io){.plain = plain, .plain_size = sizeof plain};
        moved |= turn(p, &p->server, &p->client, &io);
    }
}

static inline void assert_open(struct pair *p)
{
    ck_assert_msg(p->server.status == 0, "server: %s", p->server.e.msg);
    ck_assert_msg(p->client.status == 0, "client: %s", p->client.e.msg);
    ck_assert_int_eq(fl_tls_state(p->server.tls), FL_TLS_OPEN);
    ck_assert_int_eq(fl_tls_state(p->client.tls), FL_TLS_OPEN);
}

#endif
