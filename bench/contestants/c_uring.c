/* An echo server on io_uring through liburing, in the manner of liburing's own example: multishot
 * accept and receive, a shared ring of buffers, one send request a message.
 *
 * Build: cc -O2 -o c_uring c_uring.c -luring. Input that comes while a send is out is queued behind
 * it, so that bytes keep their order. / */
#include <arpa/inet.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ACCEPT, RECV, SEND, BUFFERS = 4096, BUFFER_BYTES = 4096, CONNECTIONS = 32768 };

struct connection {
    int sending, first, last; /* buffers waiting to be sent: a chain, -1 ends it */
    int over;
};

static struct io_uring ring;
static struct io_uring_buf_ring *free_buffers;
static char memory[BUFFERS][BUFFER_BYTES];
static int next[BUFFERS], length[BUFFERS];
static struct connection table[CONNECTIONS];

static struct io_uring_sqe *ask(void)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&ring)))
        io_uring_submit(&ring);
    return sqe;
}

static void tag(struct io_uring_sqe *sqe, int what, int fd, int buffer)
{
    sqe->user_data =
        (unsigned long long)what << 56 | (unsigned long long)buffer << 32 | (unsigned)fd;
}

static void arm(int fd)
{
    struct io_uring_sqe *sqe = ask();
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    tag(sqe, RECV, fd, 0);
}

static void give_back(int buffer)
{
    io_uring_buf_ring_add(free_buffers, memory[buffer], BUFFER_BYTES, (unsigned short)buffer,
                          BUFFERS - 1, 0);
    io_uring_buf_ring_advance(free_buffers, 1);
}

static void send_next(int fd)
{
    struct connection *c = &table[fd];
    if (c->sending || c->first < 0)
        return;
    int buffer = c->first;
    struct io_uring_sqe *sqe = ask();
    io_uring_prep_send(sqe, fd, memory[buffer], (size_t)length[buffer], MSG_WAITALL | MSG_NOSIGNAL);
    tag(sqe, SEND, fd, buffer);
    c->sending = 1;
}

static void finish(int fd)
{
    struct connection *c = &table[fd];
    if (c->over && !c->sending && c->first < 0)
        close(fd);
}

static void received(int fd, struct io_uring_cqe *cqe)
{
    struct connection *c = &table[fd];
    if (cqe->res > 0) {
        int buffer = (int)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        length[buffer] = cqe->res;
        next[buffer] = -1;
        if (c->first < 0)
            c->first = buffer;
        else
            next[c->last] = buffer;
        c->last = buffer;
        send_next(fd);
    } else if (cqe->res != -ENOBUFS) {
        c->over = 1;
    }
    if (!(cqe->flags & IORING_CQE_F_MORE) && !c->over)
        arm(fd);
    finish(fd);
}

static void sent(int fd, int buffer, int result)
{
    struct connection *c = &table[fd];
    c->sending = 0;
    c->first = next[buffer];
    give_back(buffer);
    if (result < 0)
        c->over = 1;
    send_next(fd);
    finish(fd);
}

static void accepted(int listener, struct io_uring_cqe *cqe)
{
    if (cqe->res >= CONNECTIONS)
        close(cqe->res);
    else if (cqe->res >= 0) {
        table[cqe->res] = (struct connection){.first = -1};
        arm(cqe->res);
    }
    if (!(cqe->flags & IORING_CQE_F_MORE)) {
        struct io_uring_sqe *sqe = ask();
        io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
        tag(sqe, ACCEPT, listener, 0);
    }
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), failed;
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 4096) < 0)
        return 1;
    struct io_uring_params params = {0};
    params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    params.cq_entries = 16384;
    if (io_uring_queue_init_params(1024, &ring, &params) < 0)
        return 1;
    struct io_uring_buf_reg registration = {.ring_entries = BUFFERS};
    failed = posix_memalign((void **)&free_buffers, 4096, BUFFERS * sizeof(struct io_uring_buf));
    registration.ring_addr = (unsigned long long)free_buffers;
    if (failed || io_uring_register_buf_ring(&ring, &registration, 0) < 0)
        return 1;
    io_uring_buf_ring_init(free_buffers);
    for (int i = 0; i < BUFFERS; i++)
        give_back(i);
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("listening on tcp://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    accepted(listener, &(struct io_uring_cqe){.res = -EAGAIN});
    for (;;) {
        struct io_uring_cqe *cqe;
        io_uring_submit_and_wait(&ring, 1);
        while (io_uring_peek_cqe(&ring, &cqe) == 0) {
            int what = (int)(cqe->user_data >> 56), fd = (int)(unsigned)cqe->user_data;
            struct io_uring_cqe copy = *cqe;
            io_uring_cqe_seen(&ring, cqe);
            if (what == ACCEPT)
                accepted(fd, &copy);
            else if (what == RECV)
                received(fd, &copy);
            else
                sent(fd, (int)(copy.user_data >> 32 & 0xffffff), copy.res);
        }
    }
}
