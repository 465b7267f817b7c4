/* replay_main - run a fuzz target over the files, and the files in the folders, given as arguments. */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    struct stat st;
    int rc = 1;

    if (f == NULL || fstat(fileno(f), &st) != 0)
        goto out;
    data = malloc(st.st_size > 0 ? (size_t)st.st_size : 1); /* exact, so that a read past the end is caught */
    if (data == NULL || fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
        goto out;
    (void)LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
    rc = 0;
out:
    if (rc != 0)
        perror(path);
    free(data);
    if (f != NULL)
        fclose(f);
    return rc;
}

static int replay(const char *path, unsigned *count)
{
    DIR *dir = opendir(path);
    struct dirent *e;
    int rc = 0;

    if (dir == NULL) {
        ++*count;
        return replay_file(path);
    }
    while ((e = readdir(dir)) != NULL) {
        char inner[4096];

        if (e->d_name[0] == '.')
            continue;
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        rc |= replay(inner, count);
    }
    closedir(dir);
    return rc;
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    int rc = 0;

    for (int i = 1; i < argc; i++)
        rc |= replay(argv[i], &count);
    printf("%u inputs\n", count);
    return rc != 0 || count == 0;
}
