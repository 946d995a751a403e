/* The echo client of the textbooks, as a peer for our server: fgets, write, read into a small
 * buffer, half-close. Usage: textbook_client PORT < lines. Prints what came back. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SMALL = 30 };

int main(int argc, char **argv)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
    char line[1024], back[SMALL];
    ssize_t n;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    inet_pton(AF_INET, "127.0.0.1", &server.sin_addr);
    if (connect(fd, (struct sockaddr *)&server, sizeof server) < 0)
        return 1;
    while (fgets(line, sizeof line, stdin)) {
        size_t left = strlen(line);
        if (write(fd, line, left) != (ssize_t)left)
            return 2;
    }
    shutdown(fd, SHUT_WR);
    while ((n = read(fd, back, sizeof back)) > 0)
        fwrite(back, 1, (size_t)n, stdout);
    return n < 0 ? 3 : 0;
}
