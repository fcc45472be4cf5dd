/* Connections: what is sent one way arrives in order, later; a broken one loses what is under way,
 * and the two ends see that at different times. */
#include "tests/sim/world.h"

#include <string.h>

struct sim_conn *net_find(struct world *w, uint64_t id)
{
    for (uint32_t i = 0; id != 0 && i < CONNS_MAX; i++) {
        if (w->conn[i].id == id) {
            return &w->conn[i];
        }
    }
    return NULL;
}

void net_forget(struct sim_conn *c)
{
    if (!c->server_knows && !c->site_knows) {
        memset(c, 0, sizeof *c);
    }
}

/* Returns 0 when the coordinator does not take it. */
uint64_t net_open(struct world *w, uint32_t site)
{
    struct sim_conn *c = NULL;

    for (uint32_t i = 0; i < CONNS_MAX && !c; i++) {
        c = w->conn[i].id == 0 ? &w->conn[i] : NULL;
    }
    if (!c) {
        sim_fail(w, "too many connections");
    }
    *c = (struct sim_conn){.id = w->next_conn++,
                           .site = site,
                           .alive = true,
                           .server_knows = true,
                           .site_knows = true,
                           .last_up = w->now,
                           .last_down = w->now};
    uint64_t id = c->id;
    if (!coordinator_accept(w, c)) {
        memset(c, 0, sizeof *c);
        return 0;
    }
    return id;
}

void net_break(struct world *w, struct sim_conn *c)
{
    struct sim_event *ev;

    if (!c->alive) {
        return;
    }
    c->alive = false;
    ev = sim_at(w, sim_delay(w, 300), EV_SERVER_CLOSED);
    ev->conn = c->id;
    ev = sim_at(w, sim_delay(w, 100), EV_SITE_CLOSED);
    ev->conn = c->id;
    ev->status = -FL_R_PEER_CLOSED;
}

static void carry(struct world *w, uint64_t conn, const struct sim_msg *m, enum sim_ev type)
{
    struct sim_conn *c = net_find(w, conn);
    uint64_t *last, at;

    if (!c || !c->alive) {
        return;
    }
    if (sim_chance(w, w->conf.breaks)) {
        net_break(w, c);
        return;
    }
    last = type == EV_UP ? &c->last_up : &c->last_down;
    at = w->now + sim_delay(w, 40);
    *last = at > *last ? at : *last;
    struct sim_event *ev = sim_at(w, *last - w->now, type);
    ev->conn = conn;
    ev->msg = *m;
}

void net_up(struct world *w, uint64_t conn, const struct sim_msg *m)
{
    carry(w, conn, m, EV_UP);
}

void net_down(struct world *w, uint64_t conn, const struct sim_msg *m)
{
    carry(w, conn, m, EV_DOWN);
}
