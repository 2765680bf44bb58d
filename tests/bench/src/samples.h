// Many measured values and their percentiles, in µs.
#pragma once
#include "common.h"

typedef struct {
    float *at;
    size_t n, cap;
} Samples;

static inline void sample(Samples *s, u64 ns) {
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 8192;
        s->at = realloc(s->at, s->cap * sizeof *s->at);
        if (!s->at) die("realloc");
    }
    s->at[s->n++] = (float)ns / 1e3f;
}

static inline int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static inline double percentile(const Samples *s, double q) { return s->n ? (double)s->at[(size_t)((double)(s->n - 1) * q + 0.5)] : 0.0; }

static inline void samples_print(const char *name, Samples *s) {
    if (s->n) qsort(s->at, s->n, sizeof *s->at, by_size);
    printf("\"%s\":{\"n\":%zu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f},", name, s->n, percentile(s, .5), percentile(s, .9), percentile(s, .99),
           percentile(s, 1));
}
