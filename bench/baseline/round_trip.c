/* How short can a round trip over loopback be on this host? Two bare processes, one on each of two
   processors.

    cc -O2 -o /tmp/baseline_round_trip bench/baseline/round_trip.c
    for kind in tcp udp; do
        for way in sleep recv poll epoll; do /tmp/baseline_round_trip $kind $way; done
    done

    sleep  recv(2) waits
    recv   recv(2) with MSG_DONTWAIT, again and again
    poll   poll(2) without waiting, again and again, then recv(2)
    epoll  epoll_wait(2) without waiting, again and again, then recv(2)
64 bytes there and back. Prints the median in microseconds. docs/benchmarks.md has what came out. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TRIPS = 50000, BYTES = 64 };

static const char *way;
static int epoll;

static void pin(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static ssize_t take(int sock, char *into) {
    struct pollfd readable = {.fd = sock, .events = POLLIN};
    struct epoll_event event;
    if (way[0] == 's') return recv(sock, into, BYTES, 0);
    if (way[0] == 'p')
        while (poll(&readable, 1, 0) <= 0) continue;
    if (way[0] == 'e')
        while (epoll_wait(epoll, &event, 1, 0) <= 0) continue;
    for (;;) {
        ssize_t n = recv(sock, into, BYTES, MSG_DONTWAIT);
        if (n >= 0 || errno != EAGAIN) return n;
    }
}

static void connect_pair(int kind, int pair[2]) {
    struct sockaddr_in name[2] = {{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}};
    socklen_t length = sizeof name[0];
    int one = 1, listener = socket(AF_INET, kind, 0);
    bind(listener, (void *)&name[0], length);
    getsockname(listener, (void *)&name[0], &length);
    pair[0] = socket(AF_INET, kind, 0);
    if (kind == SOCK_STREAM) listen(listener, 1);
    if (connect(pair[0], (void *)&name[0], length)) perror("connect"), exit(1);
    if (kind == SOCK_DGRAM) {
        getsockname(pair[0], (void *)&name[1], &length);
        connect(listener, (void *)&name[1], length);
        pair[1] = listener;
        return;
    }
    pair[1] = accept(listener, NULL, NULL);
    for (int i = 0; i < 2; i++) setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    int pair[2];
    char message[BYTES] = {0};
    static double trip[TRIPS];
    if (argc != 3) return fprintf(stderr, "usage: %s tcp|udp sleep|recv|poll|epoll\n", argv[0]), 2;
    way = argv[2];
    connect_pair(strcmp(argv[1], "udp") ? SOCK_STREAM : SOCK_DGRAM, pair);
    pid_t echo = fork();
    int mine = echo ? pair[0] : pair[1];
    struct epoll_event event = {.events = EPOLLIN};
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, mine, &event);
    pin(echo ? 1 : 0);
    for (int i = 0; i < TRIPS; i++) {
        double since = now_us();
        if (echo) send(mine, message, BYTES, 0);
        ssize_t n = take(mine, message);
        if (!echo) send(mine, message, (size_t)n, 0);
        trip[i] = now_us() - since;
    }
    if (!echo) _exit(0);
    waitpid(echo, NULL, 0);
    qsort(trip, TRIPS, sizeof trip[0], by_value);
    printf("%s %-6s %6.2f us\n", argv[1], way, trip[TRIPS / 2]);
    return 0;
}
