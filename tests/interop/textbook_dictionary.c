/* The dictionary client of the textbooks: a buffer of fixed size, sent whole with its NULs, and the
 * answer printed. Usage: textbook_dictionary PORT WORD... */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { SIZE = 128 };

int main(int argc, char **argv)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    inet_pton(AF_INET, "127.0.0.1", &server.sin_addr);
    for (int i = 2; i < argc; i++) {
        char word[SIZE] = {0}, answer[SIZE] = {0};
        strncpy(word, argv[i], SIZE - 1);
        sendto(fd, word, sizeof word, 0, (struct sockaddr *)&server, sizeof server);
        if (recvfrom(fd, answer, sizeof answer - 1, 0, NULL, NULL) < 0)
            return 1;
        puts(answer);
    }
    return 0;
}
