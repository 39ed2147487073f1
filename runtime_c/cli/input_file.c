/* Opening an input file: which format it has, and whether it is as long as its header says. */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"

static const char allowed[] = "allowed are binary .ppm (P6), .pgm (P5) and .npy";

int cli_set_image_size(cli_input_t *input, int64_t width, int64_t height, int32_t channels)
{
    if (width < 1 || height < 1 || width > ENX_MAX_IMAGE_SIDE || height > ENX_MAX_IMAGE_SIDE) {
        return cli_fail("'%s' is %lld x %lld pixels; allowed is 1 to %d on each side; resize it first", input->path,
                        (long long)width, (long long)height, ENX_MAX_IMAGE_SIDE);
    }
    input->is_tensor = 0;
    input->width = (int32_t)width;
    input->height = (int32_t)height;
    input->channels = channels;
    input->item_bytes = (size_t)width * (size_t)height * (size_t)channels;
    return CLI_OK;
}

static int open_regular_file(cli_input_t *input)
{
    struct stat status;
    if (stat(input->path, &status) != 0) {
        return cli_fail("cannot open '%s': %s; check the path", input->path, strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        return cli_fail("'%s' is not a regular file but a folder, pipe or device; give a file, %s", input->path,
                        allowed);
    }
    input->file = fopen(input->path, "rb");
    if (input->file == NULL) {
        return cli_fail("cannot open '%s': %s; check its permissions", input->path, strerror(errno));
    }
    return CLI_OK;
}

static int read_header(cli_input_t *input)
{
    uint8_t magic[6] = {0};
    const size_t got = fread(magic, 1, sizeof magic, input->file);
    rewind(input->file);
    if (got == 0) {
        return cli_fail("'%s' is empty; %s", input->path, allowed);
    }
    if (magic[0] == 'P' && (magic[1] == '5' || magic[1] == '6')) {
        return cli_read_pnm_header(input);
    }
    if (memcmp(magic, "\x93NUMPY", 6) == 0) {
        return cli_read_npy_header(input);
    }
    if (magic[0] == 'P' && magic[1] >= '1' && magic[1] <= '7') {
        return cli_fail("'%s' is a P%c file; %s; convert it, e.g. with `pnmtopnm` or `convert in.pnm out.ppm`",
                        input->path, magic[1], allowed);
    }
    const char *name = "of an unknown format";
    if (magic[0] == 0xFF && magic[1] == 0xD8) {
        name = "a JPEG file";
    } else if (memcmp(magic, "\x89PNG", 4) == 0) {
        name = "a PNG file";
    } else if (memcmp(magic, "GIF8", 4) == 0) {
        name = "a GIF file";
    }
    return cli_fail("'%s' is %s; %s; convert it, e.g. with `convert in.jpg out.ppm`", input->path, name, allowed);
}

/* What follows the pixels of a P5 or P6 file may only be white space. */
static int rest_is_blank(FILE *file, long long count)
{
    for (; count > 0; --count) {
        const int byte = fgetc(file);
        if (byte != ' ' && byte != '\n' && byte != '\r' && byte != '\t') {
            return 0;
        }
    }
    return 1;
}

static int check_length(cli_input_t *input, int is_npy)
{
    struct stat status;
    const off_t begin = ftello(input->file);
    if (begin < 0 || fstat(fileno(input->file), &status) != 0) {
        return cli_fail("cannot read '%s': %s", input->path, strerror(errno));
    }
    const long long expected = (long long)input->item_bytes * (long long)input->count;
    const long long present = (long long)status.st_size - (long long)begin;
    if (present < expected) {
        return cli_fail("'%s' is truncated: its header promises %lld bytes of data, %lld are there; copy or write it "
                        "again", input->path, expected, present);
    }
    if (present > expected) {
        const int is_blank = !is_npy && present - expected <= 16 &&
                             fseeko(input->file, begin + (off_t)expected, SEEK_SET) == 0 &&
                             rest_is_blank(input->file, present - expected);
        if (!is_blank) {
            return cli_fail("'%s' has %lld bytes after its data; one %s a file is allowed; split it", input->path,
                            present - expected, is_npy ? "array" : "image");
        }
        if (fseeko(input->file, begin, SEEK_SET) != 0) {
            return cli_fail("cannot read '%s': %s", input->path, strerror(errno));
        }
    }
    return CLI_OK;
}

int cli_input_open(cli_input_t *input, const char *path)
{
    memset(input, 0, sizeof *input);
    input->path = path;
    input->count = 1;
    int result = open_regular_file(input);
    if (result == CLI_OK) {
        const int is_npy = fgetc(input->file) == 0x93;
        rewind(input->file);
        result = read_header(input);
        if (result == CLI_OK) {
            result = check_length(input, is_npy);
        }
    }
    if (result == CLI_OK && !input->is_tensor && enx_cli_model->input_lut == NULL &&
        enx_cli_model->input_lut_f32 == NULL) {
        result = cli_fail("'%s' is an image, but the model carries no preprocessing; give its input as .npy, see "
                          "--help", path);
    }
    if (result != CLI_OK) {
        cli_input_close(input);
    }
    return result;
}

int cli_input_read(cli_input_t *input, void *buffer)
{
    if (fread(buffer, 1, input->item_bytes, input->file) != input->item_bytes) {
        return cli_fail("cannot read '%s' any further: %s; copy or write it again", input->path,
                        ferror(input->file) ? strerror(errno) : "it became shorter");
    }
    input->next += 1;
    return CLI_OK;
}

void cli_input_close(cli_input_t *input)
{
    if (input->file != NULL) {
        fclose(input->file);
        input->file = NULL;
    }
}
