/* Binding a context to a model and an arena, and access to its input and output. */
#include <string.h>

#include "enx_internal.h"

uint32_t enx_dtype_bytes(enx_dtype_t dtype)
{
    switch (dtype) {
    case ENX_DTYPE_INT8: return 1;
    case ENX_DTYPE_FLOAT32: return 4;
    }
    return 0;
}

static int tensor_is_valid(const enx_tensor_t *tensor, uint32_t arena_bytes)
{
    const uint32_t element_bytes = enx_dtype_bytes(tensor->dtype);
    uint64_t bytes = element_bytes;
    if (element_bytes == 0 || tensor->rank < 1 || tensor->rank > 4) {
        return 0;
    }
    for (uint8_t i = 0; i < tensor->rank; ++i) {
        if (tensor->shape[i] < 1) {
            return 0;
        }
        bytes *= (uint64_t)(uint32_t)tensor->shape[i];
        if (bytes > arena_bytes) {
            return 0;
        }
    }
    return bytes == tensor->bytes && tensor->arena_offset % element_bytes == 0 &&
           tensor->arena_offset <= arena_bytes - tensor->bytes;
}

int enx_model_can_preprocess(const enx_model_t *model)
{
    const enx_tensor_t *input = &model->input;
    const int has_tables =
        input->dtype == ENX_DTYPE_INT8 ? model->input_lut != NULL : model->input_lut_f32 != NULL;
    return has_tables && input->rank == 4 && input->shape[0] == 1 && input->shape[1] == model->crop_size &&
           input->shape[2] == model->crop_size && input->shape[3] == 3 && model->crop_size >= 1 &&
           model->crop_size <= model->resize_size && model->resize_size <= ENX_MAX_IMAGE_SIDE;
}

static int model_is_valid(const enx_model_t *model)
{
    const uint32_t align = model->arena_align;
    if (model->name == NULL || align < 8 || (align & (align - 1)) != 0) {
        return 0;
    }
    if (!tensor_is_valid(&model->input, model->arena_bytes) ||
        !tensor_is_valid(&model->output, model->arena_bytes)) {
        return 0;
    }
    if (model->num_classes == 0 ||
        model->output.bytes / enx_dtype_bytes(model->output.dtype) != model->num_classes) {
        return 0;
    }
    if ((model->input_lut != NULL || model->input_lut_f32 != NULL) && !enx_model_can_preprocess(model)) {
        return 0;
    }
    if (model->steps == NULL || model->num_steps == 0) {
        return 0;
    }
    for (uint32_t i = 0; i < model->num_steps; ++i) {
        const enx_step_t *step = &model->steps[i];
        if (step->fn == NULL || step->extent < 1 || step->layer == NULL || step->kernel == NULL) {
            return 0;
        }
    }
    return 1;
}

enx_status_t enx_init(enx_context_t *out_context, const enx_model_t *model, void *arena, size_t arena_bytes,
                      enx_pool_t *pool)
{
    if (out_context == NULL || model == NULL || arena == NULL) {
        return ENX_ERR_NULL;
    }
    if (model->abi_version != ENX_ABI_VERSION) {
        return ENX_ERR_ABI;
    }
    if (!model_is_valid(model)) {
        return ENX_ERR_MODEL;
    }
    if (((uintptr_t)arena & (uintptr_t)(model->arena_align - 1)) != 0) {
        return ENX_ERR_ARENA_ALIGNMENT;
    }
    if (arena_bytes < model->arena_bytes) {
        return ENX_ERR_ARENA_TOO_SMALL;
    }
    out_context->model = model;
    out_context->arena = (uint8_t *)arena;
    out_context->arena_bytes = arena_bytes;
    out_context->pool = pool;
    out_context->failed_step = 0;
    return ENX_OK;
}

void *enx_input(const enx_context_t *context)
{
    if (context == NULL || context->model == NULL) {
        return NULL;
    }
    return context->arena + context->model->input.arena_offset;
}

const float *enx_output(const enx_context_t *context)
{
    if (context == NULL || context->model == NULL || context->model->output.dtype != ENX_DTYPE_FLOAT32) {
        return NULL;
    }
    return (const float *)(const void *)(context->arena + context->model->output.arena_offset);
}

enx_status_t enx_output_copy(const enx_context_t *context, float *out_logits, uint32_t capacity)
{
    if (context == NULL || out_logits == NULL) {
        return ENX_ERR_NULL;
    }
    if (context->model == NULL) {
        return ENX_ERR_NOT_INITIALIZED;
    }
    const enx_model_t *model = context->model;
    if (capacity < model->num_classes) {
        return ENX_ERR_CAPACITY;
    }
    const uint8_t *source = context->arena + model->output.arena_offset;
    if (model->output.dtype == ENX_DTYPE_FLOAT32) {
        memcpy(out_logits, source, (size_t)model->num_classes * sizeof *out_logits);
        return ENX_OK;
    }
    const int8_t *quantized = (const int8_t *)source;
    for (uint32_t i = 0; i < model->num_classes; ++i) {
        out_logits[i] = model->output.scale * (float)(quantized[i] - model->output.zero_point);
    }
    return ENX_OK;
}
