/* Looks up the words of a batch of datagrams; the pure twin is service/dictionary_py.py.
 *
 * Facts. The lookups of a batch do not depend on each other, so their cache misses can overlap.
 * Decision: a first pass hashes all words and prefetches their slots, a second looks them up. */
#ifndef FN_DICTIONARY_LOOKUP_H
#define FN_DICTIONARY_LOOKUP_H

#include "fn_dictionary.h"
#include "fn_service.h"

enum { FN_DICTIONARY_QUERIES = 256 }; /* looked up in one pass */

/* Constants of the twin. Each text is followed by a newline that may be sent with it. */
struct fn_dictionary_phrases {
    const char *unknown;
    const char *ellipsis;
    uint32_t unknown_bytes;
    uint32_t ellipsis_bytes;
    uint32_t unvalidated_reply_bytes_max;
};

struct fn_dictionary_query {
    const char *word;
    uint32_t n;
    uint32_t hash;
    int newline; /* the text ended with one */
    int is_own;  /* our own answer, come back */
};

static inline int fn_dictionary_is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static inline int fn_dictionary_is_own(const struct fn_dictionary_phrases *phrases,
                                       const char *text, size_t n) {
    return (n == phrases->unknown_bytes || n == phrases->unknown_bytes + 1) &&
           memcmp(text, phrases->unknown, n) == 0;
}

/* The query in a datagram: its text ends at the first NUL, without the blanks around it. */
static inline struct fn_dictionary_query fn_dictionary_parse(
    const struct fn_dictionary_phrases *phrases, const char *text, size_t n) {
    struct fn_dictionary_query query = {.is_own = fn_dictionary_is_own(phrases, text, n)};
    const char *nul = memchr(text, 0, n);
    if (nul) {
        n = (size_t)(nul - text);
    }
    query.newline = n && text[n - 1] == '\n';
    while (n && fn_dictionary_is_blank(text[n - 1])) {
        n--;
    }
    while (n && fn_dictionary_is_blank(*text)) {
        text++;
        n--;
    }
    query.word = text;
    query.n = (uint32_t)n;
    return query;
}

/* Add a translation to a reply of at most `room` bytes: whole, or cut between two UTF-8 characters
 * with an ellipsis. */
static inline void fn_dictionary_translate(const struct fn_dictionary_phrases *phrases,
                                           const char *text, size_t n, int newline, size_t room,
                                           struct fn_reply *reply) {
    if (n + (size_t)newline <= room) {
        fn_reply_add(reply, text, n);
        if (newline) {
            fn_reply_add(reply, phrases->unknown + phrases->unknown_bytes, 1);
        }
        return;
    }
    size_t end = room - (size_t)newline - phrases->ellipsis_bytes;
    while (end && (text[end] & 0xC0) == 0x80) {
        end--;
    }
    fn_reply_add(reply, text, end);
    fn_reply_add(reply, phrases->ellipsis, phrases->ellipsis_bytes + (size_t)newline);
}

/* Reply to one call. */
static inline void fn_dictionary_answer(const struct fn_dictionary *dictionary,
                                        const struct fn_dictionary_phrases *phrases,
                                        const struct fn_dictionary_query *query,
                                        struct fn_call *call) {
    const struct fn_dictionary_entry *entry = NULL;
    size_t room = phrases->unvalidated_reply_bytes_max;
    uint32_t slot;
    if (query->is_own) {
        return;
    }
    if (call->n > room) {
        room = call->n;
    }
    if (query->n <= dictionary->word_bytes_max) {
        entry = fn_dictionary_find(dictionary, query->word, query->n, query->hash, &slot);
    }
    if (entry) {
        fn_dictionary_translate(phrases, entry->text + entry->word_bytes, entry->translation_bytes,
                                query->newline, room, &call->reply);
        return;
    }
    fn_reply_add(&call->reply, phrases->unknown, phrases->unknown_bytes + (size_t)query->newline);
}

/* Reply to some calls of a batch, at most FN_DICTIONARY_QUERIES. */
static inline void fn_dictionary_lookup_some(const struct fn_dictionary *dictionary,
                                             const struct fn_dictionary_phrases *phrases,
                                             struct fn_call *call, uint32_t n) {
    struct fn_dictionary_query queries[FN_DICTIONARY_QUERIES];
    for (uint32_t i = 0; i < n; i++) {
        struct fn_dictionary_query *query = &queries[i];
        *query = fn_dictionary_parse(phrases, call[i].bytes, call[i].n);
        if (query->n <= dictionary->word_bytes_max) {
            query->hash = fn_dictionary_hash(query->word, query->n);
            __builtin_prefetch(&dictionary->slot[query->hash & dictionary->mask]);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        fn_dictionary_answer(dictionary, phrases, &queries[i], &call[i]);
    }
}

/* Reply to all calls of a batch. */
static inline void fn_dictionary_lookup(const struct fn_dictionary *dictionary,
                                        const struct fn_dictionary_phrases *phrases,
                                        struct fn_calls *calls) {
    uint32_t at = 0;
    while (at < calls->n) {
        uint32_t n = calls->n - at;
        if (n > FN_DICTIONARY_QUERIES) {
            n = FN_DICTIONARY_QUERIES;
        }
        fn_dictionary_lookup_some(dictionary, phrases, calls->call + at, n);
        at += n;
    }
}

#endif
