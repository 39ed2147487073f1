/*
 * model.c - small test model: 8 steps over one arena of 9856 bytes.
 *
 * Each step calls one kernel; its comment names the PyTorch module, and where every tensor lies.
 */
#include "small.h"

#include "small_kernels.h"
#include "small_weights.h"

#define AT(type, offset) ((type *)(void *)(arena + (offset)))

/* stem: dense
 *   x: int8 1x4x4x3 at arena + 0
 *   w: int8 3x8 constant
 *   bias: int32 8 constant
 *   mult: float32 8 constant
 *   y: int8 16x8 at arena + 256
 */
static int32_t step_0(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    (void)model;
    return enx_small_dense_0(
        AT(const int8_t, 0u),
        enx_small_c0.int8,
        enx_small_c1.int32,
        enx_small_c2.float32,
        AT(int8_t, 256u),
        begin, end);
}

/* block0.expand: dense
 *   x: int8 16x8 at arena + 256
 *   w: int8 8x16 constant
 *   bias: int32 16 constant
 *   mult: float32 16 constant
 *   y: int8 16x16 at arena + 0
 */
static int32_t step_1(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    (void)model;
    return enx_small_dense_1(
        AT(const int8_t, 256u),
        enx_small_c3.int8,
        enx_small_c4.int32,
        enx_small_c5.float32,
        AT(int8_t, 0u),
        begin, end);
}

/* block0.project: dense
 *   x: int8 16x16 at arena + 0
 *   w: int8 16x8 constant
 *   bias: int32 8 constant
 *   mult: float32 8 constant
 *   y: int8 16x8 at arena + 256
 */
static int32_t step_2(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    (void)model;
    return enx_small_dense_2(
        AT(const int8_t, 0u),
        enx_small_c6.int8,
        enx_small_c7.int32,
        enx_small_c2.float32,
        AT(int8_t, 256u),
        begin, end);
}

/* block1.expand: dense
 *   x: int8 16x8 at arena + 256
 *   w: int8 8x16 constant
 *   bias: int32 16 constant
 *   mult: float32 16 constant
 *   y: int8 16x16 at arena + 0
 */
static int32_t step_3(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    (void)model;
    return enx_small_dense_1(
        AT(const int8_t, 256u),
        enx_small_c8.int8,
        enx_small_c9.int32,
        enx_small_c5.float32,
        AT(int8_t, 0u),
        begin, end);
}

/* block1.project: dense
 *   x: int8 16x16 at arena + 0
 *   w: int8 16x8 constant
 *   bias: int32 8 constant
 *   mult: float32 8 constant
 *   y: int8 16x8 at arena + 256
 */
static int32_t step_4(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    (void)model;
    return enx_small_dense_2(
        AT(const int8_t, 0u),
        enx_small_c10.int8,
        enx_small_c11.int32,
        enx_small_c2.float32,
        AT(int8_t, 256u),
        begin, end);
}

/* mix: negate
 *   y: int8 16x8 at arena + 256
 */
static int32_t step_5(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    (void)model;
    return enx_small_negate_0(
        AT(int8_t, 256u),
        begin, end);
}

/* head.pool: pool
 *   x: int8 16x8 at arena + 256
 *   y: float32 1x8 at arena + 9728
 *   total: int32 8 at arena + 0
 */
static int32_t step_6(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    (void)model;
    return enx_small_pool_0(
        AT(const int8_t, 256u),
        AT(float, 9728u),
        AT(int32_t, 0u),
        begin, end);
}

/* head.peak: peak
 *   x: float32 1x8 at arena + 9728
 *   y: float32 1x8 at arena + 9792
 *   scratch_ws: scratch, 9728 bytes at arena + 0
 */
static int32_t step_7(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end)
{
    (void)model;
    return enx_small_peak_0(
        AT(const float, 9728u),
        AT(float, 9792u),
        AT(float, 0u),
        begin, end);
}

static const enx_step_t steps[8] = {
    {step_0, 16, "stem", "dense",
     "int8 1x4x4x3 -> int8 16x8", 384u},
    {step_1, 16, "block0.expand", "dense",
     "int8 16x8 -> int8 16x16", 2048u},
    {step_2, 16, "block0.project", "dense",
     "int8 16x16 + int8 16x8 -> int8 16x8", 2048u},
    {step_3, 16, "block1.expand", "dense",
     "int8 16x8 -> int8 16x16", 2048u},
    {step_4, 16, "block1.project", "dense",
     "int8 16x16 + int8 16x8 -> int8 16x8", 2048u},
    {step_5, 16, "mix", "negate",
     "int8 16x8 + int8 16x8 -> int8 16x8", 0u},
    {step_6, 1, "head.pool", "pool",
     "int8 16x8 -> float32 1x8", 0u},
    {step_7, 8, "head.peak", "peak",
     "float32 1x8 -> float32 1x8", 0u},
};

const enx_model_t enx_model_small = {
    .abi_version = ENX_ABI_VERSION,
    .name = "small",
    .arena_bytes = 9856u,
    .arena_align = 64u,
    .input = { ENX_DTYPE_INT8, 4, { 1, 4, 4, 3 }, 0.02f, 3, 0u, 48u },
    .output = { ENX_DTYPE_FLOAT32, 2, { 1, 8, 1, 1 }, 1.0f, 0, 9792u, 32u },
    .steps = steps,
    .num_steps = 8u,
    .input_lut = 0,
    .input_lut_f32 = 0,
    .resize_size = 0,
    .crop_size = 0,
    .class_names = 0,
    .num_classes = 8u,
};
