/* Closed-loop load of a dictionary server over UDP, which checks every answer: `sockets` times
 * `window` questions in flight.
 *
 * usage: words_load PORT ENTRIES SOCKETS WINDOW SECONDS
 * output: answers, lost, wrong, seconds
 *
 * The server has the entries wordN:translation of wordN, N from 0 to ENTRIES - 1 with seven digits;
 * one question in sixteen is for a word it does not have. Questions of one socket are answered in
 * order, for loopback and one loop keep it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { SOCKETS_MAX = 64, WINDOW_MAX = 64, ROOM = 128, TIMEOUT_MS = 3000 };

static struct mmsghdr message[WINDOW_MAX];
static struct iovec part[WINDOW_MAX];
static char question[SOCKETS_MAX][WINDOW_MAX][ROOM];
static char expected[SOCKETS_MAX][WINDOW_MAX][ROOM];
static char received[WINDOW_MAX][ROOM];
static uint64_t random_state = 88172645463325252u;
static uint64_t answers, lost, wrong;

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void fill(char (*text)[ROOM], int n, int receiving) {
    for (int i = 0; i < n; i++) {
        part[i] = (struct iovec){text[i], receiving ? ROOM : strlen(text[i])};
        message[i].msg_hdr = (struct msghdr){.msg_iov = &part[i], .msg_iovlen = 1};
    }
}

static void ask(int fd, int socket, int window, unsigned entries) {
    for (int i = 0; i < window; i++) {
        uint64_t random = next_random();
        unsigned word = (unsigned)((random >> 8) % entries);
        if (random % 16) {
            sprintf(question[socket][i], "word%07u", word);
            sprintf(expected[socket][i], "translation of word%07u", word);
        } else {
            sprintf(question[socket][i], "nosuch%07u", word);
            strcpy(expected[socket][i], "unknown");
        }
    }
    fill(question[socket], window, 0);
    for (int sent = 0; sent < window;) {
        int more = sendmmsg(fd, message + sent, (unsigned)(window - sent), 0);
        if (more < 0) exit(1);
        sent += more;
    }
}

static void receive(int fd, int socket, int window) {
    for (int have = 0; have < window;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        fill(received, window - have, 1);
        int n = recvmmsg(fd, message, (unsigned)(window - have), MSG_DONTWAIT, NULL);
        if (n < 0 && poll(&wait, 1, TIMEOUT_MS) == 0) {
            lost += (uint64_t)(window - have);
            return;
        }
        for (int i = 0; i < n; i++, have++) {
            const char *want = expected[socket][have];
            size_t got = message[i].msg_len;
            wrong += got != strlen(want) || memcmp(received[i], want, got) != 0;
            answers++;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    int sockets = atoi(argv[3]), window = atoi(argv[4]), fd[SOCKETS_MAX];
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (sockets > SOCKETS_MAX || window > WINDOW_MAX) return 2;
    for (int i = 0; i < sockets; i++) {
        fd[i] = socket(AF_INET, SOCK_DGRAM, 0);
        if (connect(fd[i], (struct sockaddr *)&server, sizeof server) < 0) return 1;
    }
    double began_s = now_s(), ends_s = began_s + atof(argv[5]);
    while (now_s() < ends_s) {
        for (int i = 0; i < sockets; i++) ask(fd[i], i, window, (unsigned)atoi(argv[2]));
        for (int i = 0; i < sockets; i++) receive(fd[i], i, window);
    }
    printf("%llu %llu %llu %f\n", (unsigned long long)answers, (unsigned long long)lost,
           (unsigned long long)wrong, now_s() - began_s);
    return 0;
}
