/* Preprocessing for any resize and crop size, with tables that keep the 8-bit level: int8 = level - 128. */
#include <string.h>

#include "enx/enx.h"

static int32_t no_step(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    (void)model, (void)arena, (void)begin, (void)end;
    return 0;
}

static const enx_step_t steps[1] = {{no_step, 1, "none", "none", NULL, 0}};

/* The input tensor stands at input_offset; the arena handed over has arena_bytes bytes. */
static void describe(enx_model_t *model, int8_t table[3][256], int32_t resize, int32_t crop, uint32_t offset)
{
    const uint32_t bytes = 3u * (uint32_t)crop * (uint32_t)crop;
    memset(model, 0, sizeof *model);
    for (int level = 0; level < 256; ++level) {
        table[0][level] = table[1][level] = table[2][level] = (int8_t)(level - 128);
    }
    model->abi_version = ENX_ABI_VERSION;
    model->name = "probe";
    model->arena_bytes = offset + bytes;
    model->arena_align = 8;
    model->input = (enx_tensor_t){ENX_DTYPE_INT8, 4, {1, crop, crop, 3}, 1.0f, -128, offset, bytes};
    model->output = (enx_tensor_t){ENX_DTYPE_INT8, 2, {1, 1, 1, 1}, 1.0f, 0, offset, 1};
    model->steps = steps;
    model->num_steps = 1;
    model->input_lut = (const int8_t(*)[256])table;
    model->resize_size = resize;
    model->crop_size = crop;
    model->num_classes = 1;
}

int probe_scratch_bytes(int32_t resize, int32_t crop, int32_t width, int32_t height, uint32_t *out_bytes)
{
    int8_t table[3][256];
    enx_model_t model;
    describe(&model, table, resize, crop, 0);
    return enx_preprocess_scratch_bytes(&model, width, height, out_bytes);
}

/* Writes [crop, crop, 3] u8 to out; returns the status of the first call that failed. */
int probe_preprocess(const uint8_t *pixels, int32_t width, int32_t height, size_t row_stride, int32_t channels,
                     int32_t resize, int32_t crop, uint8_t *arena, size_t arena_bytes, uint32_t offset,
                     uint8_t *out)
{
    int8_t table[3][256];
    enx_model_t model;
    enx_context_t context;
    describe(&model, table, resize, crop, offset);
    enx_status_t status = enx_init(&context, &model, arena, arena_bytes, NULL);
    if (status == ENX_OK) {
        status = enx_preprocess_rgb8(&context, pixels, width, height, row_stride, channels);
    }
    for (uint32_t i = 0; status == ENX_OK && i < model.input.bytes; ++i) {
        out[i] = (uint8_t)(((const int8_t *)enx_input(&context))[i] + 128);
    }
    return status;
}
