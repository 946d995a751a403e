/* A plain UDP echo server in C: poll(2), then recvmmsg(2) and sendmmsg(2), 64 at a time, until
 * nothing is left. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { BATCH = 64, ROOM = 2048 };

static struct mmsghdr message[BATCH];
static struct iovec part[BATCH];
static struct sockaddr_in peer[BATCH];
static char memory[BATCH][ROOM];

static int echo_batch(int fd) {
    for (int i = 0; i < BATCH; i++) {
        part[i] = (struct iovec){memory[i], ROOM};
        message[i].msg_hdr = (struct msghdr){
            .msg_name = &peer[i],
            .msg_namelen = sizeof peer[i],
            .msg_iov = &part[i],
            .msg_iovlen = 1,
        };
    }
    int n = recvmmsg(fd, message, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++) part[i].iov_len = message[i].msg_len;
    for (int sent = 0; sent < n;) {
        int more = sendmmsg(fd, message + sent, (unsigned)(n - sent), 0);
        sent += more > 0 ? more : 1;
    }
    return n;
}

int main(int argc, char **argv) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), rcvbuf = argc > 1 ? atoi(argv[1]) : 0;
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof own;
    if (rcvbuf) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
    if (bind(fd, (struct sockaddr *)&own, size) < 0 ||
        getsockname(fd, (struct sockaddr *)&own, &size) < 0) {
        perror("c_mmsg");
        return 1;
    }
    printf("listening on udp://127.0.0.1:%d\n", ntohs(own.sin_port));
    fflush(stdout);
    for (;;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (echo_batch(fd) < 0 && errno == EAGAIN) poll(&wait, 1, -1);
    }
}
