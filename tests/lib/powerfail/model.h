/*
 * A disk as a pessimist sees it. The model replays a journal and knows for every file and folder
 * two things: what programs see now, and what would be there for certain if the power failed now.
 *
 *   file     its bytes at the last sync, and the writes and truncations since
 *   folder   its entries at the last sync of the folder itself, and the changes since; a file's own
 *            sync says nothing about its name
 *
 * What is pending may have reached the disk or not, in any order, a write in pieces of 512 bytes. A
 * rename inside one folder is one change: old or new name, never none or both.
 *
 * After a failed sync of a file its pending bytes are clean in memory and a later sync does not
 * write them: they stay uncertain for ever. Of a folder they stay pending: a file system that keeps
 * a log of names either writes it later or refuses everything.
 */
#ifndef TESTS_LIB_POWERFAIL_MODEL_H
#define TESTS_LIB_POWERFAIL_MODEL_H

#include "tests/lib/powerfail/journal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pf_mode {
    PF_DROP,   /* nothing that is pending */
    PF_KEEP,   /* all of it: a killed program, no power failure */
    PF_PREFIX, /* of each file and folder the first so many changes */
    PF_SUBSET, /* any of them; writes torn */
    PF_META,   /* names and sizes of all, bytes of none: zeros where they should be */
    PF_MODES,
};
extern const char *const pf_mode_name[PF_MODES];

struct pf_model;

/* The folder itself has this inode. */
struct pf_model *pf_model_new(uint64_t root_inode);
void pf_model_free(struct pf_model *m);
/* One record; data follows the names in memory. Ends the program on a record that cannot be. */
void pf_model_apply(struct pf_model *m, const struct pf_record *r, const char *name,
                    const char *name2, const uint8_t *data);
/* Makes a folder (which must be empty or missing) of what survives. */
void pf_model_rebuild(const struct pf_model *m, enum pf_mode mode, uint64_t seed, const char *to);

/* For reconciling: what programs see. Calls `emit` with the records that turn it into what is
 * really in `dir`. */
void pf_model_differences(const struct pf_model *m, const char *dir,
                          void (*emit)(void *arg, const struct pf_record *r, const char *name,
                                       const uint8_t *data),
                          void *arg);

#endif
