/*
 * Files whose examples all have the same length: IDX, CIFAR, NumPy. A reader finds out where they
 * begin and what a value is; reading them is the same for all.
 *
 * Streamed (plain or gzip, a block in memory), or left where they are and read one by one with
 * pread, for data larger than memory. Not mapped: a mapped file that somebody shortens kills the
 * process with SIGBUS, a short pread is an error with a name. And a file that somebody rewrites in
 * place would be other people's data under the name of the first: so each example that stays in its
 * file leaves a sum of 64 bits in memory, taken from the bytes that the data set's identity is made
 * of, and is compared with it whenever it is read.
 */
#ifndef CLIENT_DATA_RECORDS_H
#define CLIENT_DATA_RECORDS_H

#include "client/data/dataset.h"

enum { FL_RECORDS_FILES_MAX = 8 };

enum fl_value { FL_VALUE_U8, FL_VALUE_I32, FL_VALUE_I64, FL_VALUE_F32, FL_VALUE_F64 };

struct fl_records {
    uint32_t files;
    struct {
        char path[512];
        uint64_t base; /* bytes before the first record */
        uint32_t rows;
        bool packed; /* gzip */
    } file[FL_RECORDS_FILES_MAX];
    size_t record, skip; /* bytes of a record, and of what comes before its features */
    enum fl_value value; /* little-endian */
    float divide;        /* 255 for pixels, else 1 */
};

struct fl_wanted;

size_t fl_value_size(enum fl_value v);
/* `count` values as floats. */
void fl_value_floats(enum fl_value v, const unsigned char *from, size_t count, float divide,
                     float *to);

/* Reads what is wanted and the whole of the files with it, so that one which ends early is noticed.
 * A value that is not finite: -FL_R_DATA_VALUE naming row and place. */
int fl_records_read(const struct fl_records *r, size_t features, const struct fl_wanted *wanted,
                    struct fl_err *e);

/* True when the files can be read one example at a time (none of them is gzip). */
bool fl_records_direct(const struct fl_records *r);
/* Examples that stay in these files: example i is row rows[i]. `rows` is copied. The sums are to be
 * filled by fl_records_read; an example read that does not fit is -FL_R_DATA_CHANGED. */
int fl_records_store(const struct fl_records *r, size_t features, const uint32_t *rows,
                     uint32_t count, struct fl_examples *ret, struct fl_err *e);

/* Examples that overlap in memory: example i is the `features` floats from base + starts[i] on.
 * Takes starts; base must outlive it. */
int fl_windows_store(const float *base, size_t features, size_t *starts, struct fl_examples *ret,
                     struct fl_err *e);

uint64_t *fl_stored_sums(struct fl_stored *s);
void fl_stored_free(struct fl_stored *s);

#endif
