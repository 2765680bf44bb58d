// A stub of a vLLM server: one thread, epoll, HTTP/1.1 keep-alive on loopback.
//
//   engine [PORT]       0 or nothing: a free port. Prints "listening on 127.0.0.1:PORT".
//
// The model's name says what comes back: bench-N-I[-D] is N tokens, I ms apart (0: as fast as the
// socket takes them, yet one write each), D ms before the first one or before a unary answer.
// Each token's text is the instant of its write, so a client on this machine knows how long it was under way.
//
// POST /v1/chat/completions   GET /v1/models /health /metrics /stats
#include "shapes.h"
#include "timers.h"
#include <sys/prctl.h>

enum { HEAD_LIMIT = 1 << 16, BODY_LIMIT = 64 << 20 };
typedef enum { READING, HOLDING, STREAMING } State; // a request is awaited / answered later / answered bit by bit

typedef struct {
    Timer timer; // first, so that a Timer* is a Conn*
    int fd;
    State state;
    bool closing, wants_out;
    Buf in, out;
    Ask ask;
    Shape shape;
    int sent; // tokens; -1: not even the role
    u64 start; // when the first token is due
} Conn;

static struct {
    ull requests, unary, streams, finished, aborted, unary_aborted, chunks, refused, accepted;
    long active, max_active, open;
} stats;
static int ep;

static void watch(Conn *c, bool out) {
    if (c->wants_out == out) return;
    c->wants_out = out;
    struct epoll_event e = {EPOLLIN | EPOLLRDHUP | (out ? EPOLLOUT : 0), {.ptr = c}};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

static void leave(Conn *c) {
    if (c->state == STREAMING) stats.aborted++, stats.active--;
    if (c->state == HOLDING) stats.unary_aborted++;
    timer_clear(&c->timer);
    close(c->fd);
    buf_free(&c->in);
    buf_free(&c->out);
    free(c);
    stats.open--;
}

// False when the peer is gone; what the socket does not take now waits in c->out.
static bool put(Conn *c, const char *p, size_t n) {
    if (!c->out.len) {
        ssize_t w = send(c->fd, p, n, MSG_NOSIGNAL);
        if (w < 0 && errno != EAGAIN && errno != EINTR) return false;
        if (w > 0) p += w, n -= (size_t)w;
    }
    if (n) buf_add(&c->out, p, n), watch(c, true);
    return true;
}

static bool flush(Conn *c) {
    ssize_t w = send(c->fd, c->out.at, c->out.len, MSG_NOSIGNAL);
    if (w < 0) return errno == EAGAIN || errno == EINTR;
    buf_cut_front(&c->out, (size_t)w);
    if (c->out.len) return true;
    watch(c, false);
    if (c->closing && c->state == READING) return false;
    if (c->state == STREAMING) timer_set(&c->timer, c->start + (u64)(c->sent < 0 ? 0 : c->sent) * c->ask.gap_ns);
    return true;
}

static bool reply(Conn *c, int status, const char *type, const char *body, size_t n) {
    char whole[8192];
    size_t head = http_head(whole, sizeof whole, status, type, (long)n, c->closing);
    if (head + n > sizeof whole) return false;
    memcpy(whole + head, body, n);
    return put(c, whole, head + n);
}

static bool reply_json(Conn *c, int status, const char *body) { return reply(c, status, "application/json", body, strlen(body)); }

static bool answer_unary(Conn *c) {
    char body[4096];
    c->state = READING;
    stats.unary++;
    return reply(c, 200, "application/json", body, unary_body(body, sizeof body, &c->ask));
}

// ---- streams
static bool start_stream(Conn *c) {
    char head[512];
    shape_start(&c->shape, &c->ask);
    c->state = STREAMING;
    c->sent = -1;
    c->start = now_ns() + c->ask.wait_ns;
    stats.streams++;
    if (++stats.active > stats.max_active) stats.max_active = stats.active;
    timer_set(&c->timer, c->start);
    return put(c, head, http_head(head, sizeof head, 200, "text/event-stream; charset=utf-8", -1, c->closing));
}

static bool end_stream(Conn *c) {
    char b[EVENT_MAX];
    if (c->ask.usage && !put(c, b, usage_event(b, &c->shape))) return false;
    if (!put(c, b, done_event(b)) || !put(c, "0\r\n\r\n", 5)) return false;
    c->state = READING;
    stats.active--;
    stats.finished++;
    return true;
}

// One token (the first brings the role along), then the next is planned.
static bool step(Conn *c) {
    char b[EVENT_MAX];
    if (c->out.len) return true; // flush() plans the next one
    if (c->sent < 0) {
        c->sent = 0;
        if (!put(c, b, role_event(b, &c->shape))) return false;
    }
    c->sent++;
    stats.chunks++;
    if (!put(c, b, token_event(b, &c->shape, c->sent == c->ask.tokens))) return false;
    if (c->sent == c->ask.tokens) return end_stream(c);
    timer_set(&c->timer, c->ask.gap_ns ? c->start + (u64)c->sent * c->ask.gap_ns : now_ns() + 1);
    return true;
}

// ---- requests
static bool chat(Conn *c, Text body) {
    if (!ask_read(&c->ask, body)) {
        stats.refused++;
        return reply_json(c, 400, "{\"error\":{\"message\":\"no model\",\"type\":\"BadRequestError\",\"param\":\"model\",\"code\":400}}");
    }
    if (c->ask.stream) return start_stream(c);
    if (!c->ask.wait_ns) return answer_unary(c);
    c->state = HOLDING;
    timer_set(&c->timer, now_ns() + c->ask.wait_ns);
    return true;
}

static bool metrics(Conn *c) {
    char b[2048];
    int n = snprintf(b, sizeof b,
                     "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0\",model_name=\"bench\"} %ld.0\n"
                     "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\",model_name=\"bench\"} 0.0\n"
                     "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{engine=\"0\",model_name=\"bench\"} 0.0\n"
                     "# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{engine=\"0\",model_name=\"bench\"} %llu.0\n",
                     stats.active, stats.chunks);
    return reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", b, (size_t)n);
}

static bool report(Conn *c) {
    char b[1024];
    snprintf(b, sizeof b,
             "{\"requests\":%llu,\"unary\":%llu,\"streams\":%llu,\"finished\":%llu,\"aborted\":%llu,\"unary_aborted\":%llu,\"chunks\":%llu,"
             "\"refused\":%llu,\"accepted\":%llu,\"open\":%ld,\"active\":%ld,\"max_active\":%ld}",
             stats.requests, stats.unary, stats.streams, stats.finished, stats.aborted, stats.unary_aborted, stats.chunks, stats.refused,
             stats.accepted, stats.open, stats.active, stats.max_active);
    return reply_json(c, 200, b);
}

static bool serve(Conn *c, Text line, Text body) {
    char b[4096];
    stats.requests++;
    if (starts(line, "POST /v1/chat/completions ")) return chat(c, body);
    if (starts(line, "GET /health ")) return reply(c, 200, "text/plain", "", 0);
    if (starts(line, "GET /v1/models ")) return reply(c, 200, "application/json", b, models_body(b, sizeof b));
    if (starts(line, "GET /version ")) return reply_json(c, 200, "{\"version\":\"bench\"}");
    if (starts(line, "GET /metrics ")) return metrics(c);
    if (starts(line, "GET /stats ")) return report(c);
    return reply_json(c, 404, "{\"detail\":\"Not Found\"}");
}

// Serves the whole requests at the front of c->in, one at a time. False: the connection is over.
static bool take_requests(Conn *c) {
    while (c->state == READING && c->in.len) {
        Text all = {c->in.at, c->in.len}, rest = after(all, "\r\n\r\n");
        if (!rest.at) return c->in.len < HEAD_LIMIT;
        size_t head = (size_t)(rest.at - all.at), length = 0;
        Text line = {all.at, (size_t)((char *)memchr(all.at, '\r', head) - all.at)};
        c->closing = !after(line, " HTTP/1.1").at;
        const char *p = line.at + line.len + 2;
        for (Text h; p < rest.at - 2; p = h.at + h.len + 2) {
            const char *cr = memmem(p, (size_t)(rest.at - p), "\r\n", 2);
            h = (Text){p, (size_t)(cr - p)};
            if (starts(h, "content-length:")) length = strtoull(h.at + 15, NULL, 10);
            else if (starts(h, "transfer-encoding:")) return reply_json(c, 400, "{\"detail\":\"chunked bodies are not read here\"}") && false;
            else if (starts(h, "connection:") && after(h, "close").at) c->closing = true;
        }
        if (length > BODY_LIMIT) return false;
        if (rest.len < length) return true;
        if (!serve(c, line, (Text){rest.at, length})) return false;
        buf_cut_front(&c->in, head + length);
    }
    return !(c->closing && c->state == READING && !c->out.len && !c->in.len);
}

static bool on_input(Conn *c) {
    for (;;) {
        buf_room(&c->in, 4096);
        size_t room = c->in.cap - c->in.len;
        ssize_t r = recv(c->fd, c->in.at + c->in.len, room, 0);
        if (r < 0) return errno == EAGAIN || errno == EINTR ? take_requests(c) : false;
        if (!r) return false;
        c->in.len += (size_t)r;
        if ((size_t)r < room) return take_requests(c);
    }
}

static bool on_timer(Conn *c) {
    if (c->state == HOLDING && !answer_unary(c)) return false;
    if (c->state == STREAMING && !step(c)) return false;
    return c->state != READING || take_requests(c);
}

static void welcome(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        Conn *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        no_delay(fd);
        c->fd = fd;
        struct epoll_event e = {EPOLLIN | EPOLLRDHUP, {.ptr = c}};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
        stats.accepted++;
        stats.open++;
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in a = loopback(port);
    socklen_t n = sizeof a;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&a, sizeof a) || listen(fd, 4096) || getsockname(fd, (void *)&a, &n)) die("listen");
    printf("listening on 127.0.0.1:%d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv) {
    static struct epoll_event events[512];
    prctl(PR_SET_PDEATHSIG, SIGTERM); // never outlives the rig
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0);
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {EPOLLIN, {.ptr = NULL}};
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = wait_until(ep, events, 512, timer_next());
        for (int i = 0; i < n; i++) {
            Conn *c = events[i].data.ptr;
            uint32_t what = events[i].events;
            if (!c) welcome(listener);
            else if (what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) leave(c);
            else if ((what & EPOLLOUT && !flush(c)) || (what & EPOLLIN && !on_input(c))) leave(c);
        }
        u64 turn = now_ns(); // a stream without gaps is due again after this instant: one token a turn
        while (timer_next() <= turn) {
            Conn *c = (Conn *)timers.at[0];
            timer_clear(&c->timer);
            if (!on_timer(c)) leave(c);
        }
    }
}
