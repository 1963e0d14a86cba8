#include "names.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int compare(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

char **names_read(int directory, const char *path, struct error *err) {
    DIR *entries = fdopendir(dup(directory));
    size_t count = 0, room = 64;
    char **names = malloc(room * sizeof *names);
    if (entries == NULL || names == NULL) {
        fail(err, errno, "tree", "read %s", path);
        if (entries != NULL)
            closedir(entries);
        free(names);
        return NULL;
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (count + 1 == room)
            names = realloc(names, (room *= 2) * sizeof *names);
        names[count++] = strdup(entry->d_name);
    }
    closedir(entries);
    names[count] = NULL;
    qsort(names, count, sizeof *names, compare);
    return names;
}

void names_free(char **names) {
    for (char **name = names; name != NULL && *name != NULL; name++)
        free(*name);
    free(names);
}
