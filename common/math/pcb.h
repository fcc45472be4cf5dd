/*
 * PCB merging (Du et al. 2024, arXiv 2410.02396): several models of one shape become one, without
 * any data. What each of n models moved away from a common base, its task vector t_i, competes for
 * every coordinate: with the rest of its own vector and with the others'.
 *
 *     outliers   |t_i| is cut to its order statistics `outliers` from below and above: a_i, and
 * with its sign u_i m_i        a_i from 0, its least, to 1, its largest; s_i = sign(t_i) m_i intra
 * A_i = exp(n m_i^2) inter      B_i = sum over j of tanh(s_i s_j) rank       beta_i = A_i B_i; all
 * but the largest `keep` of a vector's are dropped, the others become g_i, from 0 to 1 rescale sum
 * over i of scale_i g_i u_i / sum over i of g_i, 0 where nobody is left
 *
 * B is the normalised form that the authors use for vision models. Their other one, tanh(t_i sum_j
 * t_j), depends on the unit: of updates as small as those of a round it leaves signs only.
 *
 * Order statistics of a whole vector are found by two passes over its values as sorted integers, by
 * halves of 16 bits, so that memory is that of a tile and of `vectors` counters, whatever the size
 * of the model; the vectors are read five times. All in a fixed order: the same bits each time.
 *
 * It bounds nothing: a vector that is far too long wins where it likes. Bound norms before.
 */
#ifndef FL_MATH_PCB_H
#define FL_MATH_PCB_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { FL_PCB_VECTORS_MAX = 64 };
#define FL_PCB_OUTLIERS 1e-4

struct fl_pcb_terms {
    uint32_t vectors; /* 1 to FL_PCB_VECTORS_MAX */
    size_t elements;  /* of each, 1 to UINT32_MAX */
    size_t tile;      /* most values asked for at once */
    double keep;      /* (0, 1] */
    double outliers;  /* [0, 0.5) */
    double scale[FL_PCB_VECTORS_MAX];
    /* Values [first, first + count) of all vectors, finite: vector i's at to + i * tile. */
    int (*read)(void *arg, size_t first, size_t count, double *to, struct fl_err *e);
    void *arg;
};

struct fl_pcb;

/* All passes but the last. -FL_R_NOMEM, and what `read` says. Freed by fl_pcb_free. */
int fl_pcb_new(const struct fl_pcb_terms *terms, struct fl_pcb **ret, struct fl_err *e);
void fl_pcb_free(struct fl_pcb *p);
/* Values [first, first + count), at most a tile, of the merged task vector: add them to the base's.
 */
int fl_pcb_values(struct fl_pcb *p, size_t first, size_t count, double *ret, struct fl_err *e);

#endif
