/*
 * Three small hand-written models. `tiny`: int8 8x8x3 -> 4 float logits in two steps, the first one parallel over
 * rows; its NumPy twin is in conftest.py. `tiny_f32`: float32 input, int8 output. `failing`: row 5 fails.
 */
#include "enx/enx.h"

enum { SIDE = 8, ROW = SIDE * 3, ELEMENTS = SIDE * ROW, CLASSES = 4 };
enum { INPUT = 64, HIDDEN = 256, LOGITS = 448, ARENA = 512 };
enum { F32_INPUT = 0, F32_HIDDEN = 768, F32_OUTPUT = 960 };

/* hidden = clamp(2 * x + row, -128, 127) */
static int32_t stem(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    const int8_t *x = (const int8_t *)(arena + INPUT);
    int8_t *hidden = (int8_t *)(arena + HIDDEN);
    (void)model;
    for (int32_t i = begin * ROW; i < end * ROW; ++i) {
        const int32_t value = 2 * x[i] + i / ROW;
        hidden[i] = (int8_t)(value > 127 ? 127 : value < -128 ? -128 : value);
    }
    return 0;
}

/* logit[k] = sum(hidden[i] * ((i * (k + 3)) % 7 - 3)) / 8; overwrites the input, as a planned arena may */
static int32_t head(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    const int8_t *hidden = (const int8_t *)(arena + HIDDEN);
    float *logits = (float *)(void *)(arena + LOGITS);
    (void)begin, (void)end;
    for (int32_t k = 0; k < (int32_t)model->num_classes; ++k) {
        int32_t sum = 0;
        for (int32_t i = 0; i < ELEMENTS; ++i) {
            sum += hidden[i] * ((i * (k + 3)) % 7 - 3);
        }
        logits[k] = (float)sum * 0.125f;
    }
    for (int32_t i = 0; i < ELEMENTS; ++i) {
        arena[INPUT + i] = 77;
    }
    return 0;
}

static int32_t stem_f32(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    const float *x = (const float *)(void *)(arena + F32_INPUT);
    int8_t *hidden = (int8_t *)(arena + F32_HIDDEN);
    (void)model;
    for (int32_t i = begin * ROW; i < end * ROW; ++i) {
        hidden[i] = (int8_t)(x[i] * 32.0f);
    }
    return 0;
}

/* q[k] = hidden[k] */
static int32_t head_f32(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    (void)begin, (void)end;
    for (uint32_t k = 0; k < model->num_classes; ++k) {
        arena[F32_OUTPUT + k] = arena[F32_HIDDEN + k];
    }
    return 0;
}

static int32_t fail_at_row_5(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    (void)model, (void)arena;
    return begin <= 5 && 5 < end ? 9 : 0;
}

static const enx_step_t tiny_steps[2] = {
    {stem, SIDE, "stem.0", "double", "1x8x8x3 -> 1x8x8x3", ELEMENTS},
    {head, 1, "head.fc", "dense", NULL, ELEMENTS *CLASSES},
};
static const enx_step_t f32_steps[2] = {
    {stem_f32, SIDE, "stem.0", "convert", "1x8x8x3", 0},
    {head_f32, 1, "stem.0", "copy", "1x4", 0},
};
static const enx_step_t failing_steps[2] = {
    {stem, SIDE, "stem.0", "double", NULL, 0},
    {fail_at_row_5, SIDE, "blocks.0", "fail", NULL, 0},
};

#define LEVELS_4(f, v) f(v), f((v) + 1), f((v) + 2), f((v) + 3)
#define LEVELS_16(f, v) LEVELS_4(f, v), LEVELS_4(f, (v) + 4), LEVELS_4(f, (v) + 8), LEVELS_4(f, (v) + 12)
#define LEVELS_64(f, v) LEVELS_16(f, v), LEVELS_16(f, (v) + 16), LEVELS_16(f, (v) + 32), LEVELS_16(f, (v) + 48)
#define LEVELS(f) LEVELS_64(f, 0), LEVELS_64(f, 64), LEVELS_64(f, 128), LEVELS_64(f, 192)
#define RED(v) ((v)-128)
#define GREEN(v) (127 - (v))
#define BLUE(v) ((v) / 2 - 64)
#define REAL(v) ((float)(v) * 0.0078125f - 1.0f)
static const int8_t lut[3][256] = {{LEVELS(RED)}, {LEVELS(GREEN)}, {LEVELS(BLUE)}};
static const float lut_f32[3][256] = {{LEVELS(REAL)}, {LEVELS(REAL)}, {LEVELS(REAL)}};
static const char *const names[CLASSES] = {"ant", "bee \"striped\"", "cat", "dog"};

#define INT8_INPUT {ENX_DTYPE_INT8, 4, {1, SIDE, SIDE, 3}, 0.5f, 0, INPUT, ELEMENTS}
#define FLOAT_LOGITS {ENX_DTYPE_FLOAT32, 2, {1, CLASSES, 1, 1}, 1.0f, 0, LOGITS, 4 * CLASSES}

extern const enx_model_t enx_model_tiny, enx_model_tiny_f32, enx_model_failing;

const enx_model_t enx_model_tiny = {ENX_ABI_VERSION, "tiny", ARENA, 64, INT8_INPUT, FLOAT_LOGITS, tiny_steps, 2,
                                    lut, NULL, 10, SIDE, names, CLASSES};

const enx_model_t enx_model_tiny_f32 = {
    ENX_ABI_VERSION, "tiny_f32", 1024, 64,
    {ENX_DTYPE_FLOAT32, 4, {1, SIDE, SIDE, 3}, 1.0f, 0, F32_INPUT, 4 * ELEMENTS},
    {ENX_DTYPE_INT8, 2, {1, CLASSES, 1, 1}, 0.5f, 3, F32_OUTPUT, CLASSES},
    f32_steps, 2, NULL, lut_f32, SIDE, SIDE, NULL, CLASSES};

const enx_model_t enx_model_failing = {ENX_ABI_VERSION, "failing", ARENA, 64, INT8_INPUT, FLOAT_LOGITS,
                                       failing_steps, 2, NULL, NULL, 0, 0, NULL, CLASSES};
