#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"

enum { MAX_REPEAT = 1000000, DEFAULT_TOP = 5, DEFAULT_MEASURED_REPEAT = 50 };

enum {
    OPTION_TOP = 256,
    OPTION_REPEAT,
    OPTION_THREADS,
    OPTION_BENCHMARK,
    OPTION_SELFTEST,
    OPTION_DUMP,
    OPTION_PROFILE,
    OPTION_JSON,
    OPTION_HELP,
    OPTION_VERSION
};

static const struct option long_options[] = {
    {"top", required_argument, NULL, OPTION_TOP},
    {"repeat", required_argument, NULL, OPTION_REPEAT},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"benchmark", no_argument, NULL, OPTION_BENCHMARK},
    {"selftest", no_argument, NULL, OPTION_SELFTEST},
    {"dump", required_argument, NULL, OPTION_DUMP},
    {"profile", no_argument, NULL, OPTION_PROFILE},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

void cli_print_help(void)
{
    const enx_model_t *model = enx_cli_model;
    printf("usage: %s [options] IMAGE...\n\n"
           "Classifies images into %u classes.\n\n"
           "IMAGE is one of\n"
           "  .ppm .pgm   binary P6 or P5, 8 bits, any size up to %dx%d\n"
           "  .npy        uint8 [H,W,3] image or [B,H,W,3] batch of images, run one by one\n"
           "  .npy        %s [%d,%d,3] or [B,%d,%d,3]: the network's input itself\n\n",
           model->name, model->num_classes, ENX_MAX_IMAGE_SIDE, ENX_MAX_IMAGE_SIDE,
           model->input.dtype == ENX_DTYPE_INT8 ? "int8" : "float32", model->input.shape[1],
           model->input.shape[2], model->input.shape[1], model->input.shape[2]);
    printf("options\n"
           "  --top K        print the K best classes (default %d or all)\n"
           "  --repeat N     run each image N times, 1..%d (default 1; %d with --benchmark or --profile)\n"
           "  --threads N    1..%d (default 1)\n"
           "  --benchmark    print the median and least time; without IMAGE on a pseudo-random input\n"
           "  --profile      print the time of every step and layer; without IMAGE as above\n"
           "  --dump FILE    write the logits, .npy float32 [images,%u]\n"
           "  --json         print one JSON object\n"
           "  --selftest     run the built-in golden vectors; takes no IMAGE\n"
           "  --help, -h     this text\n"
           "  --version      model, interface version and memory need\n\n"
           "exit status: 0 done, 1 selftest failed, 2 wrong input or options\n",
           DEFAULT_TOP, MAX_REPEAT, DEFAULT_MEASURED_REPEAT, ENX_MAX_THREADS, model->num_classes);
}

void cli_print_version(void)
{
    const enx_model_t *model = enx_cli_model;
    printf("%s, enx interface %u, input %dx%dx%d %s, %u classes, arena %u bytes\n", model->name,
           model->abi_version, model->input.shape[1], model->input.shape[2], model->input.shape[3],
           model->input.dtype == ENX_DTYPE_INT8 ? "int8" : "float32", model->num_classes, model->arena_bytes);
}

static int parse_integer(const char *option, const char *text, long largest, int32_t *out_value)
{
    char *end = NULL;
    errno = 0;
    const long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 1 || value > largest) {
        return cli_fail("%s '%s' is not allowed; give a whole number from 1 to %ld", option, text, largest);
    }
    *out_value = (int32_t)value;
    return CLI_OK;
}

static int is_same_file(const char *one, const char *other)
{
    struct stat a, b;
    return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int check_combination(const cli_options_t *options)
{
    if (options->show_help || options->show_version) {
        return CLI_OK;
    }
    if (options->selftest) {
        if (options->num_files > 0 || options->dump != NULL || options->benchmark || options->profile) {
            return cli_fail("--selftest takes no IMAGE, --dump, --benchmark or --profile; allowed with it are "
                            "--threads and --json; run it alone");
        }
        return CLI_OK;
    }
    if (options->num_files == 0 && !options->benchmark && !options->profile) {
        return cli_fail("no IMAGE given; give .ppm, .pgm or .npy files, or --selftest, --benchmark or "
                        "--profile, or try --help");
    }
    for (int i = 0; options->dump != NULL && i < options->num_files; ++i) {
        if (is_same_file(options->dump, options->files[i])) {
            return cli_fail("--dump '%s' would overwrite the IMAGE '%s'; give a new file name after --dump",
                            options->dump, options->files[i]);
        }
    }
    if (options->num_files == 0 && options->dump != NULL) {
        return cli_fail("--dump '%s' needs at least one IMAGE; give the .ppm, .pgm or .npy files to classify",
                        options->dump);
    }
    return CLI_OK;
}

static int set_option(int option, const char *argument, cli_options_t *options)
{
    switch (option) {
    case OPTION_TOP:
        return parse_integer("--top", argument, (long)enx_cli_model->num_classes, &options->top);
    case OPTION_REPEAT: return parse_integer("--repeat", argument, MAX_REPEAT, &options->repeat);
    case OPTION_THREADS: return parse_integer("--threads", argument, ENX_MAX_THREADS, &options->threads);
    case OPTION_BENCHMARK: options->benchmark = 1; return CLI_OK;
    case OPTION_SELFTEST: options->selftest = 1; return CLI_OK;
    case OPTION_DUMP: options->dump = argument; return CLI_OK;
    case OPTION_PROFILE: options->profile = 1; return CLI_OK;
    case OPTION_JSON: options->json = 1; return CLI_OK;
    case OPTION_HELP:
    case 'h': options->show_help = 1; return CLI_OK;
    case OPTION_VERSION: options->show_version = 1; return CLI_OK;
    default: return CLI_USER_ERROR;
    }
}

int cli_parse_options(int argc, char **argv, cli_options_t *out_options)
{
    const uint32_t num_classes = enx_cli_model->num_classes;
    memset(out_options, 0, sizeof *out_options);
    out_options->top = num_classes < DEFAULT_TOP ? (int32_t)num_classes : DEFAULT_TOP;
    out_options->threads = 1;
    opterr = 0;
    for (;;) {
        const int option = getopt_long(argc, argv, ":h", long_options, NULL);
        if (option == -1) {
            break;
        }
        if (option == ':') {
            return cli_fail("option '%s' needs a value; see --help", argv[optind - 1]);
        }
        if (option == '?') {
            return cli_fail("'%s' is not an option or has a value it does not take; allowed are --top K, "
                            "--repeat N, --threads N, --benchmark, --profile, --dump FILE, --json, --selftest, "
                            "--help, --version", argv[optind - 1]);
        }
        const int result = set_option(option, optarg, out_options);
        if (result != CLI_OK) {
            return result;
        }
    }
    if (out_options->repeat == 0) {
        out_options->repeat = out_options->benchmark || out_options->profile ? DEFAULT_MEASURED_REPEAT : 1;
    }
    out_options->files = argv + optind;
    out_options->num_files = argc - optind;
    return check_combination(out_options);
}
