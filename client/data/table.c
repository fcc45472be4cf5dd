#include "client/data/table.h"

#include "common/base/mem.h"

#include <string.h>

size_t fl_table_features(const struct fl_table *t)
{
    return (size_t)t->shape[0] * t->shape[1] * t->shape[2];
}

void fl_table_fini(struct fl_table *t)
{
    if (t) {
        fl_free(t->y);
        fl_free(t->target);
        fl_free(t->client);
        fl_free(t->series);
        fl_free(t->line);
        fl_free(t->time);
        fl_free(t->records);
        memset(t, 0, sizeof *t);
    }
}
