/* How fast can this host move one file over loopback TCP at all? Two bare processes, no protocol,
   one design after another.

    cc -O2 -pthread -o /tmp/baseline_files bench/baseline/files.c
    for way in splice splice+ahead write write+ahead map map+populate map+thread; do
        /tmp/baseline_files $way SOURCE TARGET
    done

The sender always uses sendfile(2); a way is what the receiver does:
    splice        socket to pipe to file, splice(2)
    write         recv(2) into a buffer that stays in L2, pwrite(2)
    +ahead        and a second thread that reserves the file's pages ahead of it, fallocate(2)
    map           recv(2) into the mapped file
    map+populate  after MADV_POPULATE_WRITE for each 2 MiB
    map+thread    and that in a second thread
Prints way, seconds, GB/s and processor seconds of both sides; docs/benchmarks.md has the
results. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { STEP = 2 << 20, BUFFER = 256 << 10, PIPE = 1 << 20 };

static int target;
static off_t size, prepared;
static char *map;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static off_t at_most(off_t left, off_t most) { return left < most ? left : most; }

/* The second thread: pages of the file (map == NULL) or of the mapping, a step at a time. */
static void *prepare(void *unused) {
    for (off_t at = 0; at < size; at += STEP) {
        size_t n = (size_t)at_most(size - at, STEP);
        if (map ? madvise(map + at, n, MADV_POPULATE_WRITE) : fallocate(target, 0, at, (off_t)n))
            fail("prepare");
        __atomic_store_n(&prepared, at + (off_t)n, __ATOMIC_RELEASE);
    }
    return unused;
}

static void until_prepared(off_t end) {
    while (__atomic_load_n(&prepared, __ATOMIC_ACQUIRE) < end) sched_yield();
}

static void send_all(int sock, int source) {
    off_t at = 0;
    while (at < size)
        if (sendfile(sock, source, &at, (size_t)at_most(size - at, 4 * STEP)) <= 0)
            fail("sendfile");
}

static void by_splice(int sock, int ahead) {
    int ends[2];
    if (pipe(ends) || fcntl(ends[1], F_SETPIPE_SZ, PIPE) < 0) fail("pipe");
    for (off_t at = 0; at < size;) {
        ssize_t n = splice(sock, NULL, ends[1], NULL, PIPE, SPLICE_F_MOVE);
        if (n <= 0) fail("splice");
        if (ahead) until_prepared(at + n);
        for (off_t end = at + n; at < end;)
            if (splice(ends[0], NULL, target, &at, (size_t)(end - at), SPLICE_F_MOVE) <= 0)
                fail("splice");
    }
}

static void by_write(int sock, int ahead) {
    char *buffer = aligned_alloc(4096, BUFFER);
    for (off_t at = 0; at < size;) {
        ssize_t n = recv(sock, buffer, BUFFER, 0);
        if (n <= 0) fail("recv");
        if (ahead) until_prepared(at + n);
        if (pwrite(target, buffer, (size_t)n, at) != n) fail("pwrite");
        at += n;
    }
}

static void by_map(int sock, int populate, int thread) {
    for (off_t at = 0; at < size;) {
        off_t end = at + at_most(size - at, STEP);
        if (thread) until_prepared(end);
        if (populate && madvise(map + at, (size_t)(end - at), MADV_POPULATE_WRITE)) fail("madvise");
        while (at < end) {
            ssize_t n = recv(sock, map + at, (size_t)(end - at), 0);
            if (n <= 0) fail("recv");
            at += n;
        }
    }
}

static double cpu(const struct rusage *used) {
    return (double)used->ru_utime.tv_sec + (double)used->ru_utime.tv_usec / 1e6 +
           (double)used->ru_stime.tv_sec + (double)used->ru_stime.tv_usec / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: %s WAY SOURCE TARGET\n", argv[0]), 2;
    const char *way = argv[1];
    int source = open(argv[2], O_RDONLY);
    struct stat found;
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof where;
    int listener = socket(AF_INET, SOCK_STREAM, 0), out = socket(AF_INET, SOCK_STREAM, 0), in;
    if (source < 0 || fstat(source, &found)) fail(argv[2]);
    size = found.st_size;
    unlink(argv[3]);
    target = open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (target < 0) fail(argv[3]);
    setsockopt(out, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    if (bind(listener, (void *)&where, length) || listen(listener, 1) ||
        getsockname(listener, (void *)&where, &length) || connect(out, (void *)&where, length) ||
        (in = accept(listener, NULL, NULL)) < 0)
        fail("connect");

    double since = now();
    pid_t sender = fork();
    if (sender == 0) {
        send_all(out, source);
        _exit(0);
    }
    pthread_t second;
    int ahead = strstr(way, "+ahead") != NULL, thread = strstr(way, "+thread") != NULL;
    if (way[0] == 'm') {
        if (ftruncate(target, size)) fail("ftruncate");
        map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, target, 0);
        if (map == MAP_FAILED) fail("mmap");
    }
    if (ahead || thread) pthread_create(&second, NULL, prepare, NULL);
    if (way[0] == 's') by_splice(in, ahead);
    if (way[0] == 'w') by_write(in, ahead);
    if (way[0] == 'm') by_map(in, strstr(way, "+populate") != NULL, thread);
    double took = now() - since;
    struct rusage sent, received;
    wait4(sender, NULL, 0, &sent);
    if (ahead || thread) pthread_join(second, NULL);
    getrusage(RUSAGE_SELF, &received);
    printf("%-13s %.3f s  %.2f GB/s  CPU s: sender %.2f, receiver %.2f\n", way, took,
           (double)size / 1e9 / took, cpu(&sent), cpu(&received));
    return 0;
}
