// What an answer must be: counts the events of a stream, looks at each, and names what is wrong.
#pragma once
#include "answer.h"
#include "samples.h"

// Order of ERROR_NAMES in verdict.c.
typedef enum { FINE, NO_CONNECT, BAD_STATUS, CLOSED, TIMEOUT, FRAMING, ERROR_EVENT, NO_DONE, AFTER_DONE, CHUNK_COUNT, NO_FINISH, ORDER, USAGE, BODY, UNFINISHED, ERRORS } Error;
extern const char *const ERROR_NAMES[ERRORS];

typedef struct {
    bool stream, usage; // usage: the usage event was asked for
    int tokens;         // content events that a stream must have; -1: any number
} Expect;

typedef struct {
    int chunks, in_read;
    bool done, finish, usage;
    Error error; // the first thing seen to be wrong
    u64 first, previous, stamp;
    Lines lines; // of a stream
    Buf body;    // of a unary answer or an error, cut at BODY_KEPT
} Reading;

typedef struct {
    Samples latency, ttft, gap, span, lag;
    ull chunks, coalesced; // coalesced: content events that came in one read with the one before
} Totals;

void reading_reset(Reading *r);
void reading_take(Reading *r, const Expect *want, int status, const char *p, size_t n, u64 now, Totals *t);
Error reading_judge(const Reading *r, const Expect *want, int status);
