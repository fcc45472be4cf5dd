#include "server/ctl/signflip.h"

#include "common/base/rng.h"

enum { EXACT_MAX = 20, DRAWS = 200000 };

static double exact(const double *d, uint32_t n, double sum)
{
    uint64_t all = UINT64_C(1) << n, as_large = 0;

    for (uint64_t signs = 0; signs < all; signs++) {
        double s = 0;
        for (uint32_t i = 0; i < n; i++) {
            s += signs >> i & 1 ? -d[i] : d[i];
        }
        as_large += s >= sum - 1e-12;
    }
    return (double)as_large / (double)all;
}

static double drawn(const double *d, uint32_t n, double sum)
{
    struct fl_seed seed;
    struct fl_rng rng;
    uint32_t as_large = 1; /* the signs that were observed */

    fl_seed_from_u64(1, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (uint32_t k = 0; k < DRAWS; k++) {
        double s = 0;
        uint64_t signs = 0;
        for (uint32_t i = 0; i < n; i++) {
            signs = i % 32 ? signs >> 1 : fl_rng_below(&rng, UINT64_C(1) << 32);
            s += signs & 1 ? -d[i] : d[i];
        }
        as_large += s >= sum - 1e-12;
    }
    fl_rng_fini(&rng);
    return (double)as_large / (DRAWS + 1);
}

double fl_sign_flip(const double *difference, uint32_t count)
{
    double sum = 0;

    for (uint32_t i = 0; i < count; i++) {
        sum += difference[i];
    }
    return count == 0           ? 1
           : count <= EXACT_MAX ? exact(difference, count, sum)
                                : drawn(difference, count, sum);
}
