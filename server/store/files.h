/*
 * The bytes beside the database: where uploads and checkpoints live, how much they may take, and
 * how they go away. Every file has a slot here, so that the quota is counted without asking the
 * disk; slots are memory only and made again from records and folders at open.
 */
#ifndef SERVER_STORE_FILES_H
#define SERVER_STORE_FILES_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/wire/ids.h"
#include "server/store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FL_FILES_ENSURED = 16 };
#define FL_FILE_CHECKPOINT UINT32_MAX

/* One upload of an agent, or (exchange = FL_FILE_CHECKPOINT, agent = 0) one checkpoint. */
struct fl_file_key {
    uint8_t incarnation[FL_INCARNATION_SIZE];
    uint64_t round, agent;
    uint32_t exchange;
    uint32_t zero; /* compared as bytes */
};

struct fl_file_slot;

struct fl_files {
    const char *dir;
    uint64_t limit; /* 0 = none */
    uint64_t bytes;
    uint32_t uploads;
    struct fl_file_slot *slots;                        /* a hash table */
    char ensured[FL_FILES_ENSURED][FL_STORE_PATH_MAX]; /* folders known to be durable */
    uint32_t next_ensured;
};

struct fl_file_key fl_file_key(const uint8_t incarnation[FL_INCARNATION_SIZE], uint64_t round,
                               uint32_t exchange, uint64_t agent);
void fl_files_folder(const struct fl_files *f, const struct fl_file_key *key,
                     char ret[FL_STORE_PATH_MAX]);
void fl_files_name(const struct fl_file_key *key, const struct fl_digest *digest,
                   char ret[FL_STORE_NAME_MAX]);
void fl_files_path(const struct fl_files *f, const struct fl_file_key *key,
                   const struct fl_digest *digest, char ret[FL_STORE_PATH_MAX]);

/* Makes the folder of this key, durably: its parents' entries are synced even when it is there
 * already, since whoever made it may have been killed before syncing. */
int fl_files_ensure(struct fl_files *f, const struct fl_file_key *key, struct fl_err *e);

/* Sets `size` bytes aside for this file. A slot of another digest is replaced and its
 * uncommitted bytes are removed (-FL_R_UPDATE_CONFLICT when it is committed). -FL_R_QUOTA,
 * -FL_R_LIMIT, -FL_R_NOMEM. `forced`: the bytes are there already, whatever the quota says. */
int fl_files_take(struct fl_files *f, const struct fl_file_key *key, const struct fl_digest *digest,
                  uint64_t size, bool forced, struct fl_err *e);
/* From now on the database names this file. */
void fl_files_committed(struct fl_files *f, const struct fl_file_key *key);
/* Is there a slot with this digest, and did a record name it? */
bool fl_files_has(const struct fl_files *f, const struct fl_file_key *key,
                  const struct fl_digest *digest, bool *ret_committed, uint64_t *ret_size);
/* Removes every file of the incarnation that `goes` says goes, and folders left empty. Best effort:
 * what stays behind is swept at the next open. */
void fl_files_remove(struct fl_files *f, const uint8_t incarnation[FL_INCARNATION_SIZE],
                     bool (*goes)(void *arg, const struct fl_file_key *key,
                                  const struct fl_digest *digest),
                     void *arg);
/* Committed uploads of this published round stay to be replayed: they are no open uploads any more.
 */
void fl_files_retain(struct fl_files *f, const uint8_t incarnation[FL_INCARNATION_SIZE],
                     uint64_t round);
void fl_files_retained(struct fl_files *f, const struct fl_file_key *key);
void fl_files_drop(struct fl_files *f, const struct fl_file_key *key,
                   const struct fl_digest *digest);
int fl_files_room(const struct fl_files *f, uint64_t more, struct fl_err *e);
void fl_files_fini(struct fl_files *f);

/* 0 when a regular file of exactly this size is there; -FL_R_STORE_MISMATCH otherwise. */
int fl_files_has_size(const char *path, uint64_t size, struct fl_err *e);
/* Reads it all; -FL_R_STORE_MISMATCH when size or digest differ. */
int fl_files_verify(const char *path, uint64_t size, const struct fl_digest *digest,
                    struct fl_err *e);
/* Writes the pieces to `path`, which must not be there for any reader, and syncs it. */
int fl_files_write(const char *path, const struct fl_store_bytes *from, struct fl_digest *ret,
                   struct fl_err *e);

/* Walks STATE/spool and STATE/models and removes what has no slot. A part is asked for: `wanted`
 * answers 1 to keep it (it then gets a slot), 0 to remove it, or an error. */
int fl_files_sweep(struct fl_files *f,
                   int (*wanted)(void *arg, const struct fl_file_key *key, struct fl_err *e),
                   void *arg, struct fl_err *e);

#endif
