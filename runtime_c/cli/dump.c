/* The logits as .npy, written beside the target and renamed when complete. */
#define _XOPEN_SOURCE 700 /* SIGXFSZ */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

enum { HEADER_BYTES = 128 };

/* What a signal that ends the program has to remove first; NULL when nothing is half-written. */
static const char *volatile partial_path;
static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGXFSZ};

static void remove_partial(int number)
{
    if (partial_path != NULL) {
        unlink(partial_path);
    }
    raise(number); /* with the default action again, by SA_RESETHAND */
}

static void watch_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = remove_partial;
    action.sa_flags = (int)SA_RESETHAND;
    for (size_t i = 0; i < sizeof ending_signals / sizeof ending_signals[0]; ++i) {
        struct sigaction former;
        if (sigaction(ending_signals[i], NULL, &former) == 0 && former.sa_handler == SIG_DFL) {
            sigaction(ending_signals[i], &action, NULL);
        }
    }
}

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
    watch_signals();
    partial_path = dump->temporary;
    dump->file = fopen(dump->temporary, "wb");
    if (dump->file == NULL) {
        partial_path = NULL;
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
    partial_path = NULL;
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
        partial_path = NULL;
        free(dump->temporary);
        dump->temporary = NULL;
    }
}
