// Deadlines in a binary heap: the earliest is timers.at[0].
#pragma once
#include "common.h"

typedef struct Timer {
    u64 due;    // ns
    size_t pos; // 1-based place in the heap, 0: not set
} Timer;

static struct {
    Timer **at;
    size_t n, cap;
} timers;

static inline void timer_place(Timer *t, size_t i) {
    timers.at[i] = t;
    t->pos = i + 1;
}

static inline void timer_rise(size_t i) {
    Timer *t = timers.at[i];
    while (i && timers.at[(i - 1) / 2]->due > t->due) {
        timer_place(timers.at[(i - 1) / 2], i);
        i = (i - 1) / 2;
    }
    timer_place(t, i);
}

static inline void timer_sink(size_t i) {
    Timer *t = timers.at[i];
    for (;;) {
        size_t kid = 2 * i + 1;
        if (kid + 1 < timers.n && timers.at[kid + 1]->due < timers.at[kid]->due) kid++;
        if (kid >= timers.n || timers.at[kid]->due >= t->due) break;
        timer_place(timers.at[kid], i);
        i = kid;
    }
    timer_place(t, i);
}

static inline void timer_clear(Timer *t) {
    if (!t->pos) return;
    size_t i = t->pos - 1;
    t->pos = 0;
    Timer *last = timers.at[--timers.n];
    if (last == t) return;
    timer_place(last, i);
    timer_rise(i);
    timer_sink(last->pos - 1);
}

static inline void timer_set(Timer *t, u64 due) {
    timer_clear(t);
    t->due = due;
    if (timers.n == timers.cap) {
        timers.cap = timers.cap ? timers.cap * 2 : 256;
        timers.at = realloc(timers.at, timers.cap * sizeof *timers.at);
        if (!timers.at) die("realloc");
    }
    timer_place(t, timers.n++);
    timer_rise(timers.n - 1);
}

static inline u64 timer_next(void) { return timers.n ? timers.at[0]->due : NEVER; }
