/* A table of words and their translations that never changes, and the shelf from which loops take
 * the newest one.
 *
 * Facts. A table of 100,000 entries does not fit the L2 cache, so a look-up waits for memory,
 * twice; but the words of a batch do not depend on each other. A loop that answers from a table
 * must not have it freed under its feet, and must not take a lock for each datagram.
 * Decision: open addressing over eight-byte slots and one arena; a batch first asks for all slots
 * it will need and then looks. A loop keeps a reference to the table it used last; as long as that
 * is still the newest, looking costs no atomic operation, and as it cannot be freed, no other can
 * have its address. An older one is freed when the last loop has gone on to the next.
 * Cost: a loop that is idle keeps the table it answered from last. */
#ifndef FN_WORDS_H
#define FN_WORDS_H

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fn_service.h"

enum { FN_WORDS_AT_ONCE = 256 };

struct fn_word_slot {
    uint32_t hash, at; /* at: eighths of the arena, plus one; 0: empty */
};

struct fn_word {
    uint32_t word_bytes, translation_bytes;
    char text[]; /* the word, then the translation */
};

struct fn_words {
    uint32_t users;
    uint32_t mask, word_bytes_max;
    struct fn_word_slot *slot;
    char *arena;
    size_t used;
};

struct fn_shelf {
    pthread_mutex_t lock; /* for whoever changes `newest` or takes a reference to it */
    struct fn_words *newest;
};

/* How many bytes of the arena an entry takes. */
static inline size_t fn_word_room(size_t word_bytes, size_t translation_bytes) {
    return (sizeof(struct fn_word) + word_bytes + translation_bytes + 7) & ~(size_t)7;
}

/* An empty table for so many entries and so many bytes of arena, with one user. Returns NULL
 * without memory. */
static inline struct fn_words *fn_words_new(size_t entries, size_t bytes) {
    size_t slots = 8;
    while (slots < 2 * entries) slots *= 2;
    struct fn_words *words = malloc(sizeof *words);
    if (!words) return NULL;
    *words = (struct fn_words){.users = 1, .mask = (uint32_t)(slots - 1)};
    words->slot = calloc(slots, sizeof *words->slot);
    words->arena = malloc(bytes ? bytes : 1);
    if (words->slot && words->arena) return words;
    free(words->slot), free(words->arena), free(words);
    return NULL;
}

static inline void fn_words_drop(struct fn_words *words) {
    if (!words || __atomic_sub_fetch(&words->users, 1, __ATOMIC_ACQ_REL)) return;
    free(words->slot), free(words->arena), free(words);
}

static inline uint32_t fn_word_hash(const char *text, size_t n) {
    uint64_t hash = n * 0x9E3779B97F4A7C15u, part;
    for (; n >= 8; n -= 8, text += 8) {
        memcpy(&part, text, 8);
        hash = (hash ^ part) * 0xFF51AFD7ED558CCDu;
        hash ^= hash >> 29;
    }
    part = 0;
    memcpy(&part, text, n);
    hash = (hash ^ part) * 0xFF51AFD7ED558CCDu;
    return (uint32_t)(hash ^ hash >> 32);
}

/* The entry of a word, or the empty slot where it would be, in *slot. */
static inline const struct fn_word *fn_words_find(const struct fn_words *words, const char *text, size_t n, uint32_t hash,
                                                  uint32_t *slot) {
    for (*slot = hash & words->mask; words->slot[*slot].at; *slot = (*slot + 1) & words->mask) {
        if (words->slot[*slot].hash != hash) continue;
        const struct fn_word *found = (const void *)(words->arena + 8 * (size_t)(words->slot[*slot].at - 1));
        if (found->word_bytes == n && memcmp(found->text, text, n) == 0) return found;
    }
    return NULL;
}

/* Add an entry that is not there yet, to a table that nobody else has. */
static inline void fn_words_add(struct fn_words *words, const char *word, size_t n, const char *translation, size_t m) {
    struct fn_word *entry = (void *)(words->arena + words->used);
    uint32_t slot, hash = fn_word_hash(word, n);
    entry->word_bytes = (uint32_t)n, entry->translation_bytes = (uint32_t)m;
    memcpy(entry->text, word, n);
    memcpy(entry->text + n, translation, m);
    fn_words_find(words, word, n, hash, &slot);
    words->slot[slot] = (struct fn_word_slot){hash, (uint32_t)(words->used / 8) + 1};
    words->used += fn_word_room(n, m);
    if (n > words->word_bytes_max) words->word_bytes_max = (uint32_t)n;
}

static inline void fn_shelf_open(struct fn_shelf *shelf) {
    *shelf = (struct fn_shelf){.newest = NULL};
    pthread_mutex_init(&shelf->lock, NULL);
}

/* Put a newer table on the shelf, which takes over its one user. */
static inline void fn_shelf_put(struct fn_shelf *shelf, struct fn_words *words) {
    pthread_mutex_lock(&shelf->lock);
    struct fn_words *old = shelf->newest;
    __atomic_store_n(&shelf->newest, words, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&shelf->lock);
    fn_words_drop(old);
}

/* The newest table, for a loop whose last one is *kept. */
static inline const struct fn_words *fn_shelf_take(struct fn_shelf *shelf, void **kept) {
    struct fn_words *words = *kept;
    if (words && words == __atomic_load_n(&shelf->newest, __ATOMIC_ACQUIRE)) return words;
    fn_words_drop(words);
    pthread_mutex_lock(&shelf->lock);
    words = shelf->newest;
    __atomic_add_fetch(&words->users, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&shelf->lock);
    *kept = words;
    return words;
}

#endif
