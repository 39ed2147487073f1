/*
 * small_kernels.h - the kernels that model.c calls.
 *
 * Each computes the part [begin, end) of its extent and returns 0. Pointers are 64-byte aligned and do not
 * alias; parts of one call may run at the same time.
 */
#ifndef SMALL_KERNELS_H
#define SMALL_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

int32_t enx_small_dense_0(const int8_t *restrict x, const int8_t *restrict w, const int32_t *restrict bias, const float *restrict mult, int8_t *restrict y, int32_t begin, int32_t end);
int32_t enx_small_dense_1(const int8_t *restrict x, const int8_t *restrict w, const int32_t *restrict bias, const float *restrict mult, int8_t *restrict y, int32_t begin, int32_t end);
int32_t enx_small_dense_2(const int8_t *restrict x, const int8_t *restrict w, const int32_t *restrict bias, const float *restrict mult, int8_t *restrict y, int32_t begin, int32_t end);
int32_t enx_small_negate_0(int8_t *restrict y, int32_t begin, int32_t end);
int32_t enx_small_pool_0(const int8_t *restrict x, float *restrict y, int32_t *restrict total, int32_t begin, int32_t end);
int32_t enx_small_peak_0(const float *restrict x, float *restrict y, float *restrict scratch_ws, int32_t begin, int32_t end);

#endif
