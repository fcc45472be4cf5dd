/* Whatever file is accepted must be written again as a file that reads the same. */
#include "common/base/mem.h"
#include "common/nn/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "fuzz_tensors: %s\n", what);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fl_tensor_file *a = fl_new(1, sizeof *a), *b = fl_new(1, sizeof *b);
    struct fl_err e = {0};
    uint8_t *header = NULL;
    size_t header_size;

    if (fl_tensor_file_view(data, size, a, &e) < 0) {
        require(e.code < 0 && e.msg[0], "refused without a reason");
    } else {
        size_t bytes = a->table.elements * sizeof(float);
        require(bytes <= size, "more values than bytes");
        int r = fl_tensors_header(&a->table, a->meta, a->meta_count, &header, &header_size, &e);
        /* Escapes can make a header longer than the one that was read. */
        require(r == 0 || r == -FL_R_TENSORS, "it is not written");
        if (r == 0) {
            uint8_t *again = fl_new(header_size + bytes, 1);
            memcpy(again, header, header_size);
            memcpy(again + header_size, a->values, bytes);
            require(fl_tensor_file_view(again, header_size + bytes, b, &e) == 0, e.msg);
            require(memcmp(&a->table, &b->table, sizeof a->table) == 0, "another table");
            require(a->meta_count == b->meta_count, "other metadata");
            for (uint32_t i = 0; i < a->meta_count; i++) {
                const char *value = fl_tensor_file_meta(b, a->meta[i].key);
                require(value && strcmp(value, a->meta[i].value) == 0, "other metadata");
            }
            fl_tensor_file_close(b);
            fl_free(again);
        }
        fl_tensor_file_close(a);
    }
    fl_free(header);
    fl_free(a);
    fl_free(b);
    return 0;
}
