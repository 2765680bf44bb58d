#include "verdict.h"

enum { BODY_KEPT = 1 << 16 };

const char *const ERROR_NAMES[ERRORS] = {"fine",       "no_connect", "bad_status", "closed",    "timeout", "framing", "error_event", "no_done",
                                         "after_done", "chunk_count", "no_finish", "order", "usage",   "body",    "unfinished"};

void reading_reset(Reading *r) {
    lines_reset(&r->lines);
    r->body.len = 0;
    *r = (Reading){.lines = r->lines, .body = r->body};
}

static void wrong(Reading *r, Error e) {
    if (!r->error) r->error = e;
}

static void on_token(Reading *r, Text content, u64 now, Totals *t) {
    u64 stamp = strtoull(content.at, NULL, 10);
    if (stamp) {
        if (stamp < r->stamp || stamp > now) wrong(r, ORDER);
        else sample(&t->lag, now - stamp);
        r->stamp = stamp;
    }
    if (r->chunks) {
        sample(&t->gap, now - r->previous);
        t->coalesced += r->in_read > 0;
    } else {
        r->first = now;
    }
    r->previous = now;
    r->chunks++;
    r->in_read++;
    t->chunks++;
}

static void on_event_line(Reading *r, Text line, u64 now, Totals *t) {
    if (!line.len) return;
    if (!starts(line, "data: ")) {
        wrong(r, BODY);
        return;
    }
    if (r->done) wrong(r, AFTER_DONE);
    if (starts(line, "data: [DONE]")) {
        r->done = true;
        return;
    }
    if (starts(line, "data: {\"error\"")) wrong(r, ERROR_EVENT);
    Text content = after(line, "\"content\":\"");
    if (content.len && *content.at != '"') on_token(r, content, now, t);
    if (after(line, "\"finish_reason\":\"").at) r->finish = true;
    if (after(line, "\"usage\":{").at) r->usage = true;
}

void reading_take(Reading *r, const Expect *want, int status, const char *p, size_t n, u64 now, Totals *t) {
    if (!want->stream || status != 200) {
        size_t room = BODY_KEPT - r->body.len;
        buf_add(&r->body, p, n < room ? n : room);
        return;
    }
    Text line;
    for (const char *end = p + n; p < end;)
        if (next_line(&r->lines, &p, end, &line)) on_event_line(r, line, now, t);
}

Error reading_judge(const Reading *r, const Expect *want, int status) {
    if (status != 200) return BAD_STATUS;
    if (r->error) return r->error;
    if (!want->stream) {
        Text body = {r->body.at, r->body.len};
        bool whole = after(body, "\"choices\"").at && after(body, "\"content\"").at && after(body, "\"usage\"").at;
        return whole && body.at[body.len - 1] == '}' ? FINE : BODY;
    }
    if (!r->done) return NO_DONE;
    if (want->tokens >= 0 && r->chunks != want->tokens) return CHUNK_COUNT;
    if (!r->finish) return NO_FINISH;
    return r->usage == want->usage ? FINE : USAGE;
}
