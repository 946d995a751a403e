"""Daytime (RFC 867), native: the line is formatted in the reply's scratch space.

The pure twin is daytime_py.py.
"""

from libc.stdio cimport snprintf
from libc.time cimport time

from fastnet.cdefs.service cimport (
    FN_REPLY_END, FN_SCRATCH_BYTES, fn_reply, fn_reply_add, fn_service,
)
from fastnet.engine.context_c cimport NativeService

cdef const char **WEEKDAYS = [
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
]
cdef const char **MONTHS = [
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
]


cdef int line(long long seconds, char *out, size_t room) noexcept nogil:
    """Write the line into out. Returns its length.

    gmtime(3) takes a lock, so the calendar is computed here: years start in March, which puts the
    leap day at the end, and a 400-year era has 146097 days.
    """
    cdef long long days = seconds // 86400
    cdef int clock = <int>(seconds % 86400)
    cdef long long era = (days + 719468) // 146097
    cdef int day_of_era = <int>(days + 719468 - era * 146097)
    cdef int leap_days = day_of_era // 1460 - day_of_era // 36524 + day_of_era // 146096
    cdef int year_of_era = (day_of_era - leap_days) // 365
    cdef int day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef int from_march = (5 * day_of_year + 2) // 153
    cdef int day = day_of_year - (153 * from_march + 2) // 5 + 1
    cdef int month = from_march + 2 if from_march < 10 else from_march - 10
    cdef long long year = era * 400 + year_of_era + (1 if month < 2 else 0)
    return snprintf(
        out, room, "%s, %s %d, %lld %02d:%02d:%02d-UTC\r\n",
        WEEKDAYS[(days + 3) % 7], MONTHS[month], day, year,
        <int>(clock // 3600), <int>(clock // 60 % 60), <int>(clock % 60),
    )


cdef void open_connection(const fn_service *service, fn_reply *reply) noexcept nogil:
    fn_reply_add(reply, reply.scratch, line(time(NULL), reply.scratch, FN_SCRATCH_BYTES))
    reply.flags = FN_REPLY_END


cdef void datagram(
    const fn_service *service, char *bytes, size_t n, fn_reply *reply
) noexcept nogil:
    open_connection(service, reply)


def line_for(long long seconds):
    """The line for a time in seconds since 1970, for the parity tests."""
    cdef char out[FN_SCRATCH_BYTES]
    cdef int n = line(seconds, out, FN_SCRATCH_BYTES)
    return out[:n]


def create():
    cdef NativeService service = NativeService(b"")
    service.c.open = open_connection
    service.c.datagram = datagram
    return service
