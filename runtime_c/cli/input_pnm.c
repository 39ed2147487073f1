/* Headers of binary PGM (P5) and PPM (P6); comments run from '#' to the end of the line. */
#include "cli.h"

static int is_space(int byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r' || byte == '\v' || byte == '\f';
}

/* White space, then a number, then one byte which is consumed; -1 when it is none or above 10^8. */
static int64_t read_number(FILE *file)
{
    int byte = fgetc(file);
    while (is_space(byte) || byte == '#') {
        if (byte == '#') {
            while (byte != '\n' && byte != '\r' && byte != EOF) {
                byte = fgetc(file);
            }
        } else {
            byte = fgetc(file);
        }
    }
    int64_t value = -1;
    for (; byte >= '0' && byte <= '9'; byte = fgetc(file)) {
        value = (value < 0 ? 0 : value) * 10 + (byte - '0');
        if (value > 100000000) {
            return -1;
        }
    }
    if (byte == '#') {
        while (byte != '\n' && byte != '\r' && byte != EOF) {
            byte = fgetc(file);
        }
    }
    return is_space(byte) ? value : -1;
}

int cli_read_pnm_header(cli_input_t *input)
{
    (void)fgetc(input->file);
    const int kind = fgetc(input->file);
    const int64_t width = read_number(input->file);
    const int64_t height = width < 0 ? -1 : read_number(input->file);
    const int64_t largest = height < 0 ? -1 : read_number(input->file);
    if (largest < 0) {
        return cli_fail("'%s' has a broken P%c header; after P%c come width, height and 255 in decimal, at most "
                        "%d pixels on a side; write it again", input->path, kind, kind, ENX_MAX_IMAGE_SIDE);
    }
    if (largest != 255) {
        return cli_fail("'%s' has a largest level of %lld; allowed is 255 (8 bits); convert it, e.g. with "
                        "`pnmdepth 255`", input->path, (long long)largest);
    }
    return cli_set_image_size(input, width, height, kind == '5' ? 1 : 3);
}
