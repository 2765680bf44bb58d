// A load generator for OpenAI-shaped chat endpoints: one thread, epoll, keep-alive connections, closed loop.
//
//   load --port P --model M [--stream --tokens N] [--connections C] (--count N | --seconds S) ...
//
//   --path PATH     default /v1/chat/completions     --header "K: V"  one more request header
//   --ramp MS       spread the first requests        --limit S        give up on what is left after S seconds
//   --hang-up K     leave each stream after K tokens --usage          ask for the usage event, and want it
//   --prompt-bytes N  default 400                    --users N        so many values of `user`, in turn
//   --timeout S     of one request, default 20
//
// Prints one JSON object, times in µs. "lag" is the time from the engine's write to our read of a token,
// "span" that from the first token of a stream to its last.
// Ends with 1 when an answer was not what it must be, 2 when it could not run.
#include "verdict.h"
#include <getopt.h>
#include <sys/resource.h>

enum { USER_DIGITS = 8 };
typedef enum { IDLE, CONNECTING, SENDING, READING } State;

typedef struct {
    int fd;
    State state;
    bool reused, heard; // heard: at least a byte of this answer came
    size_t sent;
    u64 start;
    Answer answer;
    Reading reading;
} Conn;

static struct {
    int port, connections, ramp_ms, hang_up;
    ull count, prompt_bytes, users;
    double seconds, limit, timeout;
    const char *path, *model;
    Expect want;
} opt = {.connections = 1, .limit = 60, .prompt_bytes = 400, .timeout = 20, .path = "/v1/chat/completions", .model = "bench-64-0", .want = {.tokens = -1}};

static struct sockaddr_in peer;
static Buf request, extra;
static size_t user_at; // where in the request its number stands
static int ep;
static u64 began, last_issue, last_done;
static ull issued, ended, ok, hung_up, stale, errors[ERRORS];
static char first_error[400];
static Totals totals;

// ---- one request
static void begin(Conn *c);
static bool may_issue(u64 now) { return now < last_issue && (!opt.count || issued < opt.count); }

static void drop(Conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

static void note(const Conn *c, Error e) {
    errors[e]++;
    if (first_error[0]) return;
    int n = snprintf(first_error, sizeof first_error, "%s: status %d, %d chunks: ", ERROR_NAMES[e], c->answer.status, c->reading.chunks);
    for (size_t i = 0; i < c->reading.body.len && n < (int)sizeof first_error - 1; i++) {
        char x = c->reading.body.at[i];
        first_error[n++] = x < 32 || x > 126 || x == '"' || x == '\\' ? '\'' : x; // it goes into a JSON string
    }
}

static void end(Conn *c, Error e) {
    u64 now = now_ns();
    last_done = now;
    ended++;
    if (e) note(c, e);
    else ok++, sample(&totals.latency, now - c->start);
    if (!e && c->reading.chunks > 1) sample(&totals.span, c->reading.previous - c->reading.first);
    if (e || c->answer.close) drop(c);
    c->state = IDLE;
    if (may_issue(now)) issued++, begin(c);
}

// Small requests go out in one piece, so that one buffer is enough for all of them.
static void next_user(void) {
    static ull number;
    char digits[USER_DIGITS + 1];
    snprintf(digits, sizeof digits, "%0*llu", USER_DIGITS, number++ % opt.users);
    memcpy(request.at + user_at, digits, USER_DIGITS);
}

static void send_request(Conn *c) {
    if (opt.users && !c->sent) next_user();
    ssize_t w = send(c->fd, request.at + c->sent, request.len - c->sent, MSG_NOSIGNAL);
    if (w > 0) c->sent += (size_t)w; // a dead peer shows when we read
    c->state = c->sent < request.len && w > 0 ? SENDING : READING;
    struct epoll_event e = {EPOLLIN | (c->state == SENDING ? EPOLLOUT : 0), {.ptr = c}};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

static void open_connection(Conn *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    no_delay(c->fd);
    c->state = CONNECTING;
    struct epoll_event e = {EPOLLIN | EPOLLOUT, {.ptr = c}};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
    connect(c->fd, (void *)&peer, sizeof peer); // its outcome shows as an event
}

static void begin(Conn *c) {
    c->start = now_ns();
    c->sent = 0;
    c->heard = false;
    c->reused = c->fd >= 0;
    answer_reset(&c->answer);
    reading_reset(&c->reading);
    if (c->reused) send_request(c);
    else open_connection(c);
}

// ---- events of one connection
static void on_connected(Conn *c) {
    int e = 0;
    socklen_t n = sizeof e;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &n);
    if (e) {
        usleep(1000); // a refusing port would have us spin
        end(c, NO_CONNECT);
        return;
    }
    c->start = now_ns(); // connecting is no part of the latency
    send_request(c);
}

static void on_closed(Conn *c) {
    if (c->answer.part == UNTIL_CLOSE) end(c, reading_judge(&c->reading, &opt.want, c->answer.status));
    else if (c->reused && !c->heard) stale++, drop(c), begin(c); // a keep-alive connection may end at any time
    else end(c, CLOSED);
}

typedef struct {
    Conn *c;
    u64 now;
} Moment;

static void on_body(void *owner, const char *p, size_t n) {
    Moment *m = owner;
    Conn *c = m->c;
    bool waited = !c->reading.first;
    reading_take(&c->reading, &opt.want, c->answer.status, p, n, m->now, &totals);
    if (waited && c->reading.first) sample(&totals.ttft, c->reading.first - c->start);
}

static void on_input(Conn *c) {
    static char bytes[1 << 18];
    ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (c->state == IDLE) {
        drop(c);
        return;
    }
    if (n <= 0) {
        on_closed(c);
        return;
    }
    c->heard = true;
    c->reading.in_read = 0;
    answer_feed(&c->answer, bytes, (size_t)n, on_body, &(Moment){c, now_ns()});
    if (opt.hang_up && c->reading.chunks >= opt.hang_up) {
        hung_up++, ended++, last_done = now_ns();
        drop(c);
        c->state = IDLE;
        if (may_issue(last_done)) issued++, begin(c);
    } else if (c->answer.part == BROKEN) {
        end(c, FRAMING);
    } else if (c->answer.part == WHOLE) {
        end(c, reading_judge(&c->reading, &opt.want, c->answer.status));
    }
}

// ---- the run
static void run(Conn *conns) {
    static struct epoll_event events[512];
    int opened = 0;
    u64 give_up = began + (u64)(opt.limit * 1e9), look = began;
    for (;;) {
        u64 now = now_ns();
        u64 wake = look + 250 * MS;
        while (opened < opt.connections && may_issue(now)) {
            u64 at = began + (u64)opt.ramp_ms * MS * (u64)opened / (u64)opt.connections;
            if (at > now) {
                wake = at < wake ? at : wake;
                break;
            }
            issued++;
            begin(&conns[opened++]);
        }
        if ((ended == issued && !may_issue(now)) || now >= give_up || errors[NO_CONNECT] > 1000) break;
        if (now >= look + 250 * MS) {
            look = now;
            for (int i = 0; i < opened; i++)
                if (conns[i].state != IDLE && conns[i].start + (u64)(opt.timeout * 1e9) < now) end(&conns[i], TIMEOUT);
        }
        int n = wait_until(ep, events, 512, wake < give_up ? wake : give_up);
        for (int i = 0; i < n; i++) {
            Conn *c = events[i].data.ptr;
            if (c->fd < 0) continue;
            if (c->state == CONNECTING) on_connected(c);
            else if (c->state == SENDING && events[i].events & EPOLLOUT) send_request(c);
            else on_input(c);
        }
    }
    errors[UNFINISHED] = issued - ended;
}

static void add(Buf *b, const char *text) { buf_add(b, text, strlen(text)); }

static void build_request(void) {
    static const char words[] = "Which of the two bridges was closed last winter, and for how long did the ferry run instead? ";
    Buf body = {0};
    char head[1024];
    add(&body, "{\"model\":\"");
    add(&body, opt.model);
    add(&body, "\",\"max_tokens\":512,\"temperature\":0.7");
    if (opt.want.stream) add(&body, ",\"stream\":true");
    if (opt.want.usage) add(&body, ",\"stream_options\":{\"include_usage\":true}");
    if (opt.users) add(&body, ",\"user\":\""), user_at = body.len, add(&body, "00000000\"");
    add(&body, ",\"messages\":[{\"role\":\"system\",\"content\":\"Answer in one sentence.\"},{\"role\":\"user\",\"content\":\"");
    for (ull i = 0; i < opt.prompt_bytes; i++) buf_add(&body, &words[i % (sizeof words - 1)], 1);
    add(&body, "\"}]}");
    int h = snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nAccept: */*\r\nContent-Length: %zu\r\n", opt.path, opt.port, body.len);
    buf_add(&request, head, (size_t)h);
    buf_add(&request, extra.at, extra.len);
    add(&request, "\r\n");
    user_at += request.len;
    buf_add(&request, body.at, body.len);
    buf_free(&body);
}

static void print_results(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    double s = (double)(last_done - began) / 1e9;
    ull bad = 0;
    printf("{\"issued\":%llu,\"ok\":%llu,\"hung_up\":%llu,\"stale\":%llu,\"chunks\":%llu,\"coalesced\":%llu,\"elapsed_s\":%.4f,\"cpu_s\":%.4f,\"per_second\":%.1f,", issued,
           ok, hung_up, stale, totals.chunks, totals.coalesced, s, cpu, s > 0 ? (double)ok / s : 0.0);
    samples_print("latency_us", &totals.latency);
    samples_print("ttft_us", &totals.ttft);
    samples_print("gap_us", &totals.gap);
    samples_print("span_us", &totals.span);
    samples_print("lag_us", &totals.lag);
    printf("\"errors\":{");
    for (int e = FINE + 1; e < ERRORS; e++) {
        if (errors[e]) printf("%s\"%s\":%llu", bad ? "," : "", ERROR_NAMES[e], errors[e]);
        bad += errors[e];
    }
    printf("},\"first_error\":\"%s\"}\n", first_error);
    exit(bad ? 1 : 0);
}

static void read_options(int argc, char **argv) {
    static const struct option names[] = {{"port", 1, 0, 'p'},  {"path", 1, 0, 'P'},  {"model", 1, 0, 'm'},   {"stream", 0, 0, 's'}, {"tokens", 1, 0, 't'},
                                          {"connections", 1, 0, 'c'}, {"count", 1, 0, 'n'}, {"seconds", 1, 0, 'd'}, {"limit", 1, 0, 'l'},  {"ramp", 1, 0, 'r'},
                                          {"hang-up", 1, 0, 'k'}, {"usage", 0, 0, 'u'}, {"header", 1, 0, 'H'},
                                          {"prompt-bytes", 1, 0, 'b'}, {"users", 1, 0, 'U'}, {"timeout", 1, 0, 'T'}, {0}};
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (o) {
        case 'p': opt.port = atoi(optarg); break;
        case 'P': opt.path = optarg; break;
        case 'm': opt.model = optarg; break;
        case 's': opt.want.stream = true; break;
        case 't': opt.want.tokens = atoi(optarg); break;
        case 'c': opt.connections = atoi(optarg); break;
        case 'n': opt.count = strtoull(optarg, NULL, 10); break;
        case 'd': opt.seconds = atof(optarg); break;
        case 'l': opt.limit = atof(optarg); break;
        case 'r': opt.ramp_ms = atoi(optarg); break;
        case 'k': opt.hang_up = atoi(optarg); break;
        case 'u': opt.want.usage = true; break;
        case 'b': opt.prompt_bytes = strtoull(optarg, NULL, 10); break;
        case 'U': opt.users = strtoull(optarg, NULL, 10); break;
        case 'T': opt.timeout = atof(optarg); break;
        case 'H': buf_add(&extra, optarg, strlen(optarg)), buf_add(&extra, "\r\n", 2); break;
        default: exit(2);
        }
    if (opt.port > 0 && opt.connections > 0 && (opt.count || opt.seconds > 0)) return;
    fprintf(stderr, "load: give --port, and --count or --seconds\n");
    exit(2);
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    build_request();
    peer = loopback(opt.port);
    ep = epoll_create1(EPOLL_CLOEXEC);
    Conn *conns = calloc((size_t)opt.connections, sizeof *conns);
    if (!conns) die("calloc");
    for (int i = 0; i < opt.connections; i++) conns[i].fd = -1;
    began = last_done = now_ns();
    last_issue = opt.seconds > 0 ? began + (u64)(opt.seconds * 1e9) : NEVER;
    run(conns);
    print_results();
}
