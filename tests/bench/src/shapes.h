// The JSON and the HTTP heads of a vLLM server, as far as a benchmark needs them.
#pragma once
#include "common.h"

enum { MODEL_MAX = 96, EVENT_MAX = 1024 };

// What one chat call asks for; read from its body by ask_read.
typedef struct {
    char model[MODEL_MAX];
    int tokens;          // content events of a stream
    u64 gap_ns, wait_ns; // between two tokens; before the first one
    bool stream, usage;
} Ask;

// A stream under way: `head` is the part of every event that does not change.
typedef struct {
    char head[320];
    size_t head_len;
    int tokens;
} Shape;

bool ask_read(Ask *ask, Text body); // false: no model
size_t http_head(char *out, size_t room, int status, const char *type, long length, bool close);
size_t unary_body(char *out, size_t room, const Ask *ask);
void shape_start(Shape *s, const Ask *ask);
// Each writes one SSE event inside one HTTP chunk and gives its length; `out` has EVENT_MAX bytes.
size_t role_event(char *out, const Shape *s);
size_t token_event(char *out, const Shape *s, bool last);
size_t usage_event(char *out, const Shape *s);
size_t done_event(char *out);
size_t models_body(char *out, size_t room);
