#include "shapes.h"

static u64 calls;

// ---- the request. No JSON parser: the load generator's body has each key once, outside of strings.
static Text value(Text body, const char *key) {
    Text v = after(body, key);
    while (v.len && strchr(" \t\r\n:", *v.at)) v.at++, v.len--;
    return v;
}

bool ask_read(Ask *ask, Text body) {
    *ask = (Ask){.tokens = 16};
    Text model = value(body, "\"model\"");
    if (!model.len || *model.at != '"') return false;
    const char *end = memchr(model.at + 1, '"', model.len - 1);
    if (!end || end - model.at - 1 >= MODEL_MAX) return false;
    memcpy(ask->model, model.at + 1, (size_t)(end - model.at - 1));
    unsigned tokens = 16, gap_ms = 0, wait_ms = 0;
    const char *spec = strstr(ask->model, "bench-");
    if (spec) sscanf(spec, "bench-%5u-%5u-%5u", &tokens, &gap_ms, &wait_ms);
    ask->tokens = tokens ? (int)tokens : 1;
    ask->gap_ns = gap_ms * MS;
    ask->wait_ns = wait_ms * MS;
    ask->stream = starts(value(body, "\"stream\""), "true");
    ask->usage = starts(value(body, "\"include_usage\""), "true");
    calls++;
    return true;
}

// ---- heads
static const char *date(void) {
    static char text[64];
    static time_t at;
    time_t t = time(NULL);
    if (t != at) {
        struct tm g;
        at = t;
        strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &g));
    }
    return text;
}

// length < 0: chunked
size_t http_head(char *out, size_t room, int status, const char *type, long length, bool close) {
    char framing[64];
    if (length < 0) strcpy(framing, "transfer-encoding: chunked");
    else snprintf(framing, sizeof framing, "content-length: %ld", length);
    const char *reason = status == 200 ? "OK" : status == 404 ? "Not Found" : "Bad Request";
    return (size_t)snprintf(out, room, "HTTP/1.1 %d %s\r\ndate: %s\r\nserver: uvicorn\r\ncontent-type: %s\r\n%s%s\r\n\r\n",
                            status, reason, date(), type, framing, close ? "\r\nconnection: close" : "");
}

// ---- bodies
static void call_id(char *out, size_t room) { snprintf(out, room, "chatcmpl-%016llx", (ull)(calls * 0x9e3779b97f4a7c15ull)); }

size_t unary_body(char *out, size_t room, const Ask *ask) {
    static const char text[] = "Rivers carry what the hills let go of. In spring the water is brown and quick, "
                               "in August it is clear enough to count the stones.";
    char id[40];
    call_id(id, sizeof id);
    return (size_t)snprintf(
        out, room,
        "{\"id\":\"%s\",\"object\":\"chat.completion\",\"created\":%lld,\"model\":\"%s\",\"choices\":[{\"index\":0,"
        "\"message\":{\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null,\"annotations\":null,\"audio\":null,"
        "\"function_call\":null,\"reasoning\":null},\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null,"
        "\"token_ids\":null,\"routed_experts\":null}],\"service_tier\":null,\"system_fingerprint\":\"bench\","
        "\"usage\":{\"prompt_tokens\":96,\"total_tokens\":128,\"completion_tokens\":32,\"prompt_tokens_details\":null,"
        "\"completion_tokens_details\":null},\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"kv_transfer_params\":null}",
        id, (long long)time(NULL), ask->model, text);
}

size_t models_body(char *out, size_t room) {
    static const char *names[] = {"bench-64-0", "bench-100-10", "bench-300-100"};
    size_t n = (size_t)snprintf(out, room, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        n += (size_t)snprintf(out + n, room - n,
                              "%s{\"id\":\"%s\",\"object\":\"model\",\"created\":1795375800,\"owned_by\":\"vllm\",\"root\":\"%s\","
                              "\"parent\":null,\"max_model_len\":32768,\"permission\":[]}",
                              i ? "," : "", names[i], names[i]);
    return n + (size_t)snprintf(out + n, room - n, "]}");
}

// ---- events
void shape_start(Shape *s, const Ask *ask) {
    char id[40];
    call_id(id, sizeof id);
    s->tokens = ask->tokens;
    s->head_len = (size_t)snprintf(s->head, sizeof s->head,
                                   "data: {\"id\":\"%s\",\"object\":\"chat.completion.chunk\",\"created\":%lld,\"model\":\"%s\",\"choices\":[",
                                   id, (long long)time(NULL), ask->model);
}

// The chunk's size line, head + tail, the chunk's end: what uvicorn writes for one event.
static size_t event(char *out, const char *head, size_t head_len, const char *tail, size_t tail_len) {
    size_t n = (size_t)sprintf(out, "%zx\r\n", head_len + tail_len);
    memcpy(out + n, head, head_len);
    memcpy(out + n + head_len, tail, tail_len);
    n += head_len + tail_len;
    memcpy(out + n, "\r\n", 2);
    return n + 2;
}

size_t role_event(char *out, const Shape *s) {
    static const char tail[] = "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                               "\"finish_reason\":null}],\"prompt_token_ids\":null,\"prompt_text\":null}\n\n";
    return event(out, s->head, s->head_len, tail, sizeof tail - 1);
}

// The text of a token is the instant at which it is written, in ns.
size_t token_event(char *out, const Shape *s, bool last) {
    char tail[320];
    size_t n = (size_t)snprintf(tail, sizeof tail, "{\"index\":0,\"delta\":{\"content\":\" %llu\"},\"logprobs\":null,\"finish_reason\":%s,\"token_ids\":null}]%s}\n\n",
                                (ull)now_ns(), last ? "\"length\",\"stop_reason\":null" : "null", last ? ",\"system_fingerprint\":\"bench\"" : "");
    return event(out, s->head, s->head_len, tail, n);
}

size_t usage_event(char *out, const Shape *s) {
    char tail[160];
    size_t n = (size_t)snprintf(tail, sizeof tail, "],\"usage\":{\"prompt_tokens\":96,\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n", 96 + s->tokens, s->tokens);
    return event(out, s->head, s->head_len, tail, n);
}

size_t done_event(char *out) { return event(out, "data: [DONE]\n\n", 14, "", 0); }
