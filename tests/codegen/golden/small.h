/*
 * small.h - small test model, int8, as a const model for the enx runtime.
 *
 * Ownership  enx_model_small and everything it refers to is const and has static storage. The caller owns the
 *            arena: SMALL_ARENA_BYTES bytes aligned to SMALL_ARENA_ALIGN, needed from enx_init to the last use of
 *            the output. One arena serves one inference at a time.
 * Input      int8 1x4x4x3, NHWC; real = 0.02f * (q - 3).
 * Output     8 logits, float32.
 * Memory     9856 bytes arena, 1024 bytes constants; 8576 multiply-accumulates.
 */
#ifndef SMALL_H
#define SMALL_H

#include "enx/enx.h"
#include "enx/enx_golden.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SMALL_ARENA_BYTES 9856u
#define SMALL_ARENA_ALIGN 64u
#define SMALL_INPUT_BYTES 48u
#define SMALL_INPUT_HEIGHT 4
#define SMALL_INPUT_WIDTH 4
#define SMALL_INPUT_CHANNELS 3
#define SMALL_OUTPUT_BYTES 32u
#define SMALL_NUM_CLASSES 8u
#define SMALL_NUM_STEPS 8u

extern const enx_model_t enx_model_small;

/* Inputs with known logits, for enx_golden_check. Defined in small_golden.c (if any), which the library leaves out. */
extern const enx_golden_t enx_golden_small;

#ifdef __cplusplus
}
#endif

#endif
