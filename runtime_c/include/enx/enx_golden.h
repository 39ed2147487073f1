/*
 * enx_golden.h - inputs that are cheap to generate anywhere, with the outputs a correct build must give.
 *
 * The general rules of enx.h (memory, threads, errors) hold here too.
 */
#ifndef ENX_ENX_GOLDEN_H
#define ENX_ENX_GOLDEN_H

#include "enx/enx.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * How the vector's int8 elements e[i], i = 0, 1, ... in NHWC order, come about. A float32 model's element is
 * e[i] * (1 / 64.0f).
 *   RANDOM    xorshift32: x = seed (not 0); per element x ^= x << 13; x ^= x >> 17; x ^= x << 5; e = int8(x >> 24)
 *   CONSTANT  e = value, in -128..127
 *   GRADIENT  e = int8(((uint32(i) * seed) >> 7) & 255)
 *   IMAGE     pixels [height, width, 3] u8 from the same xorshift32 stream, byte = x >> 24, then
 *             enx_preprocess_rgb8; the CRC-32 (IEEE 802.3, as zlib's) of the input tensor's bytes is compared
 */
typedef enum enx_golden_kind {
    ENX_GOLDEN_RANDOM = 0,
    ENX_GOLDEN_CONSTANT = 1,
    ENX_GOLDEN_GRADIENT = 2,
    ENX_GOLDEN_IMAGE = 3
} enx_golden_kind_t;

typedef struct enx_golden_vector {
    enx_golden_kind_t kind;
    uint32_t seed;
    int32_t value;
    const float *expected_logits; /* num_classes floats; NULL only for IMAGE: the run is skipped */
    int32_t width;                /* IMAGE only, pixels */
    int32_t height;               /* IMAGE only, pixels */
    uint32_t expected_crc32;      /* IMAGE only: of the input tensor's bytes, little endian */
    float tolerance;              /* largest |got - expected| of a logit; 0 means the same bits */
} enx_golden_vector_t;

typedef struct enx_golden {
    uint32_t num_vectors;
    const enx_golden_vector_t *vectors;
} enx_golden_t;

typedef struct enx_golden_result {
    int32_t passed;       /* 1 or 0 */
    int32_t class_index;  /* first logit that differs, or -1 */
    float got;            /* that logit */
    float expected;
    uint32_t got_crc32;   /* IMAGE only */
} enx_golden_result_t;

/* Bytes of the pixel buffer that a vector needs in enx_golden_check; 0 for kinds other than IMAGE or NULL. */
size_t enx_golden_pixel_bytes(const enx_golden_vector_t *vector);

/*
 * Writes a RANDOM, CONSTANT or GRADIENT vector into the context's input tensor.
 * Threads: the context's. Errors: ENX_ERR_NULL, _NOT_INITIALIZED, _GOLDEN (IMAGE, RANDOM with seed 0, value
 * outside -128..127).
 */
enx_status_t enx_golden_fill_input(enx_context_t *context, const enx_golden_vector_t *vector);

/*
 * Generates a vector's input, runs the network and compares.
 *   pixels       caller-owned, enx_golden_pixel_bytes(vector) bytes, overwritten; NULL unless IMAGE.
 *   out_result   written on ENX_OK, which says that the comparison was made, not that it passed.
 * Threads: the context's. Errors: those of enx_golden_fill_input, enx_preprocess_rgb8 and enx_run;
 * ENX_ERR_CAPACITY for too small a pixel buffer.
 */
enx_status_t enx_golden_check(enx_context_t *context, const enx_golden_vector_t *vector, uint8_t *pixels,
                              size_t pixel_bytes, enx_golden_result_t *out_result);

#ifdef __cplusplus
}
#endif

#endif
