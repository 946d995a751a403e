/* The file transfer of the textbooks, with buffers of 30 bytes: fopen and read, write, half-close,
 * final message. Usage: textbook_file send|recv listen|connect PORT FILE. The sender reads the
 * receiver's final message to its end and prints it. The receiver sends "Thank you". A listener
 * prints "ready" and its port when it listens on port 0. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SMALL = 30 };

static int open_connection(int listens, int port)
{
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof place;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    inet_pton(AF_INET, "127.0.0.1", &place.sin_addr);
    if (!listens)
        return connect(fd, (struct sockaddr *)&place, sizeof place) < 0 ? -1 : fd;
    if (bind(fd, (struct sockaddr *)&place, sizeof place) < 0 || listen(fd, 1) < 0)
        return -1;
    getsockname(fd, (struct sockaddr *)&place, &size);
    printf("ready %d\n", ntohs(place.sin_port));
    fflush(stdout);
    return accept(fd, NULL, NULL);
}

static int copy(int from, int into)
{
    char small[SMALL];
    ssize_t n;

    while ((n = read(from, small, sizeof small)) > 0) {
        ssize_t done = 0, wrote;
        while (done < n && (wrote = write(into, small + done, n - done)) > 0)
            done += wrote;
        if (done < n)
            return -1;
    }
    return n < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    int sends = argc == 5 && strcmp(argv[1], "send") == 0;
    int fd = argc == 5 ? open_connection(strcmp(argv[2], "listen") == 0, atoi(argv[3])) : -1;
    int file = fd < 0 ? -1 : open(argv[4], sends ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC, 0600);

    if (file < 0)
        return 1;
    if (!sends)
        return copy(fd, file) < 0 || write(fd, "Thank you", 9) != 9 || close(fd) < 0 ? 2 : 0;
    if (copy(file, fd) < 0 || shutdown(fd, SHUT_WR) < 0)
        return 3;
    return copy(fd, STDOUT_FILENO) < 0 ? 4 : 0;
}
