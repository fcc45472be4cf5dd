/*
 * A trainer program in plain C: softmax regression, one linear layer, in a hundred lines and
 * without a library. With softmax.sh it shows that a trainer can be anything that reads and writes
 * files; the contract is deploy/docs/TRAINER.md.
 *
 *     cc -O2 -o softmax softmax.c -lm
 *     softmax EPOCHS BATCH LR SEED        in the folder the agent made; prints the answer
 *
 * What it relies on: the files have fixed names; the values of an .npy file that the agent writes
 * begin at byte 128; and a safetensors file that differs in its values only has the same header, so
 * the one that came in is changed in place and written out.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what)
{
    fprintf(stderr, "softmax: %s\n", what);
    exit(1);
}

static void *read_file(const char *path, size_t *ret_size)
{
    FILE *f = fopen(path, "rb");

    if (!f || fseek(f, 0, SEEK_END)) {
        fail(path);
    }
    long size = ftell(f);
    char *all = malloc((size_t)size + 1);
    rewind(f);
    if (!all || fread(all, 1, (size_t)size, f) != (size_t)size) {
        fail(path);
    }
    fclose(f);
    all[size] = 0;
    *ret_size = (size_t)size;
    return all;
}

/* The values of a tensor inside a safetensors file, and how many. */
static float *tensor(char *file, const char *name, size_t *ret_count)
{
    uint64_t header, from, to;
    const char *at;
    char key[80];

    memcpy(&header, file, 8);
    snprintf(key, sizeof key, "\"%s\":", name);
    if (!(at = strstr(file + 8, key)) || !(at = strstr(at, "\"data_offsets\":[")) ||
        sscanf(at + 16, "%lu,%lu", &from, &to) != 2) {
        fail(name);
    }
    *ret_count = (to - from) / 4;
    return (float *)(file + 8 + header + from);
}

/* Probabilities of one example; returns its loss. */
static double predict(const float *w, const float *b, const float *x, size_t n, size_t k, int y,
                      double *p)
{
    double most = -INFINITY, sum = 0;

    for (size_t c = 0; c < k; c++) {
        p[c] = b[c];
        for (size_t i = 0; i < n; i++) {
            p[c] += (double)w[c * n + i] * x[i];
        }
        most = fmax(most, p[c]);
    }
    for (size_t c = 0; c < k; c++) {
        sum += p[c] = exp(p[c] - most);
    }
    for (size_t c = 0; c < k; c++) {
        p[c] /= sum;
    }
    return -log(p[y] + 1e-300);
}

static double accuracy(const float *w, const float *b, const char *part, size_t n, size_t k)
{
    char path[64];
    size_t size, right = 0;
    double p[1000];

    snprintf(path, sizeof path, "%s-x.npy", part);
    const float *x = (const float *)((char *)read_file(path, &size) + 128);
    snprintf(path, sizeof path, "%s-y.npy", part);
    const int32_t *y = (const int32_t *)((char *)read_file(path, &size) + 128);
    size_t count = (size - 128) / 4;
    for (size_t i = 0; i < count; i++) {
        size_t best = 0;
        predict(w, b, x + i * n, n, k, y[i], p);
        for (size_t c = 1; c < k; c++) {
            best = p[c] > p[best] ? c : best;
        }
        right += best == (size_t)y[i];
    }
    return count ? (double)right / (double)count : 0;
}

int main(int argc, char **argv)
{
    size_t size, model_size, count, k, wk;
    double p[1000], loss = 0;

    if (argc != 5) {
        fail("usage: softmax EPOCHS BATCH LR SEED");
    }
    int epochs = atoi(argv[1]), batch = atoi(argv[2]);
    double lr = atof(argv[3]);
    char *model = read_file("shared.safetensors", &model_size);
    const float *x = (const float *)((char *)read_file("train-x.npy", &size) + 128);
    const int32_t *y = (const int32_t *)((char *)read_file("train-y.npy", &size) + 128);
    float *w = tensor(model, "fc1.weight", &wk), *b = tensor(model, "fc1.bias", &k);
    count = (size - 128) / 4;
    if (k == 0 || k > 1000 || count == 0 || batch < 1) {
        fail("nothing to train, or too many classes");
    }
    size_t n = wk / k, steps = 0, *order = calloc(count, sizeof *order);
    double *gw = calloc(wk, sizeof *gw), *gb = calloc(k, sizeof *gb);
    double received = accuracy(w, b, "test", n, k);

    srandom((unsigned)strtoul(argv[4], NULL, 16));
    for (size_t i = 0; i < count; i++) {
        order[i] = i;
    }
    for (int epoch = 0; epoch < epochs; epoch++) {
        loss = 0;
        for (size_t i = count; i > 1; i--) {
            size_t j = (size_t)random() % i, t = order[i - 1];
            order[i - 1] = order[j];
            order[j] = t;
        }
        for (size_t at = 0; at < count; at += (size_t)batch, steps++) {
            size_t m = count - at < (size_t)batch ? count - at : (size_t)batch;
            memset(gw, 0, wk * sizeof *gw);
            memset(gb, 0, k * sizeof *gb);
            for (size_t e = 0; e < m; e++) {
                const float *from = x + order[at + e] * n;
                int label = y[order[at + e]];
                loss += predict(w, b, from, n, k, label, p);
                for (size_t c = 0; c < k; c++) {
                    double d = p[c] - (c == (size_t)label);
                    gb[c] += d;
                    for (size_t i = 0; i < n; i++) {
                        gw[c * n + i] += d * from[i];
                    }
                }
            }
            for (size_t i = 0; i < wk; i++) {
                w[i] -= (float)(lr * gw[i] / (double)m);
            }
            for (size_t c = 0; c < k; c++) {
                b[c] -= (float)(lr * gb[c] / (double)m);
            }
        }
    }
    FILE *f = fopen("shared-out.safetensors", "wb");
    if (!f || fwrite(model, 1, model_size, f) != model_size || fclose(f)) {
        fail("shared-out.safetensors");
    }
    printf("{\"loss\": %.6f, \"steps\": %zu, \"accuracy_received\": %.6f, \"accuracy_trained\": "
           "%.6f}\n",
           loss / (double)count, steps, received, accuracy(w, b, "test", n, k));
    return 0;
}
