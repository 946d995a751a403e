"""Dictionary service for datagrams, native: an immutable hash table, replaced whole.

Connections are served by the twin, dictionary_py.py: a line may come in pieces, and a native
service has no memory for them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from fastnet.cdefs.dictionary cimport (
    fn_dictionary, fn_dictionary_add, fn_dictionary_entry_bytes, fn_dictionary_new,
    fn_dictionary_release,
)
from fastnet.cdefs.dictionary_lookup cimport fn_dictionary_lookup, fn_dictionary_phrases
from fastnet.cdefs.service cimport fn_calls, fn_service
from fastnet.cdefs.snapshot cimport (
    fn_snapshot, fn_snapshot_acquire, fn_snapshot_open, fn_snapshot_publish,
)
from fastnet.engine.context_c cimport NativeService

from fastnet.limits import DICTIONARY_ARENA_BYTES_MAX, UNVALIDATED_REPLY_BYTES_MAX
from fastnet.service.dictionary_py import ELLIPSIS, UNKNOWN


cdef struct DictionaryState:
    fn_snapshot snapshot
    fn_dictionary_phrases phrases


cdef class NativeDictionary(NativeService):
    cdef DictionaryState state
    cdef bytes unknown, ellipsis

    def replace(self, dict entries):
        """Publish other entries; loops acquire them with their next batch."""
        cdef bytes word, translation
        cdef size_t arena_bytes = 0
        cdef fn_dictionary *dictionary
        for word, translation in entries.items():
            arena_bytes += fn_dictionary_entry_bytes(
                PyBytes_GET_SIZE(word), PyBytes_GET_SIZE(translation)
            )
        if arena_bytes > DICTIONARY_ARENA_BYTES_MAX:
            raise MemoryError("too many words for one table")
        dictionary = fn_dictionary_new(len(entries), arena_bytes)
        if dictionary == NULL:
            raise MemoryError("no memory for the words")
        for word, translation in entries.items():
            fn_dictionary_add(
                dictionary, PyBytes_AS_STRING(word), PyBytes_GET_SIZE(word),
                PyBytes_AS_STRING(translation), PyBytes_GET_SIZE(translation),
            )
        fn_snapshot_publish(&self.state.snapshot, dictionary)

    def answer_up_to(self, int unvalidated_reply_bytes_max):
        """Cut replies longer than this and than their request. Before a loop runs."""
        self.state.phrases.unvalidated_reply_bytes_max = unvalidated_reply_bytes_max

    def __dealloc__(self):
        fn_dictionary_release(self.state.snapshot.newest)


cdef void batch(const fn_service *service, fn_calls *calls) noexcept nogil:
    cdef DictionaryState *state = <DictionaryState *>service.own
    if calls.n:
        fn_dictionary_lookup(
            fn_snapshot_acquire(&state.snapshot, &calls.kept), &state.phrases, calls
        )
        return
    fn_dictionary_release(<fn_dictionary *>calls.kept)
    calls.kept = NULL


def create():
    cdef NativeDictionary service = NativeDictionary(b"")
    service.unknown = UNKNOWN + b"\n"
    service.ellipsis = ELLIPSIS + b"\n"
    service.state.phrases.unknown = service.unknown
    service.state.phrases.unknown_bytes = len(UNKNOWN)
    service.state.phrases.ellipsis = service.ellipsis
    service.state.phrases.ellipsis_bytes = len(ELLIPSIS)
    service.answer_up_to(UNVALIDATED_REPLY_BYTES_MAX)
    fn_snapshot_open(&service.state.snapshot)
    service.replace({})
    service.c.own = &service.state
    service.c.batch = batch
    return service
