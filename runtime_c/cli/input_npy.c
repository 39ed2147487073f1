/*
 * Headers of .npy files, versions 1 and 2 (numpy.lib.format): a Python dictionary literal with the keys descr,
 * fortran_order and shape, in any order.
 */
#include <string.h>

#include "cli.h"

enum { MAX_HEADER_BYTES = 4096, MAX_RANK = 8 };

typedef struct {
    char descr[16];
    int fortran_order;
    int rank;
    int64_t shape[MAX_RANK];
} header_t;

/* The text behind "'key':" with blanks skipped, or NULL. */
static const char *value_of(const char *text, const char *key)
{
    const char *found = strstr(text, key);
    if (found == NULL) {
        return NULL;
    }
    found += strlen(key);
    while (*found == ' ') {
        ++found;
    }
    if (*found++ != ':') {
        return NULL;
    }
    while (*found == ' ') {
        ++found;
    }
    return found;
}

static int parse_descr(const char *text, header_t *header)
{
    const char *value = value_of(text, "'descr'");
    if (value == NULL || (*value != '\'' && *value != '[')) {
        return 0;
    }
    if (*value == '[') { /* a structured dtype: refused by name later */
        strcpy(header->descr, "record");
        return 1;
    }
    const char *end = strchr(value + 1, '\'');
    if (end == NULL || (size_t)(end - value) > sizeof header->descr) {
        return 0;
    }
    const size_t length = (size_t)(end - value) - 1u;
    for (size_t i = 1; i <= length; ++i) {
        if (value[i] < '!' || value[i] > '~') {
            return 0;
        }
    }
    memcpy(header->descr, value + 1, length);
    header->descr[length] = '\0';
    return 1;
}

static int parse_shape(const char *text, header_t *header)
{
    const char *at = value_of(text, "'shape'");
    if (at == NULL || *at++ != '(') {
        return 0;
    }
    header->rank = 0;
    for (;;) {
        while (*at == ' ' || *at == ',') {
            ++at;
        }
        if (*at == ')') {
            return 1;
        }
        if (*at < '0' || *at > '9' || header->rank == MAX_RANK) {
            return 0;
        }
        int64_t value = 0;
        for (; *at >= '0' && *at <= '9'; ++at) {
            value = value * 10 + (*at - '0');
            if (value > 0xFFFFFFFFll) {
                return 0;
            }
        }
        header->shape[header->rank++] = value;
    }
}

static int parse_header(const char *text, header_t *header)
{
    const char *order = value_of(text, "'fortran_order'");
    if (order == NULL) {
        return 0;
    }
    header->fortran_order = strncmp(order, "True", 4) == 0;
    if (!header->fortran_order && strncmp(order, "False", 5) != 0) {
        return 0;
    }
    return parse_descr(text, header) && parse_shape(text, header);
}

static int read_text(cli_input_t *input, char *text)
{
    uint8_t fixed[12] = {0};
    if (fread(fixed, 1, 8, input->file) != 8) {
        return cli_fail("'%s' is truncated within its .npy header; copy or write it again", input->path);
    }
    if (fixed[6] != 1 && fixed[6] != 2) {
        return cli_fail("'%s' is a .npy file of version %d; allowed are 1 and 2; save it with numpy.save",
                        input->path, fixed[6]);
    }
    const size_t length_bytes = fixed[6] == 1 ? 2 : 4;
    if (fread(fixed + 8, 1, length_bytes, input->file) != length_bytes) {
        return cli_fail("'%s' is truncated within its .npy header; copy or write it again", input->path);
    }
    const uint32_t length = (uint32_t)fixed[8] | (uint32_t)fixed[9] << 8 | (uint32_t)fixed[10] << 16 |
                            (uint32_t)fixed[11] << 24;
    if (length >= MAX_HEADER_BYTES) {
        return cli_fail("'%s' has a .npy header of %u bytes; allowed are %d; save it with numpy.save", input->path,
                        length, MAX_HEADER_BYTES - 1);
    }
    if (fread(text, 1, length, input->file) != length) {
        return cli_fail("'%s' is truncated within its .npy header; copy or write it again", input->path);
    }
    text[length] = '\0';
    return CLI_OK;
}

static int accept_tensor(cli_input_t *input, const header_t *header, const char *dtype_name)
{
    const enx_tensor_t *tensor = &enx_cli_model->input;
    const int64_t *hwc = header->rank == 4 ? header->shape + 1 : header->shape;
    if ((header->rank != 3 && header->rank != 4) || hwc[0] != tensor->shape[1] || hwc[1] != tensor->shape[2] ||
        hwc[2] != tensor->shape[3]) {
        return cli_fail("'%s' is %s of rank %d and not the network's input; allowed is %s [%d,%d,%d] or "
                        "[B,%d,%d,%d], or a uint8 image [H,W,3]", input->path, dtype_name, header->rank,
                        dtype_name, tensor->shape[1], tensor->shape[2], tensor->shape[3], tensor->shape[1],
                        tensor->shape[2], tensor->shape[3]);
    }
    input->is_tensor = 1;
    input->item_bytes = tensor->bytes;
    return CLI_OK;
}

static int accept_pixels(cli_input_t *input, const header_t *header)
{
    if (header->rank != 3 && header->rank != 4) {
        return cli_fail("'%s' is a uint8 array of rank %d; allowed are an image [H,W,3] and a batch [B,H,W,3]; "
                        "reshape it", input->path, header->rank);
    }
    const int64_t *hwc = header->shape + header->rank - 3;
    if (hwc[2] != 3) {
        return cli_fail("'%s' has a last dimension of %lld; allowed is 3 (red, green, blue); move the channels "
                        "last, e.g. with array.transpose(1, 2, 0)", input->path, (long long)hwc[2]);
    }
    return cli_set_image_size(input, hwc[1], hwc[0], 3);
}

int cli_read_npy_header(cli_input_t *input)
{
    char text[MAX_HEADER_BYTES];
    header_t header;
    memset(&header, 0, sizeof header);
    int result = read_text(input, text);
    if (result != CLI_OK) {
        return result;
    }
    if (!parse_header(text, &header)) {
        return cli_fail("'%s' has a broken .npy header; save it with numpy.save", input->path);
    }
    if (header.fortran_order) {
        return cli_fail("'%s' is stored in Fortran order; allowed is C order; save "
                        "numpy.ascontiguousarray(array)", input->path);
    }
    const int is_int8 = enx_cli_model->input.dtype == ENX_DTYPE_INT8;
    const char *tensor_descr = is_int8 ? "|i1" : "<f4";
    const char *tensor_name = is_int8 ? "int8" : "float32";
    if (strcmp(header.descr, "|u1") == 0) {
        result = accept_pixels(input, &header);
    } else if (strcmp(header.descr, tensor_descr) == 0) {
        result = accept_tensor(input, &header, tensor_name);
    } else {
        return cli_fail("'%s' has the dtype '%s'; allowed are uint8 '|u1' (images) and %s '%s' (the network's "
                        "input); convert it with array.astype", input->path, header.descr, tensor_name,
                        tensor_descr);
    }
    if (result == CLI_OK && header.rank == 4) {
        if (header.shape[0] < 1 || header.shape[0] > 1000000) {
            return cli_fail("'%s' has %lld images; allowed are 1 to 1000000; split it", input->path,
                            (long long)header.shape[0]);
        }
        input->count = (uint32_t)header.shape[0];
    }
    return result;
}
