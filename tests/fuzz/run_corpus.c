/*
 * Runs a fuzz target over the files of folders, without libFuzzer: so every compiler and every
 * sanitizer sees the corpus in the ordinary tests. Each file also runs cut short, and with each
 * byte changed in turn, which is a small fuzzer of its own.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIZE_MAX_FILE = 1 << 20, CHANGED_MAX = 4096 };

static unsigned long runs;

/* In memory of exactly its size, so that a sanitizer sees a read past its end. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);

    if (!copy) {
        abort();
    }
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    runs++;
}

static void run_file(const char *path)
{
    static uint8_t data[SIZE_MAX_FILE];
    FILE *f = fopen(path, "rb");

    if (!f) {
        perror(path);
        exit(1);
    }
    size_t size = fread(data, 1, sizeof data, f);
    fclose(f);
    run(data, size);
    for (size_t i = 0; i < size && i < CHANGED_MAX; i++) {
        static const uint8_t changes[] = {0x01, 0x80, 0xff};
        run(data, i);
        for (size_t c = 0; c < sizeof changes; c++) {
            data[i] ^= changes[c];
            run(data, size);
            data[i] ^= changes[c];
        }
    }
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (!d) {
            perror(argv[i]);
            return 1;
        }
        for (struct dirent *entry; (entry = readdir(d));) {
            char path[4096];
            if (entry->d_name[0] != '.') {
                snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
                run_file(path);
            }
        }
        closedir(d);
    }
    printf("%lu runs\n", runs);
    return runs > 0 ? 0 : 1;
}
