/* What both sides of a keeper agree on. For keeper.c and keeper_run.c only. */
#ifndef FL_IO_KEEPER_IN_H
#define FL_IO_KEEPER_IN_H

#define FL_KEEPER_WORD "--keep-a-program"
enum { FL_KEEPER_STATUS = 3 }; /* the descriptor on which a keeper reports */

#endif
