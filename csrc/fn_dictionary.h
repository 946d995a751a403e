/* A dictionary: an immutable hash table from words to translations, shared by reference count.
 *
 * Facts. A table of 100,000 entries does not fit the L2 cache, so a lookup waits for memory, twice.
 * Decision: open addressing over eight-byte slots, and one arena that holds the entries. Once
 * published (fn_snapshot.h) a table never changes. */
#ifndef FN_DICTIONARY_H
#define FN_DICTIONARY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct fn_dictionary_slot {
    uint32_t hash;
    uint32_t at; /* offset of the entry in eighths of the arena, plus one; 0: an empty slot */
};

struct fn_dictionary_entry {
    uint32_t word_bytes;
    uint32_t translation_bytes;
    char text[]; /* the word, then the translation */
};

struct fn_dictionary {
    uint32_t users; /* references: the snapshot's and those of loops */
    uint32_t mask;  /* slots less one; their number is a power of two */
    uint32_t word_bytes_max;
    struct fn_dictionary_slot *slot;
    char *arena;
    size_t used; /* bytes of the arena */
};

/* Bytes of the arena that an entry takes. */
static inline size_t fn_dictionary_entry_bytes(size_t word_bytes, size_t translation_bytes) {
    size_t bytes = sizeof(struct fn_dictionary_entry) + word_bytes + translation_bytes;
    return (bytes + 7) & ~(size_t)7;
}

static inline void fn_dictionary_free(struct fn_dictionary *dictionary) {
    free(dictionary->slot);
    free(dictionary->arena);
    free(dictionary);
}

/* An empty table for `entries` entries in `arena_bytes`, with one user. Returns NULL without
 * memory. */
static inline struct fn_dictionary *fn_dictionary_new(size_t entries, size_t arena_bytes) {
    size_t slots = 8;
    while (slots < 2 * entries) {
        slots *= 2;
    }
    struct fn_dictionary *dictionary = malloc(sizeof *dictionary);
    if (!dictionary) {
        return NULL;
    }
    *dictionary = (struct fn_dictionary){.users = 1, .mask = (uint32_t)(slots - 1)};
    dictionary->slot = calloc(slots, sizeof *dictionary->slot);
    dictionary->arena = malloc(arena_bytes ? arena_bytes : 1);
    if (!dictionary->slot || !dictionary->arena) {
        fn_dictionary_free(dictionary);
        return NULL;
    }
    return dictionary;
}

/* Give one reference back; the last one frees the table. NULL is allowed. */
static inline void fn_dictionary_release(struct fn_dictionary *dictionary) {
    if (dictionary && __atomic_sub_fetch(&dictionary->users, 1, __ATOMIC_ACQ_REL) == 0) {
        fn_dictionary_free(dictionary);
    }
}

static inline uint32_t fn_dictionary_hash(const char *text, size_t n) {
    uint64_t hash = n * 0x9E3779B97F4A7C15u;
    uint64_t part;
    while (n >= 8) {
        memcpy(&part, text, 8);
        hash = (hash ^ part) * 0xFF51AFD7ED558CCDu;
        hash ^= hash >> 29;
        text += 8;
        n -= 8;
    }
    part = 0;
    memcpy(&part, text, n);
    hash = (hash ^ part) * 0xFF51AFD7ED558CCDu;
    return (uint32_t)(hash ^ hash >> 32);
}

/* The entry of a word, or NULL and the empty slot where it belongs in *slot. */
static inline const struct fn_dictionary_entry *fn_dictionary_find(
    const struct fn_dictionary *dictionary, const char *text, size_t n, uint32_t hash,
    uint32_t *slot) {
    for (*slot = hash & dictionary->mask; dictionary->slot[*slot].at;
         *slot = (*slot + 1) & dictionary->mask) {
        const struct fn_dictionary_entry *entry;
        if (dictionary->slot[*slot].hash != hash) {
            continue;
        }
        entry = (const void *)(dictionary->arena + 8 * (size_t)(dictionary->slot[*slot].at - 1));
        if (entry->word_bytes == n && memcmp(entry->text, text, n) == 0) {
            return entry;
        }
    }
    return NULL;
}

/* Add a word that has no entry yet, to a table that is not published. */
static inline void fn_dictionary_add(struct fn_dictionary *dictionary, const char *word, size_t n,
                                     const char *translation, size_t m) {
    struct fn_dictionary_entry *entry = (void *)(dictionary->arena + dictionary->used);
    uint32_t hash = fn_dictionary_hash(word, n);
    uint32_t slot;
    entry->word_bytes = (uint32_t)n;
    entry->translation_bytes = (uint32_t)m;
    memcpy(entry->text, word, n);
    memcpy(entry->text + n, translation, m);
    fn_dictionary_find(dictionary, word, n, hash, &slot);
    dictionary->slot[slot].hash = hash;
    dictionary->slot[slot].at = (uint32_t)(dictionary->used / 8) + 1;
    dictionary->used += fn_dictionary_entry_bytes(n, m);
    if (n > dictionary->word_bytes_max) {
        dictionary->word_bytes_max = (uint32_t)n;
    }
}

#endif
