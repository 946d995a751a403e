/* An echo server on libuv, the loop under Node and uvloop, as its documentation shows it: read,
 * write what was read.
 *
 * Build: cc -O2 -DREAD_BYTES=65536 -o c_libuv c_libuv.c -luv. It tries uv_try_write first, as
 * libuv's own streams do, and asks for a uv_write only for what is left. While one is out it stops
 * reading that peer. / */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static char buffer[READ_BYTES];

struct rest {
    uv_write_t request;
    char bytes[];
};

static void closed(uv_handle_t *peer) { free(peer); }

static void lend(uv_handle_t *peer, size_t hint, uv_buf_t *lent)
{
    *lent = uv_buf_init(buffer, sizeof buffer);
}

static void on_read(uv_stream_t *peer, ssize_t n, const uv_buf_t *got);

static void on_written(uv_write_t *request, int status)
{
    uv_stream_t *peer = request->handle;
    free(request);
    if (status == 0)
        uv_read_start(peer, lend, on_read);
    else if (!uv_is_closing((uv_handle_t *)peer))
        uv_close((uv_handle_t *)peer, closed);
}

static void on_read(uv_stream_t *peer, ssize_t n, const uv_buf_t *got)
{
    if (n < 0)
        uv_close((uv_handle_t *)peer, closed);
    if (n <= 0)
        return;
    uv_buf_t piece = uv_buf_init(got->base, (unsigned)n);
    int sent = uv_try_write(peer, &piece, 1);
    if (sent == n)
        return;
    if (sent < 0)
        sent = 0;
    struct rest *rest = malloc(sizeof *rest + (size_t)(n - sent));
    memcpy(rest->bytes, got->base + sent, (size_t)(n - sent));
    piece = uv_buf_init(rest->bytes, (unsigned)(n - sent));
    uv_read_stop(peer);
    uv_write(&rest->request, peer, &piece, 1, on_written);
}

static void on_connection(uv_stream_t *door, int status)
{
    uv_tcp_t *peer = malloc(sizeof *peer);
    uv_tcp_init(door->loop, peer);
    if (status < 0 || uv_accept(door, (uv_stream_t *)peer) < 0) {
        uv_close((uv_handle_t *)peer, closed);
        return;
    }
    uv_tcp_nodelay(peer, 1);
    uv_read_start((uv_stream_t *)peer, lend, on_read);
}

int main(void)
{
    struct sockaddr_in address;
    int size = sizeof address;
    uv_tcp_t door;
    uv_tcp_init(uv_default_loop(), &door);
    uv_ip4_addr("127.0.0.1", 0, &address);
    if (uv_tcp_bind(&door, (struct sockaddr *)&address, 0) < 0 ||
        uv_listen((uv_stream_t *)&door, 4096, on_connection) < 0)
        return 1;
    uv_tcp_getsockname(&door, (struct sockaddr *)&address, &size);
    printf("listening on tcp://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
