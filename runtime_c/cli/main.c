#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stdio.h>

#include "cli.h"

int cli_fail(const char *format, ...)
{
    va_list arguments;
    fprintf(stderr, "%s: error: ", enx_cli_model->name);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return CLI_USER_ERROR;
}

int main(int argc, char **argv)
{
    cli_options_t options;
    int result = cli_parse_options(argc, argv, &options);
    if (result != CLI_OK) {
        return result;
    }
    if (options.show_help) {
        cli_print_help();
    } else if (options.show_version) {
        cli_print_version();
    } else if (options.selftest) {
        result = cli_selftest(&options);
    } else {
        result = cli_classify(&options);
    }
    if ((fflush(stdout) != 0 || ferror(stdout)) && result == CLI_OK) {
        result = cli_fail("cannot write to standard output; check the disk or the pipe behind it");
    }
    return result;
}
