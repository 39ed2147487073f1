/* The logits as .npy, written beside the target and renamed when complete. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

enum { HEADER_BYTES = 128 };

static int fail(const cli_dump_t *dump)
{
    return cli_fail("cannot write --dump '%s': %s; give a path in a folder that exists, is writable and has room",
                    dump->path, strerror(errno));
}

static int write_header(cli_dump_t *dump, uint32_t rows)
{
    char header[HEADER_BYTES + 1];
    memset(header, ' ', sizeof header);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (char)(HEADER_BYTES - 10);
    header[9] = 0;
    const int length = snprintf(header + 10, sizeof header - 10,
                                "{'descr': '<f4', 'fortran_order': False, 'shape': (%u, %u), }", rows,
                                enx_cli_model->num_classes);
    header[10 + length] = ' ';
    header[HEADER_BYTES - 1] = '\n';
    return fwrite(header, 1, HEADER_BYTES, dump->file) == HEADER_BYTES ? CLI_OK : fail(dump);
}

int cli_dump_open(cli_dump_t *dump, const char *path, uint32_t rows)
{
    struct stat status;
    memset(dump, 0, sizeof *dump);
    dump->path = path;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        return cli_fail("cannot write --dump '%s': it is a folder, pipe or device; give the path of a file", path);
    }
    const size_t bytes = strlen(path) + 32;
    dump->temporary = (char *)malloc(bytes);
    if (dump->temporary == NULL) {
        errno = ENOMEM;
        return fail(dump);
    }
    snprintf(dump->temporary, bytes, "%s.%ld.partial", path, (long)getpid());
    dump->file = fopen(dump->temporary, "wb");
    if (dump->file == NULL) {
        free(dump->temporary);
        dump->temporary = NULL;
        return fail(dump);
    }
    return write_header(dump, rows);
}

int cli_dump_row(cli_dump_t *dump, const float *logits)
{
    const size_t count = enx_cli_model->num_classes;
    return fwrite(logits, sizeof *logits, count, dump->file) == count ? CLI_OK : fail(dump);
}

int cli_dump_commit(cli_dump_t *dump)
{
    FILE *file = dump->file;
    dump->file = NULL;
    if (fclose(file) != 0 || rename(dump->temporary, dump->path) != 0) {
        return fail(dump);
    }
    free(dump->temporary);
    dump->temporary = NULL;
    return CLI_OK;
}

void cli_dump_close(cli_dump_t *dump)
{
    if (dump->file != NULL) {
        fclose(dump->file);
        dump->file = NULL;
    }
    if (dump->temporary != NULL) {
        unlink(dump->temporary);
        free(dump->temporary);
        dump->temporary = NULL;
    }
}
