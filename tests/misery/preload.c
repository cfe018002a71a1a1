/* Lets calls of one process hang while files say so: fsync and fdatasync while $MISERY/fsync is
 * there, open of what lies in a folder named dead-nfs while $MISERY/open is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void wait_for(const char *what) {
    char path[256];
    const char *folder = getenv("MISERY");
    if (folder == NULL)
        return;
    snprintf(path, sizeof path, "%s/%s", folder, what);
    while (access(path, F_OK) == 0)
        usleep(50000);
}

int fsync(int fd) {
    static int (*real)(int);
    if (real == NULL)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_for("fsync");
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (real == NULL)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_for("fsync");
    return real(fd);
}

static int opened(const char *name, const char *path, int flags, mode_t mode) {
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);
    if (strstr(path, "/dead-nfs") != NULL)
        wait_for("open");
    return real(path, flags, mode);
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...) {                                                   \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;                    \
        va_end(more);                                                                              \
        return opened(#name, path, flags, mode);                                                   \
    }

OPEN(open)
OPEN(open64)
