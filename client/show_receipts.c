/* Receipts as documents: what they say, and with it everything that proves it. */
#include "client/core/ledger_receipts.h"
#include "client/report.h"
#include "client/show.h"
#include "common/base/mem.h"

#include <stdio.h>

enum { PAGE = 64 }; /* of 6 KiB at most */

static void put_hex(json_t *o, const char *name, const uint8_t *bytes, size_t size)
{
    char text[2 * FL_RECEIPT_CERT_MAX + 1];

    for (size_t i = 0; i < size && i < FL_RECEIPT_CERT_MAX; i++) {
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
    fl_report_text(o, name, size ? text : "");
}

struct gathering {
    json_t *list;
    uint64_t last;
};

static int add(void *arg, uint64_t number, uint64_t wall_ms, const struct fl_receipt_proof *p)
{
    const struct fl_receipt *x = &p->receipt;
    struct gathering *g = arg;
    char text[FL_RECEIPT_TEXT_MAX];
    json_t *o = json_object();

    g->last = number;
    fl_report_text(o, "job", x->job);
    put_hex(o, "incarnation", x->key.incarnation, FL_INCARNATION_SIZE);
    fl_report_count(o, "round", x->key.round);
    fl_report_count(o, "exchange", x->key.exchange);
    put_hex(o, "update", x->update.bytes, FL_DIGEST_SIZE);
    fl_report_count(o, "update_bytes", x->size);
    fl_report_text(o, "state", p->reason < 0 ? "wanted" : p->reason ? "none" : "kept");
    if (p->reason > 0) {
        fl_report_count(o, "reason", (uint64_t)p->reason);
        fl_report_text(o, "reason_name", fl_reason_name(p->reason));
    }
    if (p->reason == 0) {
        fl_report_count(o, "counted_in", x->round);
        fl_report_count(o, "weight", x->weight);
        put_hex(o, "record", x->record.bytes, FL_DIGEST_SIZE);
        put_hex(o, "model", x->model.bytes, FL_DIGEST_SIZE);
        fl_report_count(o, "time_ms", wall_ms);
        fl_receipt_text(x, text);
        fl_report_text(o, "text", text);
        put_hex(o, "certificate", p->certificate, p->certificate_size);
        put_hex(o, "signature", p->signature, p->signature_size);
    }
    return json_array_append_new(g->list, o);
}

json_t *fl_show_receipts(struct fl_ledger *l, const struct fl_config_agent *agent, uint64_t after,
                         struct fl_err *e)
{
    struct gathering g = {json_array(), after};
    json_t *o = NULL;

    if (fl_ledger_receipts_each(l, after, PAGE, add, &g, e) == 0) {
        o = json_object();
        fl_report_text(o, "agent", agent->name);
        fl_report_count(o, "last", g.last); /* `after` of the next page */
        json_object_set(o, "page", g.list);
    }
    json_decref(g.list);
    return o;
}
