/*
 * 8-bit image -> resized, cropped, tabulated input tensor, in integers only.
 *
 * The resize is Pillow's (libImaging/Resample.c, Image.resize with BILINEAR): a triangle filter of half-width
 * max(scale, 1) pixels, weights normalised and rounded to 22 fractional bits, rows resampled first and rounded to
 * 8 bits, then columns. Pillow computes the weights in double; here they are exact: with positions in units of
 * 1 / (2 * out) of an input pixel, the weight of pixel x for output o is the integer
 *     2 * max(in, out) - |(2x + 1) * out - (2o + 1) * in|
 * and only its quotient by the window's sum is rounded. Recent versions of Pillow take columns first for tall
 * images; this code never does, so there a level may differ by one.
 */
#include <string.h>

#include "enx_internal.h"

#define FRACTION_BITS 22
#define HALF (1u << (FRACTION_BITS - 1))

typedef struct {
    int32_t in;  /* pixels of the source */
    int32_t out; /* pixels after resizing, before the crop */
    int32_t crop_begin;
} axis_t;

/* The source pixels that one output pixel looks at: [first, end), all of positive weight. */
typedef struct {
    int32_t first;
    int32_t end;
    int64_t sum; /* of the integer weights */
} window_t;

typedef struct {
    axis_t x, y;
    int32_t crop;
    uint32_t num_taps; /* horizontal weights of all cropped columns */
} plan_t;

/* Pointers into the scratch block. */
typedef struct {
    uint32_t *sums[2];    /* [3 * crop] each; vertical sums of the output rows in progress; [1] only when shrinking */
    uint32_t *weights;    /* [num_taps] */
    int32_t *first;       /* [crop] first source column */
    int32_t *count;       /* [crop] number of source columns */
    uint8_t *rows[2];     /* [3 * crop] each; horizontally resampled rows; [1] only when enlarging */
} scratch_t;

typedef struct {
    const uint8_t *pixels;
    size_t row_stride;
    int32_t channels;
} image_t;

static int64_t weight_at(const axis_t *axis, int32_t o, int32_t x)
{
    const int64_t reach = 2 * (int64_t)(axis->in > axis->out ? axis->in : axis->out);
    const int64_t distance = (2 * (int64_t)x + 1) * axis->out - (2 * (int64_t)o + 1) * axis->in;
    return reach - (distance < 0 ? -distance : distance);
}

static window_t window_of(const axis_t *axis, int32_t o)
{
    const int64_t out = axis->out;
    const int64_t reach = 2 * (int64_t)(axis->in > axis->out ? axis->in : axis->out);
    const int64_t centre = (2 * (int64_t)o + 1) * axis->in;
    const int64_t low = centre - reach + out;
    const int64_t end = (centre + reach - out + 2 * out - 1) / (2 * out);
    window_t window;
    window.first = low < 0 ? 0 : (int32_t)(low / (2 * out));
    window.end = end > axis->in ? axis->in : (int32_t)end;
    window.sum = 0;
    for (int32_t x = window.first; x < window.end; ++x) {
        window.sum += weight_at(axis, o, x);
    }
    return window;
}

static uint32_t fixed_weight(const axis_t *axis, const window_t *window, int32_t o, int32_t x)
{
    const int64_t doubled = weight_at(axis, o, x) << (FRACTION_BITS + 1);
    return (uint32_t)((doubled + window->sum) / (2 * window->sum));
}

static uint8_t round_to_8_bits(uint32_t sum)
{
    const uint32_t level = sum >> FRACTION_BITS;
    return (uint8_t)(level > 255u ? 255u : level);
}

/* torchvision's CenterCrop: round((size - crop) / 2.0), halves to even. */
static int32_t crop_begin(int32_t size, int32_t crop)
{
    const int32_t margin = size - crop;
    const int32_t half = margin / 2;
    return (margin & 1) != 0 ? half + (half & 1) : half;
}

static void make_plan(const enx_model_t *model, int32_t width, int32_t height, plan_t *plan)
{
    const int32_t size = model->resize_size;
    plan->crop = model->crop_size;
    plan->x.in = width;
    plan->y.in = height;
    plan->x.out = width <= height ? size : (int32_t)((int64_t)size * width / height);
    plan->y.out = height <= width ? size : (int32_t)((int64_t)size * height / width);
    plan->x.crop_begin = crop_begin(plan->x.out, plan->crop);
    plan->y.crop_begin = crop_begin(plan->y.out, plan->crop);
    plan->num_taps = 0;
    for (int32_t i = 0; i < plan->crop; ++i) {
        const window_t window = window_of(&plan->x, plan->x.crop_begin + i);
        plan->num_taps += (uint32_t)(window.end - window.first);
    }
}

static int shrinks_rows(const plan_t *plan)
{
    return plan->y.in >= plan->y.out;
}

static uint32_t scratch_bytes(const plan_t *plan)
{
    const uint32_t row = 3u * (uint32_t)plan->crop;
    const uint32_t rows = shrinks_rows(plan) ? 2u * 4u * row + row : 4u * row + 2u * row;
    return rows + 2u * 4u * (uint32_t)plan->crop + 4u * plan->num_taps;
}

static void lay_out_scratch(const plan_t *plan, uint8_t *block, scratch_t *scratch)
{
    const uint32_t crop = (uint32_t)plan->crop;
    uint32_t *words = (uint32_t *)(void *)block;
    scratch->sums[0] = words;
    scratch->sums[1] = words + 3u * crop;
    words += shrinks_rows(plan) ? 6u * crop : 3u * crop;
    scratch->weights = words;
    scratch->first = (int32_t *)(words + plan->num_taps);
    scratch->count = scratch->first + crop;
    scratch->rows[0] = (uint8_t *)(scratch->count + crop);
    scratch->rows[1] = scratch->rows[0] + 3u * crop;
}

static void fill_columns(const plan_t *plan, const scratch_t *scratch)
{
    uint32_t *weight = scratch->weights;
    for (int32_t i = 0; i < plan->crop; ++i) {
        const int32_t o = plan->x.crop_begin + i;
        const window_t window = window_of(&plan->x, o);
        scratch->first[i] = window.first;
        scratch->count[i] = window.end - window.first;
        for (int32_t x = window.first; x < window.end; ++x) {
            *weight++ = fixed_weight(&plan->x, &window, o, x);
        }
    }
}

/* One source row -> [crop, 3] u8. */
static void resample_row(const plan_t *plan, const scratch_t *scratch, const image_t *image, int32_t y,
                         uint8_t *restrict row)
{
    const uint8_t *source = image->pixels + (size_t)y * image->row_stride;
    const uint32_t *restrict weight = scratch->weights;
    const size_t step = (size_t)image->channels;
    if (plan->x.in == plan->x.out && step == 3) { /* all weights are one */
        memcpy(row, source + 3u * (size_t)plan->x.crop_begin, 3u * (size_t)plan->crop);
        return;
    }
    for (int32_t i = 0; i < plan->crop; ++i) {
        const int32_t count = scratch->count[i];
        const uint8_t *pixel = source + (size_t)scratch->first[i] * step;
        uint32_t red = HALF, green = HALF, blue = HALF;
        if (step == 1) {
            for (int32_t t = 0; t < count; ++t) {
                red += weight[t] * pixel[t];
            }
            green = red;
            blue = red;
        } else {
            for (int32_t t = 0; t < count; ++t, pixel += step) {
                red += weight[t] * pixel[0];
                green += weight[t] * pixel[1];
                blue += weight[t] * pixel[2];
            }
        }
        row[3 * i] = round_to_8_bits(red);
        row[3 * i + 1] = round_to_8_bits(green);
        row[3 * i + 2] = round_to_8_bits(blue);
        weight += count;
    }
}

/* Vertical sums of output row `index` of the crop -> the input tensor, through the tables. */
static void emit_row(const enx_context_t *context, int32_t index, const uint32_t *restrict sums)
{
    const enx_model_t *model = context->model;
    const int32_t length = 3 * model->crop_size;
    const size_t begin = (size_t)index * (size_t)length;
    if (model->input.dtype == ENX_DTYPE_INT8) {
        const int8_t(*lut)[256] = model->input_lut;
        int8_t *restrict out = (int8_t *)enx_input(context) + begin;
        for (int32_t i = 0; i < length; i += 3) {
            out[i] = lut[0][round_to_8_bits(sums[i])];
            out[i + 1] = lut[1][round_to_8_bits(sums[i + 1])];
            out[i + 2] = lut[2][round_to_8_bits(sums[i + 2])];
        }
    } else {
        const float(*lut)[256] = model->input_lut_f32;
        float *restrict out = (float *)enx_input(context) + begin;
        for (int32_t i = 0; i < length; i += 3) {
            out[i] = lut[0][round_to_8_bits(sums[i])];
            out[i + 1] = lut[1][round_to_8_bits(sums[i + 1])];
            out[i + 2] = lut[2][round_to_8_bits(sums[i + 2])];
        }
    }
}

/* Shrinking: every source row is read once and added to the one or two output rows whose windows hold it. */
static void shrink_rows(const enx_context_t *context, const plan_t *plan, const scratch_t *scratch,
                        const image_t *image)
{
    const int32_t length = 3 * plan->crop;
    window_t windows[2];
    window_t next = window_of(&plan->y, plan->y.crop_begin);
    int32_t done = 0, open = 0; /* output rows [done, open) are in progress */
    for (int32_t y = next.first; done < plan->crop; ++y) {
        while (open < plan->crop && next.first <= y) {
            windows[open & 1] = next;
            for (int32_t i = 0; i < length; ++i) {
                scratch->sums[open & 1][i] = HALF;
            }
            next = window_of(&plan->y, plan->y.crop_begin + ++open);
        }
        resample_row(plan, scratch, image, y, scratch->rows[0]);
        for (int32_t o = done; o < open; ++o) {
            const uint32_t weight = fixed_weight(&plan->y, &windows[o & 1], plan->y.crop_begin + o, y);
            const uint8_t *restrict row = scratch->rows[0];
            uint32_t *restrict sums = scratch->sums[o & 1];
            for (int32_t i = 0; i < length; ++i) {
                sums[i] += weight * row[i];
            }
        }
        for (; done < open && windows[done & 1].end == y + 1; ++done) {
            emit_row(context, done, scratch->sums[done & 1]);
        }
    }
}

/* Enlarging: an output row looks at one or two source rows; the last two resampled ones are kept. */
static void enlarge_rows(const enx_context_t *context, const plan_t *plan, const scratch_t *scratch,
                         const image_t *image)
{
    const int32_t length = 3 * plan->crop;
    int32_t held[2] = {-1, -1}; /* source rows in scratch->rows */
    for (int32_t o = 0; o < plan->crop; ++o) {
        const int32_t row_index = plan->y.crop_begin + o;
        const window_t window = window_of(&plan->y, row_index);
        uint32_t *restrict sums = scratch->sums[0];
        for (int32_t i = 0; i < length; ++i) {
            sums[i] = HALF;
        }
        for (int32_t y = window.first; y < window.end; ++y) {
            const uint8_t *restrict row = scratch->rows[y & 1];
            const uint32_t weight = fixed_weight(&plan->y, &window, row_index, y);
            if (held[y & 1] != y) {
                resample_row(plan, scratch, image, y, scratch->rows[y & 1]);
                held[y & 1] = y;
            }
            for (int32_t i = 0; i < length; ++i) {
                sums[i] += weight * row[i];
            }
        }
        emit_row(context, o, sums);
    }
}

/* The larger part of the arena beside the input tensor, start rounded up to 8 bytes. */
static uint8_t *scratch_block(const enx_context_t *context, size_t *out_bytes)
{
    const enx_tensor_t *input = &context->model->input;
    const size_t after = ((size_t)input->arena_offset + input->bytes + 7u) & ~(size_t)7u;
    const size_t bytes_after = after < context->arena_bytes ? context->arena_bytes - after : 0;
    if (input->arena_offset >= bytes_after) {
        *out_bytes = input->arena_offset;
        return context->arena;
    }
    *out_bytes = bytes_after;
    return context->arena + after;
}

static int size_is_supported(int32_t width, int32_t height)
{
    return width >= 1 && height >= 1 && width <= ENX_MAX_IMAGE_SIDE && height <= ENX_MAX_IMAGE_SIDE;
}

enx_status_t enx_preprocess_scratch_bytes(const enx_model_t *model, int32_t width, int32_t height,
                                          uint32_t *out_bytes)
{
    if (model == NULL || out_bytes == NULL) {
        return ENX_ERR_NULL;
    }
    if (!enx_model_can_preprocess(model)) {
        return ENX_ERR_UNSUPPORTED;
    }
    if (!size_is_supported(width, height)) {
        return ENX_ERR_IMAGE_SIZE;
    }
    plan_t plan;
    make_plan(model, width, height, &plan);
    *out_bytes = scratch_bytes(&plan);
    return ENX_OK;
}

enx_status_t enx_preprocess_rgb8(enx_context_t *context, const uint8_t *pixels, int32_t width, int32_t height,
                                 size_t row_stride, int32_t channels)
{
    if (context == NULL || pixels == NULL) {
        return ENX_ERR_NULL;
    }
    if (context->model == NULL) {
        return ENX_ERR_NOT_INITIALIZED;
    }
    if (!enx_model_can_preprocess(context->model)) {
        return ENX_ERR_UNSUPPORTED;
    }
    if (!size_is_supported(width, height)) {
        return ENX_ERR_IMAGE_SIZE;
    }
    if (channels != 1 && channels != 3 && channels != 4) {
        return ENX_ERR_IMAGE_CHANNELS;
    }
    if (row_stride < (size_t)width * (size_t)channels) {
        return ENX_ERR_IMAGE_STRIDE;
    }
    const image_t image = {pixels, row_stride, channels};
    plan_t plan;
    scratch_t scratch;
    size_t block_bytes;
    uint8_t *block = scratch_block(context, &block_bytes);
    make_plan(context->model, width, height, &plan);
    if (scratch_bytes(&plan) > block_bytes) {
        return ENX_ERR_SCRATCH;
    }
    lay_out_scratch(&plan, block, &scratch);
    fill_columns(&plan, &scratch);
    if (shrinks_rows(&plan)) {
        shrink_rows(context, &plan, &scratch, &image);
    } else {
        enlarge_rows(context, &plan, &scratch, &image);
    }
    return ENX_OK;
}
