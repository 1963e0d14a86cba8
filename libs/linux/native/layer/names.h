#ifndef GANTRY_NAMES_H
#define GANTRY_NAMES_H

#include "../kernel/error.h"

/* What is in a directory, in byte order (a digest must not depend on the file system's). NULL-terminated; names_free() it. */
char **names_read(int directory, const char *path, struct error *err);
void names_free(char **names);

#endif
