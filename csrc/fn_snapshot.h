/* A published snapshot of a dictionary, replaced while loops read it (in the manner of RCU).
 *
 * Facts. A loop that answers from a table must not have it freed while it reads, and must not take
 * a lock for each datagram.
 * Decision: a loop keeps a reference to the table it used last; while that is still the newest,
 * acquiring costs one atomic load, and as it cannot be freed, no other can have its address. An
 * older table is freed when the last loop has acquired the next.
 * Cost: an idle loop keeps the table it answered from last. */
#ifndef FN_SNAPSHOT_H
#define FN_SNAPSHOT_H

#include <pthread.h>

#include "fn_dictionary.h"

struct fn_snapshot {
    pthread_mutex_t lock; /* held to change `newest` or to take a reference to it */
    struct fn_dictionary *newest;
};

static inline void fn_snapshot_open(struct fn_snapshot *snapshot) {
    *snapshot = (struct fn_snapshot){.newest = NULL};
    pthread_mutex_init(&snapshot->lock, NULL);
}

/* Publish a newer table. The snapshot takes over the reference. */
static inline void fn_snapshot_publish(struct fn_snapshot *snapshot,
                                       struct fn_dictionary *dictionary) {
    pthread_mutex_lock(&snapshot->lock);
    struct fn_dictionary *old = snapshot->newest;
    __atomic_store_n(&snapshot->newest, dictionary, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&snapshot->lock);
    fn_dictionary_release(old);
}

/* The newest table. *kept is the loop's reference: the table it used last, or NULL. */
static inline const struct fn_dictionary *fn_snapshot_acquire(struct fn_snapshot *snapshot,
                                                              void **kept) {
    struct fn_dictionary *dictionary = *kept;
    if (dictionary && dictionary == __atomic_load_n(&snapshot->newest, __ATOMIC_ACQUIRE)) {
        return dictionary;
    }
    fn_dictionary_release(dictionary);
    pthread_mutex_lock(&snapshot->lock);
    dictionary = snapshot->newest;
    __atomic_add_fetch(&dictionary->users, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&snapshot->lock);
    *kept = dictionary;
    return dictionary;
}

#endif
