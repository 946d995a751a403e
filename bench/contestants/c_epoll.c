/* A conventional echo server: epoll(7), level-triggered, one thread. The yardstick of the other
 * rows.
 *
 * Build: cc -O2 -DREAD_BYTES=65536 -o c_epoll c_epoll.c. It prints one line when it is ready:
 * listening on tcp://127.0.0.1:PORT. Nothing clever on purpose: read once per event, write
 * immediately, and while a peer does not read, keep the rest, wait for EPOLLOUT, read no more. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_PER_WAIT = 256 };

struct connection {
    int fd;
    char *write_buffer;
    size_t first, end;
};

static char buffer[READ_BYTES];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(int poll, int operation, struct connection *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poll, operation, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void end(struct connection *c)
{
    close(c->fd); /* this takes it out of the epoll set too */
    free(c->write_buffer);
    free(c);
}

static void accept_all(int poll, int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        struct connection *c = calloc(1, sizeof *c);
        if (!c)
            die("calloc");
        c->fd = fd;
        watch(poll, EPOLL_CTL_ADD, c, EPOLLIN);
    }
}

static void echo(int poll, struct connection *c)
{
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    ssize_t sent = n > 0 ? send(c->fd, buffer, (size_t)n, MSG_NOSIGNAL) : -1;
    if (n <= 0 || (sent < 0 && errno != EAGAIN)) {
        end(c);
        return;
    }
    if (sent < 0)
        sent = 0;
    if (sent == n)
        return;
    c->write_buffer = malloc((size_t)(n - sent));
    if (!c->write_buffer)
        die("malloc");
    memcpy(c->write_buffer, buffer + sent, (size_t)(n - sent));
    c->first = 0;
    c->end = (size_t)(n - sent);
    watch(poll, EPOLL_CTL_MOD, c, EPOLLOUT);
}

static void unpark(int poll, struct connection *c)
{
    ssize_t sent = send(c->fd, c->write_buffer + c->first, c->end - c->first, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN)
            end(c);
        return;
    }
    c->first += (size_t)sent;
    if (c->first < c->end)
        return;
    free(c->write_buffer);
    c->write_buffer = NULL;
    watch(poll, EPOLL_CTL_MOD, c, EPOLLIN);
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 4096) < 0)
        die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("listening on tcp://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct connection door = {.fd = listener};
    watch(poll, EPOLL_CTL_ADD, &door, EPOLLIN);
    for (;;) {
        struct epoll_event events[EVENTS_PER_WAIT];
        int ready = epoll_wait(poll, events, EVENTS_PER_WAIT, -1);
        for (int k = 0; k < ready; k++) {
            struct connection *c = events[k].data.ptr;
            if (c == &door)
                accept_all(poll, listener);
            else if (c->write_buffer)
                unpark(poll, c);
            else
                echo(poll, c);
        }
    }
}
