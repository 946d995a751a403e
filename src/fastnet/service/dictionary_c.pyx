"""A dictionary, native, for datagrams: a hash table over one block of memory, replaced whole. Twin:
dictionary_py.py.

Connections are served by the twin: a line may come in pieces, and a native service has no memory
for them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from fastnet.cdefs.dictionary cimport (
    fn_shelf, fn_shelf_open, fn_shelf_put, fn_shelf_take, fn_word_room, fn_words, fn_words_add,
    fn_words_drop, fn_words_new,
)
from fastnet.cdefs.dictionary_lookup cimport fn_lookup, fn_phrases
from fastnet.cdefs.service cimport fn_calls, fn_service
from fastnet.engine.context_c cimport NativeService

from fastnet.limits import DICTIONARY_ARENA_BYTES_MAX, UNVALIDATED_REPLY_BYTES_MAX
from fastnet.service.dictionary_py import ELLIPSIS, UNKNOWN


cdef struct Desk:
    fn_shelf shelf
    fn_phrases phrases


cdef class NativeDictionary(NativeService):
    cdef Desk desk
    cdef bytes unknown, ellipsis

    def replace(self, dict entries):
        """Answer from other entries from now on: loops take the new table with their next batch."""
        cdef bytes word, translation
        cdef size_t room = 0
        cdef fn_words *words
        for word, translation in entries.items():
            room += fn_word_room(PyBytes_GET_SIZE(word), PyBytes_GET_SIZE(translation))
        if room > DICTIONARY_ARENA_BYTES_MAX:
            raise MemoryError("too many words for one table")
        words = fn_words_new(len(entries), room)
        if words == NULL:
            raise MemoryError("no memory for the words")
        for word, translation in entries.items():
            fn_words_add(
                words, PyBytes_AS_STRING(word), PyBytes_GET_SIZE(word),
                PyBytes_AS_STRING(translation), PyBytes_GET_SIZE(translation),
            )
        fn_shelf_put(&self.desk.shelf, words)

    def answer_up_to(self, int unvalidated_reply_bytes_max):
        """Cut what is longer than this and than its question. Before a loop runs."""
        self.desk.phrases.unvalidated_reply_bytes_max = unvalidated_reply_bytes_max

    def __dealloc__(self):
        fn_words_drop(self.desk.shelf.newest)


cdef void batch(const fn_service *service, fn_calls *calls) noexcept nogil:
    cdef Desk *desk = <Desk *>service.own
    if calls.n:
        fn_lookup(fn_shelf_take(&desk.shelf, &calls.kept), &desk.phrases, calls)
        return
    fn_words_drop(<fn_words *>calls.kept)
    calls.kept = NULL


def create():
    cdef NativeDictionary service = NativeDictionary(b"")
    service.unknown, service.ellipsis = UNKNOWN + b"\n", ELLIPSIS + b"\n"
    service.desk.phrases.unknown, service.desk.phrases.ellipsis = service.unknown, service.ellipsis
    service.desk.phrases.unknown_bytes, service.desk.phrases.ellipsis_bytes = len(UNKNOWN), len(ELLIPSIS)
    service.answer_up_to(UNVALIDATED_REPLY_BYTES_MAX)
    fn_shelf_open(&service.desk.shelf)
    service.replace({})
    service.c.own = &service.desk
    service.c.batch = batch
    return service
