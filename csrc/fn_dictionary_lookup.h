/* Answer the words of a batch of datagrams from a table (fn_dictionary.h); the pure twin is
 * service/dictionary_py.py. */
#ifndef FN_LOOKUP_H
#define FN_LOOKUP_H

#include "fn_dictionary.h"

/* Constants of the twin, given once. */
struct fn_phrases {
    const char *unknown, *ellipsis; /* each followed by a newline that may be sent with it */
    uint32_t unknown_bytes, ellipsis_bytes, unvalidated_reply_bytes_max;
};

struct fn_question {
    const char *word;
    uint32_t n, hash;
    int newline, ours; /* newline: it ended with one. ours: our own answer, come back */
};

static inline int fn_is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* What a datagram asks for: its text ends at the first NUL, and blanks around it do not count. */
static inline struct fn_question fn_question_of(const struct fn_phrases *phrases, const char *text, size_t n) {
    struct fn_question question = {.ours = (n == phrases->unknown_bytes || n == phrases->unknown_bytes + 1) &&
                                           memcmp(text, phrases->unknown, n) == 0};
    const char *nul = memchr(text, 0, n);
    if (nul) n = (size_t)(nul - text);
    question.newline = n && text[n - 1] == '\n';
    while (n && fn_is_blank(text[n - 1])) n--;
    while (n && fn_is_blank(*text)) text++, n--;
    question.word = text, question.n = (uint32_t)n;
    return question;
}

/* Put a translation into a reply: whole, or as many characters of it as fit the room, and an
 * ellipsis. */
static inline void fn_translate(const struct fn_phrases *phrases, const char *text, size_t n, int newline, size_t room,
                                struct fn_reply *reply) {
    if (n + (size_t)newline <= room) {
        fn_reply_add(reply, text, n);
        if (newline) fn_reply_add(reply, phrases->unknown + phrases->unknown_bytes, 1);
        return;
    }
    size_t end = room - (size_t)newline - phrases->ellipsis_bytes;
    while (end && (text[end] & 0xC0) == 0x80) end--;
    fn_reply_add(reply, text, end);
    fn_reply_add(reply, phrases->ellipsis, phrases->ellipsis_bytes + (size_t)newline);
}

/* Answer some calls of a batch, at most FN_WORDS_AT_ONCE. */
static inline void fn_lookup_some(const struct fn_words *words, const struct fn_phrases *phrases, struct fn_call *call, uint32_t n) {
    struct fn_question question[FN_WORDS_AT_ONCE];
    for (uint32_t i = 0; i < n; i++) {
        struct fn_question *q = &question[i];
        *q = fn_question_of(phrases, call[i].bytes, call[i].n);
        if (q->n > words->word_bytes_max) continue;
        q->hash = fn_word_hash(q->word, q->n);
        __builtin_prefetch(&words->slot[q->hash & words->mask]);
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct fn_question *q = &question[i];
        const struct fn_word *found = NULL;
        uint32_t slot;
        size_t room = call[i].n > phrases->unvalidated_reply_bytes_max ? call[i].n : phrases->unvalidated_reply_bytes_max;
        if (q->ours) continue;
        if (q->n <= words->word_bytes_max) found = fn_words_find(words, q->word, q->n, q->hash, &slot);
        if (found)
            fn_translate(phrases, found->text + found->word_bytes, found->translation_bytes, q->newline, room, &call[i].reply);
        else
            fn_reply_add(&call[i].reply, phrases->unknown, phrases->unknown_bytes + (size_t)q->newline);
    }
}

static inline void fn_lookup(const struct fn_words *words, const struct fn_phrases *phrases, struct fn_calls *calls) {
    for (uint32_t at = 0; at < calls->n; at += FN_WORDS_AT_ONCE) {
        uint32_t left = calls->n - at;
        fn_lookup_some(words, phrases, calls->call + at, left < FN_WORDS_AT_ONCE ? left : FN_WORDS_AT_ONCE);
    }
}

#endif
