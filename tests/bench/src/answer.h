// An HTTP/1.1 response, read as it comes: status, framing, and the body's bytes handed on.
#pragma once
#include "common.h"

// Lines out of a byte stream; the start of an unfinished one is held.
typedef struct {
    Buf held;
    bool spent; // the held line was handed out and can go
} Lines;

// True when `line` is a whole line (its end cut off); `*p` moves on. Valid until the next call.
static inline bool next_line(Lines *l, const char **p, const char *end, Text *line) {
    if (l->spent) l->held.len = 0, l->spent = false;
    const char *nl = *p < end ? memchr(*p, '\n', (size_t)(end - *p)) : NULL;
    size_t n = (size_t)((nl ? nl : end) - *p);
    if (!nl || l->held.len) buf_add(&l->held, *p, n);
    *line = l->held.len ? (Text){l->held.at, l->held.len} : (Text){*p, n};
    l->spent = nl && l->held.len;
    *p = nl ? nl + 1 : end;
    if (line->len && line->at[line->len - 1] == '\r') line->len--;
    return nl;
}

static inline void lines_reset(Lines *l) { l->held.len = 0, l->spent = false; }

typedef enum { STATUS, HEADERS, FIXED, UNTIL_CLOSE, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILERS, WHOLE, BROKEN } Part;

typedef struct {
    Part part;
    int status;
    bool close; // the connection ends with this answer
    bool chunked, sized;
    u64 left;
    Lines lines;
} Answer;

typedef void Sink(void *owner, const char *p, size_t n);

void answer_reset(Answer *a);
// Reads n bytes; body bytes go to sink(owner, ...). Ends in WHOLE or BROKEN (also for bytes after the end).
void answer_feed(Answer *a, const char *p, size_t n, Sink *sink, void *owner);
