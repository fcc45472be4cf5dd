/*
 * The journal of one folder: everything that changed it, in order, as the shim saw it and the model
 * replays it. Files and folders are named by their inode at the time; a record is this header, then
 * the names, then the data. Native byte order: it never leaves the machine.
 */
#ifndef TESTS_LIB_POWERFAIL_JOURNAL_H
#define TESTS_LIB_POWERFAIL_JOURNAL_H

#include <stdint.h>

enum { PF_MAGIC = 0x50664a31, PF_NAME_MAX = 255 };

enum pf_op {
    PF_CREATE = 1,  /* parent, name, inode; offset: 1 for a folder */
    PF_LINK,        /* parent, name, inode */
    PF_UNLINK,      /* parent, name (rmdir too) */
    PF_RENAME,      /* parent, name -> parent2, name2 */
    PF_WRITE,       /* inode, offset, data */
    PF_TRUNCATE,    /* inode; offset: new size */
    PF_SYNC,        /* inode: file or folder; durable from here */
    PF_SYNC_FAILED, /* inode: pending bytes will not become durable by a later sync */
    PF_NOTE,        /* data: a line by the program; facts it has promised to somebody */
};

struct pf_record {
    uint32_t magic, op;
    uint64_t inode, parent, parent2, offset, size;
    uint32_t name, name2; /* lengths */
};

/* What a program under the shim may call (declare it weak: without the shim it is not there). */

/* Appends a note. */
void powerfail_note(const char *line);
/* Arms one fault, as POWERFAIL_FAIL does; NULL disarms. Counting begins now. */
void powerfail_fail(const char *spec);
/* How often the armed fault has struck. */
unsigned long powerfail_struck(void);

#endif
