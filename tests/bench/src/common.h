// What both programs need: a clock, a growing buffer, pieces of text, sockets.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t u64;
typedef unsigned long long ull; // what printf's %llu wants
#define MS 1000000ull           // nanoseconds
#define NEVER UINT64_MAX

static inline u64 now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000ull + (u64)t.tv_nsec;
}

static inline void die(const char *what) {
    perror(what);
    exit(2);
}

// ---- a growing buffer
typedef struct {
    char *at;
    size_t len, cap;
} Buf;

static inline void buf_room(Buf *b, size_t more) {
    if (b->len + more <= b->cap) return;
    b->cap = (b->len + more) * 2;
    b->at = realloc(b->at, b->cap);
    if (!b->at) die("realloc");
}

static inline void buf_add(Buf *b, const void *p, size_t n) {
    if (!n) return;
    buf_room(b, n);
    memcpy(b->at + b->len, p, n);
    b->len += n;
}

static inline void buf_cut_front(Buf *b, size_t n) {
    b->len -= n;
    memmove(b->at, b->at + n, b->len);
}

static inline void buf_free(Buf *b) {
    free(b->at);
    *b = (Buf){0};
}

// ---- pieces of text that belong to somebody else
typedef struct {
    const char *at;
    size_t len;
} Text;

static inline bool starts(Text t, const char *word) {
    size_t n = strlen(word);
    return t.len >= n && !strncasecmp(t.at, word, n);
}

// What follows `key` in the text, or an empty Text with at == NULL.
static inline Text after(Text t, const char *key) {
    const char *p = t.len ? memmem(t.at, t.len, key, strlen(key)) : NULL;
    if (!p) return (Text){NULL, 0};
    p += strlen(key);
    return (Text){p, (size_t)(t.at + t.len - p)};
}

// ---- sockets
static inline void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static inline int wait_until(int ep, struct epoll_event *events, int most, u64 wake) {
    u64 now = now_ns(), left = wake > now ? wake - now : 0;
    struct timespec t = {(time_t)(left / 1000000000ull), (long)(left % 1000000000ull)};
    return epoll_pwait2(ep, events, most, wake == NEVER ? NULL : &t, NULL);
}
