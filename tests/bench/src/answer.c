#include "answer.h"

enum { LINE_LIMIT = 1 << 16 };

void answer_reset(Answer *a) {
    lines_reset(&a->lines);
    *a = (Answer){.part = STATUS, .lines = a->lines};
}

static void on_status(Answer *a, Text line) {
    Text code = after(line, " ");
    a->status = starts(line, "HTTP/1.") && code.len >= 3 ? atoi(code.at) : 0;
    a->close = starts(line, "HTTP/1.0");
    a->part = a->status ? HEADERS : BROKEN;
}

static void on_header(Answer *a, Text line) {
    if (starts(line, "content-length:")) a->sized = true, a->left = strtoull(line.at + 15, NULL, 10);
    else if (starts(line, "transfer-encoding:")) a->chunked = after(line, "chunked").at;
    else if (starts(line, "connection:") && after(line, "close").at) a->close = true;
}

static void on_head_end(Answer *a) {
    if (a->status == 100) a->part = STATUS;
    else if (a->chunked) a->part = CHUNK_SIZE;
    else if (!a->sized) a->part = UNTIL_CLOSE, a->close = true;
    else a->part = a->left ? FIXED : WHOLE;
}

static void on_size(Answer *a, Text line) {
    char *end;
    a->left = line.len ? strtoull(line.at, &end, 16) : 0;
    if (!line.len || end == line.at || a->left > 1u << 28) a->part = BROKEN;
    else a->part = a->left ? CHUNK : TRAILERS;
}

static void on_line(Answer *a, Text line) {
    if (a->part == STATUS) on_status(a, line);
    else if (a->part == HEADERS && line.len) on_header(a, line);
    else if (a->part == HEADERS) on_head_end(a);
    else if (a->part == CHUNK_SIZE) on_size(a, line);
    else if (a->part == CHUNK_END) a->part = line.len ? BROKEN : CHUNK_SIZE;
    else if (a->part == TRAILERS && !line.len) a->part = WHOLE;
}

void answer_feed(Answer *a, const char *p, size_t n, Sink *sink, void *owner) {
    const char *end = p + n;
    while (p < end && a->part != BROKEN) {
        if (a->part == WHOLE) {
            a->part = BROKEN; // nothing was asked for that could come now
        } else if (a->part == FIXED || a->part == CHUNK || a->part == UNTIL_CLOSE) {
            size_t k = (size_t)(end - p);
            if (a->part != UNTIL_CLOSE && k > a->left) k = a->left;
            sink(owner, p, k);
            p += k;
            if (a->part == UNTIL_CLOSE) continue;
            a->left -= k;
            if (!a->left) a->part = a->part == CHUNK ? CHUNK_END : WHOLE;
        } else {
            Text line;
            if (next_line(&a->lines, &p, end, &line)) on_line(a, line);
            else if (a->lines.held.len > LINE_LIMIT) a->part = BROKEN;
        }
    }
}
