"""LoopContext (engine/context.py) as a struct fn_context; the native service holder.

The structs point into Python objects: the mapping of the stop word, the counter rows, the packed
networks, a service's text. `keep` holds those objects, so they live as long as the struct.
"""

from libc.stdint cimport uint32_t

from fastnet.cdefs.access cimport fn_network
from fastnet.cdefs.context cimport FN_LISTENERS_MAX
from fastnet.cdefs.counters cimport fn_counter_names

from fastnet.transport import access
from fastnet.metrics import counters

if tuple(fn_counter_names.decode().split()) != counters.FIELDS:
    raise ImportError(
        "csrc/fn_counters.h and metrics/counters.py differ: build the extensions again"
    )


cdef class NativeService:
    """A struct fn_service whose functions a service module fills in."""

    def __cinit__(self, bytes text):
        self.text = text
        self.c.text = text
        self.c.text_bytes = len(text)
        self.c.own = <void *>self


cdef class NativeLoopContext:
    """A struct fn_context made from a LoopContext."""

    def __cinit__(self, context):
        cdef const unsigned char[::1] stop = context.stop.memory
        cdef unsigned char[::1] rows = context.counters.memory
        cdef bytes networks = context.access.packed()
        cdef NativeService service = context.service
        limits = context.limits
        if len(context.listeners) > FN_LISTENERS_MAX:
            raise ValueError(f"a loop has at most {FN_LISTENERS_MAX} listeners")
        for i, listener in enumerate(context.listeners):
            self.c.listener[i] = listener.fileno()
        self.c.listeners = len(context.listeners)
        self.c.service = &service.c
        self.c.access.network = <const fn_network *><const char *>networks
        self.c.access.networks = len(networks) // access.RECORD.size
        self.c.access.any_allow = any(allow for _, _, allow in context.access.networks)
        self.c.stop = <const uint32_t *>&stop[0]
        self.c.drain_fd = context.stop.drain_fd
        self.c.now_fd = context.stop.now_fd
        self.c.trace_fd = context.trace_fd
        self.c.rows = <char *>&rows[0]
        self.c.row_bytes = counters.ROW_BYTES
        self.c.max_connections = limits.max_connections
        self.c.accept_burst = limits.accept_burst
        self.c.accept_pause_ms = milliseconds(limits.accept_pause_s)
        self.c.accept_drain_max = limits.accept_drain_max
        self.c.answered_port_min = limits.answered_port_min
        self.c.send_timeout_ms = milliseconds(limits.send_timeout_s)
        self.c.events_per_wait = limits.events_per_wait
        self.c.idle_timeout_ms = milliseconds(limits.idle_timeout_s)
        self.c.tick_ms = milliseconds(limits.tick_s)
        self.c.pool_size = limits.pool_size
        self.c.pool_queue_max = limits.pool_queue_max
        self.c.thread_stack_bytes = limits.thread_stack_bytes
        self.c.read_bytes = limits.read_bytes
        self.c.answer_any_port = limits.answer_any_port
        self.c.unvalidated_reply_bytes_max = limits.unvalidated_reply_bytes_max
        self.c.datagram_bytes_max = limits.datagram_bytes_max
        self.c.busy_poll_ns = limits.busy_poll_us * 1000
        self.c.write_buffer_bytes_max = limits.write_buffer_bytes_max
        self.keep = (context, networks, stop, rows)


cdef uint32_t milliseconds(double seconds):
    """Rounded up, so that a tiny timeout does not become none."""
    return <uint32_t>(seconds * 1000 + 0.999)
