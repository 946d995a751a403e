/* All names in a folder, each with what lstat(2) says of it. Twin:
 * apps/transfer/smallfiles/survey_py.py.
 *
 * Decision: names stand one after another in one buffer and are found by offsets, because it moves
 * as it grows. */
#ifndef FN_SURVEY_H
#define FN_SURVEY_H

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fn_sys.h"

#define FN_SURVEY_ROOM 64           /* names at first, and 32 bytes for each */

struct fn_found {
    size_t name;                    /* offset in names */
    struct stat status;
};

struct fn_survey {
    struct fn_found *found;
    char *names;
    size_t count, room, names_bytes, names_room;
};

static inline void fn_survey_close(struct fn_survey *s) {
    free(s->found);
    free(s->names);
}

/* Room for one more name of `bytes` bytes. Returns 0 or -ENOMEM. */
static inline int fn_survey_room(struct fn_survey *s, size_t bytes) {
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : FN_SURVEY_ROOM;
        struct fn_found *wider = realloc(s->found, room * sizeof *wider);
        if (!wider) return -ENOMEM;
        s->found = wider, s->room = room;
    }
    if (s->names_room - s->names_bytes < bytes) {
        size_t room = 2 * s->names_room + 32 * FN_SURVEY_ROOM + bytes;
        char *wider = realloc(s->names, room);
        if (!wider) return -ENOMEM;
        s->names = wider, s->names_room = room;
    }
    return 0;
}

/* Add a name. On an error of lstat(2) it is the last one, so that it can be told. Returns 0 or
 * -errno. */
static inline int fn_survey_add(struct fn_survey *s, int folder, const char *name) {
    size_t bytes = strlen(name) + 1;
    int result = fn_survey_room(s, bytes);
    if (result < 0) return result;
    struct fn_found *found = &s->found[s->count++];
    found->name = s->names_bytes;
    memcpy(s->names + s->names_bytes, name, bytes);
    s->names_bytes += bytes;
    return fstatat(folder, name, &found->status, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* Everything in the folder at `path`. s: zeros; to be closed whatever comes back. Returns 0 or
 * -errno. */
static inline int fn_survey_folder(struct fn_survey *s, const char *path) {
    DIR *folder = opendir(path);
    if (!folder) return -errno;
    int result = 0;
    struct dirent *each;
    while (!result && (errno = 0, each = readdir(folder)))
        if (strcmp(each->d_name, ".") != 0 && strcmp(each->d_name, "..") != 0)
            result = fn_survey_add(s, dirfd(folder), each->d_name);
    if (!result && errno) result = -errno;
    closedir(folder);
    return result;
}

#endif
