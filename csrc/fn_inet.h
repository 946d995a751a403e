/* Socket addresses and the calls that take them: ip(7), ipv6(7), unix(7), inet_ntop(3).
 *
 * The calls are glibc's own; cdefs/inet.pxd declares those that are used. */
#ifndef FN_INET_H
#define FN_INET_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "fn_sys.h"

enum { FN_SUN_PATH_OFFSET = offsetof(struct sockaddr_un, sun_path) };

#endif
