/* Wishes become items, as many as the list holds. The essay is in round.c. */
#include "server/core/round_state.h"

#include "common/base/mem.h"

static struct fl_round_item *item(const struct fl_round *r, struct fl_round_todo *todo,
                                  enum fl_round_do type, uint32_t exchange)
{
    if (todo->count == FL_ROUND_TODO_MAX) {
        todo->more = true;
        return NULL;
    }
    struct fl_round_item *it = &todo->item[todo->count++];
    *it = (struct fl_round_item){.type = type, .round = fl_round_number(r), .exchange = exchange};
    return it;
}

static const struct {
    unsigned want;
    enum fl_round_do type;
} member_items[] = {
    {FL_MEMBER_WANT_ENLIST, FL_ROUND_DO_ENLIST},   {FL_MEMBER_WANT_INVITE, FL_ROUND_DO_INVITE},
    {FL_MEMBER_WANT_RECEIVE, FL_ROUND_DO_RECEIVE}, {FL_MEMBER_WANT_RECORD, FL_ROUND_DO_RECORD},
    {FL_MEMBER_WANT_ACK, FL_ROUND_DO_ACK},         {FL_MEMBER_WANT_FOLD, FL_ROUND_DO_FOLD},
    {FL_MEMBER_WANT_REFUSE, FL_ROUND_DO_REFUSE},   {FL_MEMBER_WANT_DROP, FL_ROUND_DO_DROP},
};

static void emit_member(struct fl_round *r, struct fl_round_todo *todo, uint32_t exchange,
                        struct fl_member *m)
{
    struct fl_exchange *x = &r->frame->at[exchange];

    for (size_t i = 0; i < FL_COUNT(member_items); i++) {
        if (!(m->want & member_items[i].want)) {
            continue;
        }
        if (member_items[i].want == FL_MEMBER_WANT_FOLD && x->spoilt) {
            fl_members_unwant(&x->members, m, FL_MEMBER_WANT_FOLD); /* comes again with REFOLD */
            continue;
        }
        struct fl_round_item *it = item(r, todo, member_items[i].type, exchange);
        if (!it) {
            return;
        }
        it->agent = m->agent;
        it->base = m->base;
        it->size = m->size;
        it->weight = m->weight;
        it->digest = m->digest;
        if (it->type == FL_ROUND_DO_FOLD) {
            m->folding = true;
            x->folding++;
        }
        if (it->type == FL_ROUND_DO_REFUSE || it->type == FL_ROUND_DO_DROP) {
            it->reason = m->tell;
        }
        fl_members_unwant(&x->members, m, member_items[i].want);
    }
}

static const struct {
    unsigned want;
    enum fl_round_do type;
} round_items[] = {
    {FL_ROUND_WANT_RETRY, FL_ROUND_DO_RETRY},     {FL_ROUND_WANT_OPEN, FL_ROUND_DO_OPEN},
    {FL_ROUND_WANT_CLOSE, FL_ROUND_DO_CLOSE},     {FL_ROUND_WANT_FINISH, FL_ROUND_DO_FINISH},
    {FL_ROUND_WANT_PUBLISH, FL_ROUND_DO_PUBLISH}, {FL_ROUND_WANT_PAUSED, FL_ROUND_DO_PAUSED},
    {FL_ROUND_WANT_DONE, FL_ROUND_DO_DONE},
};

void fl_round_emit(struct fl_round *r, uint64_t agent, struct fl_round_todo *todo)
{
    if (r->has_direct) {
        todo->item[todo->count++] = r->direct;
        r->has_direct = false;
    }
    if (r->want & FL_ROUND_WANT_REFOLD) {
        item(r, todo, FL_ROUND_DO_REFOLD, r->exchange);
        r->want &= ~(unsigned)FL_ROUND_WANT_REFOLD;
    }
    for (uint32_t k = 0; k < r->frame->rules.exchange_count; k++) {
        struct fl_members *m = &r->frame->at[k].members;
        struct fl_member *own = m->wanting > 0 ? fl_members_find(m, agent) : NULL;
        if (own) {
            emit_member(r, todo, k, own);
        }
        for (uint32_t i = 0; i < m->count && m->wanting > 0 && !todo->more; i++) {
            emit_member(r, todo, k, &m->at[i]);
        }
    }
    for (size_t i = 0; i < FL_COUNT(round_items) && !todo->more; i++) {
        if (!(r->want & round_items[i].want)) {
            continue;
        }
        struct fl_round_item *it = item(r, todo, round_items[i].type, r->exchange);
        if (!it) {
            return;
        }
        it->reason = it->type == FL_ROUND_DO_RETRY    ? -FL_R_QUORUM
                     : it->type == FL_ROUND_DO_FINISH ? r->given_up
                                                      : r->reason;
        it->digest = r->checkpoint;
        it->count = r->attempt;
        if (it->type == FL_ROUND_DO_DONE) {
            it->round = r->published;
        }
        if (it->type == FL_ROUND_DO_CLOSE) {
            it->members = fl_round_at(r)->list;
            it->count = fl_round_at(r)->list_count;
        }
        r->want &= ~round_items[i].want;
    }
}
