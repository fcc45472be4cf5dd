/*
 * Files that must survive: write beside, sync, rename, sync the folder. For jobs and for the start
 * of a program.
 */
#ifndef FL_IO_FILE_H
#define FL_IO_FILE_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Replaces `path` by these bytes, durably: old or new after a crash, never a mixture. */
int fl_file_replace(const char *path, const void *data, size_t size, unsigned mode,
                    struct fl_err *e);
/* Reads a whole file of at most max bytes; *ret is freed by fl_free and has one zero byte behind
 * its end. */
int fl_file_read(const char *path, size_t max, uint8_t **ret, size_t *ret_size, struct fl_err *e);
/* Exactly `size` bytes at `offset`, or -FL_R_STORE_IO: also when the file ends before. */
int fl_file_read_at(int fd, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e);
int fl_file_sync_dir(const char *dir, struct fl_err *e);
/* mkdir -p with mode 0700 for what is new; parents synced. */
int fl_file_make_dirs(const char *dir, struct fl_err *e);
/* Removes a file; a missing one is fine. */
int fl_file_remove(const char *path, struct fl_err *e);
/* An exclusive lock on DIR/lock for the life of the process (-FL_R_STORE_LOCKED names the other's
 * pid). Returns a descriptor. */
int fl_file_lock_dir(const char *dir, int *ret_fd, struct fl_err *e);
/* -FL_R_TLS_KEYMODE / -FL_R_FILE_MODE: readable by group or others. */
int fl_file_check_private(const char *path, enum fl_reason reason, struct fl_err *e);
/* A secret that is made once: read (-FL_R_FILE_MODE when others can, -FL_R_STORE_MISMATCH when it
 * has another size), or drawn from the kernel and durable on return. */
int fl_file_secret(const char *path, uint8_t *ret, size_t size, struct fl_err *e);
/* The reason for a failed call: FL_R_DISK_FULL for ENOSPC and EDQUOT, FL_R_LIMIT when descriptors
 * or memory ran out, FL_R_STORE_IO otherwise. */
enum fl_reason fl_file_reason(int sys_errno);

#endif
