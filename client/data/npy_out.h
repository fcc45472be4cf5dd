/*
 * NumPy .npy out: what an agent holds, for programs that are not ours (deploy/docs/DATA.md).
 */
#ifndef CLIENT_DATA_NPY_OUT_H
#define CLIENT_DATA_NPY_OUT_H

#include "client/data/dataset.h"

#include <stddef.h>
#include <stdint.h>

/* Writes `count` little-endian values of 4 bytes in C order: `type` is "<f4" or "<i4", `shape` has
 * `rank` (0 to 4) sizes whose product is count. Version 1, as numpy.save. -FL_R_STORE_IO,
 * -FL_R_DISK_FULL; what was there before is replaced. */
int fl_npy_save(const char *path, const char *type, uint32_t rank, const uint32_t *shape,
                const void *values, struct fl_err *e);

/* FOLDER/NAME-{train,validation,test}-{x,y}.npy, parts without examples left out: x as the trainer
 * is given it, before the job's mean and std, [n, features] or [n, channels, rows, columns] floats;
 * y [n] class numbers, or [n, width] floats. Memory: one example, and a part's class numbers or
 * targets. The folder is there. */
int fl_npy_save_dataset(const char *folder, const char *name, const struct fl_dataset *d,
                        struct fl_err *e);

#endif
