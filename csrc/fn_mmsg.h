/* Several datagrams a system call: recvmmsg(2), sendmmsg(2).
 *
 * The calls are glibc's own; cdefs/mmsg.pxd declares what is used. */
#ifndef FN_MMSG_H
#define FN_MMSG_H

#include "fn_sys.h"

#endif
