/* Golden vectors: generate, run, compare. */
#include "enx/enx_golden.h"

#include <string.h>

static uint8_t next_byte(uint32_t *state)
{
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    *state = x;
    return (uint8_t)(x >> 24);
}

/* CRC-32 of IEEE 802.3, bit by bit: no table in flash, and speed does not matter here. */
static uint32_t crc32_of(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < count; ++i) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0xEDB88320u : 0u);
        }
    }
    return ~crc;
}

static int32_t as_int8(uint32_t byte)
{
    const int32_t level = (int32_t)(byte & 255u);
    return level < 128 ? level : level - 256;
}

size_t enx_golden_pixel_bytes(const enx_golden_vector_t *vector)
{
    if (vector == NULL || vector->kind != ENX_GOLDEN_IMAGE || vector->width < 1 || vector->height < 1 ||
        vector->width > ENX_MAX_IMAGE_SIDE || vector->height > ENX_MAX_IMAGE_SIDE) {
        return 0;
    }
    return (size_t)vector->width * (size_t)vector->height * 3u;
}

enx_status_t enx_golden_fill_input(enx_context_t *context, const enx_golden_vector_t *vector)
{
    if (context == NULL || vector == NULL) {
        return ENX_ERR_NULL;
    }
    if (context->model == NULL) {
        return ENX_ERR_NOT_INITIALIZED;
    }
    const int is_known = vector->kind == ENX_GOLDEN_RANDOM || vector->kind == ENX_GOLDEN_CONSTANT ||
                         vector->kind == ENX_GOLDEN_GRADIENT;
    if (!is_known || (vector->kind == ENX_GOLDEN_RANDOM && vector->seed == 0) ||
        (vector->kind == ENX_GOLDEN_CONSTANT && (vector->value < -128 || vector->value > 127))) {
        return ENX_ERR_GOLDEN;
    }
    const int is_int8 = context->model->input.dtype == ENX_DTYPE_INT8;
    const uint32_t count = context->model->input.bytes / (is_int8 ? 1u : 4u);
    void *input = enx_input(context);
    uint32_t state = vector->seed;
    for (uint32_t i = 0; i < count; ++i) {
        int32_t element = vector->value;
        if (vector->kind == ENX_GOLDEN_RANDOM) {
            element = as_int8(next_byte(&state));
        } else if (vector->kind == ENX_GOLDEN_GRADIENT) {
            element = as_int8((i * vector->seed) >> 7);
        }
        if (is_int8) {
            ((int8_t *)input)[i] = (int8_t)element;
        } else {
            ((float *)input)[i] = (float)element * (1 / 64.0f);
        }
    }
    return ENX_OK;
}

static enx_status_t fill_from_image(enx_context_t *context, const enx_golden_vector_t *vector, uint8_t *pixels,
                                    size_t pixel_bytes, uint32_t *out_crc32)
{
    const size_t needed = enx_golden_pixel_bytes(vector);
    if (needed == 0 || vector->seed == 0) {
        return ENX_ERR_GOLDEN;
    }
    if (pixels == NULL) {
        return ENX_ERR_NULL;
    }
    if (pixel_bytes < needed) {
        return ENX_ERR_CAPACITY;
    }
    uint32_t state = vector->seed;
    for (size_t i = 0; i < needed; ++i) {
        pixels[i] = next_byte(&state);
    }
    const enx_status_t status = enx_preprocess_rgb8(context, pixels, vector->width, vector->height,
                                                    (size_t)vector->width * 3u, 3);
    if (status == ENX_OK) {
        *out_crc32 = crc32_of((const uint8_t *)enx_input(context), context->model->input.bytes);
    }
    return status;
}

static float logit_at(const enx_context_t *context, uint32_t index)
{
    const enx_tensor_t *output = &context->model->output;
    const uint8_t *source = context->arena + output->arena_offset;
    float logit;
    if (output->dtype == ENX_DTYPE_INT8) {
        return output->scale * (float)(((const int8_t *)source)[index] - output->zero_point);
    }
    memcpy(&logit, source + (size_t)index * sizeof logit, sizeof logit);
    return logit;
}

static int logits_agree(float got, float expected, float tolerance)
{
    if (tolerance > 0.0f) {
        return got - expected <= tolerance && expected - got <= tolerance;
    }
    return memcmp(&got, &expected, sizeof got) == 0;
}

enx_status_t enx_golden_check(enx_context_t *context, const enx_golden_vector_t *vector, uint8_t *pixels,
                              size_t pixel_bytes, enx_golden_result_t *out_result)
{
    if (context == NULL || vector == NULL || out_result == NULL) {
        return ENX_ERR_NULL;
    }
    if (context->model == NULL) {
        return ENX_ERR_NOT_INITIALIZED;
    }
    enx_golden_result_t result = {1, -1, 0.0f, 0.0f, 0};
    enx_status_t status;
    if (vector->kind == ENX_GOLDEN_IMAGE) {
        status = fill_from_image(context, vector, pixels, pixel_bytes, &result.got_crc32);
        result.passed = result.got_crc32 == vector->expected_crc32;
    } else if (vector->expected_logits == NULL) {
        return ENX_ERR_GOLDEN;
    } else {
        status = enx_golden_fill_input(context, vector);
    }
    if (status == ENX_OK && vector->expected_logits != NULL) {
        status = enx_run(context);
        for (uint32_t i = 0; status == ENX_OK && i < context->model->num_classes; ++i) {
            const float got = logit_at(context, i);
            if (!logits_agree(got, vector->expected_logits[i], vector->tolerance)) {
                result.passed = 0;
                result.class_index = (int32_t)i;
                result.got = got;
                result.expected = vector->expected_logits[i];
                break;
            }
        }
    }
    if (status == ENX_OK) {
        *out_result = result;
    }
    return status;
}
