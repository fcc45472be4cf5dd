/* One valid frame of each message, small but with every field set: for the tests of msg, of the
 * vectors in WIRE.md and of streams. */
#ifndef TESTS_LIB_FRAMES_H
#define TESTS_LIB_FRAMES_H

#include "common/base/mem.h"
#include "common/wire/msg.h"

#include <string.h>

enum { FRAMES_MAX = 24, FRAMES_SIZE_MAX = 1024 };

struct frames {
    size_t count;
    struct {
        uint8_t bytes[FRAMES_SIZE_MAX]; /* with its head */
        size_t size;
    } at[FRAMES_MAX];
};

static inline void frames_add(struct frames *f, const Cohort__Frame *frame)
{
    size_t n = fl_msg_packed_size(frame);

    if (f->count < FRAMES_MAX && n <= FRAMES_SIZE_MAX) {
        fl_msg_pack(frame, f->at[f->count].bytes);
        f->at[f->count++].size = n;
    }
}

#define FRAMES_PUT(field, tag, message)                                                            \
    do {                                                                                           \
        Cohort__Frame frame = COHORT__FRAME__INIT;                                                 \
        frame.body_case = COHORT__FRAME__BODY_##tag;                                               \
        frame.field = &(message);                                                                  \
        frames_add(f, &frame);                                                                     \
    } while (0)

static inline void frames_opening(struct frames *f)
{
    static char *capabilities[] = {(char *)"hyperfl", (char *)"unit-example"};
    static uint8_t coordinator[16] = {0xc0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Cohort__Hello hello = COHORT__HELLO__INIT;
    Cohort__Welcome welcome = COHORT__WELCOME__INIT;
    Cohort__Ping ping = COHORT__PING__INIT;
    Cohort__Pong pong = COHORT__PONG__INIT;
    Cohort__Bye bye = COHORT__BYE__INIT;

    hello.min_version = hello.max_version = 1;
    hello.capabilities = capabilities;
    hello.n_capabilities = 2;
    hello.software = (char *)"cohort-agent 0.1.0";
    FRAMES_PUT(hello, HELLO, hello);
    welcome.version = 1;
    welcome.capabilities = capabilities;
    welcome.n_capabilities = 1;
    welcome.agent = (char *)"site-03";
    welcome.heartbeat_ms = 20000;
    welcome.max_frame = FL_FRAME_MAX;
    welcome.coordinator = (ProtobufCBinaryData){sizeof coordinator, coordinator};
    FRAMES_PUT(welcome, WELCOME, welcome);
    ping.nonce = 7;
    FRAMES_PUT(ping, PING, ping);
    pong.nonce = UINT64_MAX;
    FRAMES_PUT(pong, PONG, pong);
    bye.reason = FL_R_SHUTDOWN;
    bye.text = (char *)"back in a minute \xe2\x80\x94 thanks";
    bye.retry_ms = 60000;
    FRAMES_PUT(bye, BYE, bye);
}

static inline void frames_work(struct frames *f, Cohort__Key *key, ProtobufCBinaryData plan,
                               ProtobufCBinaryData base)
{
    static char *jobs[] = {(char *)"fashion", (char *)"retina.v2"};
    static Cohort__Final final;
    static Cohort__Final *finals[] = {&final};
    Cohort__Ask ask = COHORT__ASK__INIT;
    Cohort__Rest rest = COHORT__REST__INIT;
    Cohort__Task task = COHORT__TASK__INIT;
    Cohort__Accept accept = COHORT__ACCEPT__INIT;
    Cohort__Decline decline = COHORT__DECLINE__INIT;
    Cohort__Refuse refuse = COHORT__REFUSE__INIT;
    Cohort__Over over = COHORT__OVER__INIT;

    ask.jobs = jobs;
    ask.n_jobs = 2;
    FRAMES_PUT(ask, ASK, ask);
    cohort__final__init(&final);
    final.incarnation = key->incarnation;
    final.job = jobs[0];
    final.round = 200;
    final.plan_digest = plan;
    final.plan_size = 1234;
    final.base_digest = base;
    final.base_size = 4321;
    rest.reason = FL_R_JOB_STATE;
    rest.text = (char *)"done";
    rest.retry_ms = 5000;
    rest.finals = finals;
    rest.n_finals = 1;
    FRAMES_PUT(rest, REST, rest);
    task.key = key;
    task.job = jobs[0];
    task.exchange = (char *)"update";
    task.plan_digest = plan;
    task.plan_size = 1234;
    task.base_digest = base;
    task.base_size = 4321;
    task.update_size = 2161;
    task.deadline_left_ms = 90000;
    FRAMES_PUT(task, TASK, task);
    accept.key = key;
    FRAMES_PUT(accept, ACCEPT, accept);
    decline.key = refuse.key = over.key = key;
    decline.reason = FL_R_BUDGET_SPENT;
    decline.text = (char *)"epsilon 8 of 8";
    FRAMES_PUT(decline, DECLINE, decline);
    refuse.reason = FL_R_UPDATE_LENGTH;
    refuse.text = (char *)"2160 bytes, not 2161";
    FRAMES_PUT(refuse, REFUSE, refuse);
    over.reason = FL_R_ROUND_OVER;
    over.text = (char *)"";
    FRAMES_PUT(over, OVER, over);
}

static inline void frames_receipts(struct frames *f, Cohort__Key *key, ProtobufCBinaryData update)
{
    static uint8_t c[32], d[32], certificate[] = "certificate", signature[] = "signature";
    Cohort__Claim claim = COHORT__CLAIM__INIT;
    Cohort__Claimed claimed = COHORT__CLAIMED__INIT, *claims = &claimed;
    Cohort__Receipt receipt = COHORT__RECEIPT__INIT;
    Cohort__Inclusion inclusion = COHORT__INCLUSION__INIT;

    memset(c, 0xcc, sizeof c);
    memset(d, 0xdd, sizeof d);
    claimed.incarnation = key->incarnation;
    claimed.round = key->round;
    claimed.exchange = key->exchange;
    claimed.update = update;
    claim.updates = &claims;
    claim.n_updates = 1;
    FRAMES_PUT(claim, CLAIM, claim);
    inclusion.update = update;
    inclusion.weight = 1;
    inclusion.size = 2161;
    inclusion.record = (ProtobufCBinaryData){sizeof c, c};
    inclusion.model = (ProtobufCBinaryData){sizeof d, d};
    inclusion.certificate = (ProtobufCBinaryData){sizeof certificate - 1, certificate};
    inclusion.signature = (ProtobufCBinaryData){sizeof signature - 1, signature};
    inclusion.round = 41;
    receipt.key = key;
    receipt.inclusion = &inclusion;
    FRAMES_PUT(receipt, RECEIPT, receipt);
}

static inline void frames_all(struct frames *f)
{
    static uint8_t incarnation[16] = {0x1c, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    static uint8_t a[32], b[32], bytes[100];
    Cohort__Key key = COHORT__KEY__INIT;
    Cohort__Fetch fetch = COHORT__FETCH__INIT;
    Cohort__Chunk chunk = COHORT__CHUNK__INIT;
    Cohort__Offer offer = COHORT__OFFER__INIT;
    Cohort__Resume resume = COHORT__RESUME__INIT;
    Cohort__Ack ack = COHORT__ACK__INIT;

    memset(f, 0, sizeof *f);
    memset(a, 0xaa, sizeof a);
    memset(b, 0xbb, sizeof b);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)i;
    }
    key.incarnation = (ProtobufCBinaryData){sizeof incarnation, incarnation};
    key.round = 41;
    key.exchange = 1;
    const ProtobufCBinaryData plan = {sizeof a, a}, base = {sizeof b, b};
    frames_opening(f);
    frames_work(f, &key, plan, base);
    fetch.digest = base;
    fetch.offset = 1 << 20;
    FRAMES_PUT(fetch, FETCH, fetch);
    chunk.digest = base;
    chunk.offset = 4096;
    chunk.data = (ProtobufCBinaryData){sizeof bytes, bytes};
    FRAMES_PUT(chunk, CHUNK, chunk);
    offer.key = resume.key = ack.key = &key;
    offer.digest = resume.digest = ack.digest = base;
    offer.size = 2161;
    offer.plan_digest = plan;
    offer.base_digest = base;
    offer.weight = 1;
    FRAMES_PUT(offer, OFFER, offer);
    resume.offset = 1024;
    FRAMES_PUT(resume, RESUME, resume);
    FRAMES_PUT(ack, ACK, ack);
    frames_receipts(f, &key, base);
}

#endif
