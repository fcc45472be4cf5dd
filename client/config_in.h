/* What the parts of the configuration's reader share. For this folder only. */
#ifndef CLIENT_CONFIG_IN_H
#define CLIENT_CONFIG_IN_H

#include "client/config.h"
#include "common/base/conf.h"

#include <stddef.h>

/* An entry of agents: while it is being read. Decoding writes only what is given, so decoding
 * `defaults` and then the entry into the same struct is the merge. */
struct entry {
    struct fl_config_agent agent;
    uint32_t count, first;
    double train, test; /* data: so many examples, or below 1 such a part of them */
    char client[64], window[16];
    const struct fl_conf_node *jobs, *columns;
    struct fl_budget privacy;
    unsigned noise; /* of the budget: an fl_noise_place */
};

#define AT(type, member)   .offset = offsetof(type, member)
#define TEXT(type, member) AT(type, member), .size = sizeof(((type *)0)->member)

/* The keys of `data:`; offsets are of struct entry. */
extern const struct fl_conf_field fl_config_data_fields[];
/* The keys of `trainer:`. */
extern const struct fl_conf_field fl_config_trainer_fields[];
/* `columns:` of data. */
int fl_config_data_columns(const struct fl_conf_node *map, struct fl_data_source *d,
                           struct fl_err *e);
/* Takes its sizes into the agent's data; the rules between its keys. Messages point at `at`. */
int fl_config_data_check(const struct fl_conf_node *at, struct entry *en, struct fl_err *e);

#endif
