/*
 * replay FILE...: repeats training steps that pytorch_reference.py wrote down. A JSON line a file
 * with the largest relative differences from PyTorch in double precision, and PyTorch's own in
 * single precision ("torch_"); exit 1 when ours are out of proportion to those.
 */
#include "tests/lib/replay.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    int failed = 0;

    for (int i = 1; i < argc; i++) {
        const char *name = strrchr(argv[i], '/');
        struct replay_errors far;
        struct fl_err e = {0};
        if (replay_file(argv[i], &far, &e) < 0) {
            fprintf(stderr, "%s\n", e.msg);
            return 1;
        }
        bool ok = replay_agrees(&far, true);
        failed |= !ok;
        printf("{\"file\":\"%s\",\"first_gradient\":%.2g,\"torch_first_gradient\":%.2g,"
               "\"gradient\":%.2g,\"torch_gradient\":%.2g,\"theta\":%.2g,\"torch_theta\":%.2g,"
               "\"end\":%.2g,\"torch_end\":%.2g,\"agrees\":%s}\n",
               name ? name + 1 : argv[i], far.first_gradient, far.torch_first_gradient,
               far.gradient, far.torch_gradient, far.theta, far.torch_theta, far.end, far.torch_end,
               ok ? "true" : "false");
    }
    return failed;
}
