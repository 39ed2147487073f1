/* small_weights.h - 12 constants, 1024 bytes in .rodata; defined in weights.c. */
#ifndef SMALL_WEIGHTS_H
#define SMALL_WEIGHTS_H

#include <stdint.h>

/* int8 3x8 */
union enx_small_c0 {
    uint32_t words[6];
    int8_t int8[24];
};
extern const union enx_small_c0 enx_small_c0;

/* int32 8 */
union enx_small_c1 {
    uint32_t words[8];
    int32_t int32[8];
};
extern const union enx_small_c1 enx_small_c1;

/* float32 8 */
union enx_small_c2 {
    uint32_t words[8];
    float float32[8];
};
extern const union enx_small_c2 enx_small_c2;

/* int8 8x16 */
union enx_small_c3 {
    uint32_t words[32];
    int8_t int8[128];
};
extern const union enx_small_c3 enx_small_c3;

/* int32 16 */
union enx_small_c4 {
    uint32_t words[16];
    int32_t int32[16];
};
extern const union enx_small_c4 enx_small_c4;

/* float32 16 */
union enx_small_c5 {
    uint32_t words[16];
    float float32[16];
};
extern const union enx_small_c5 enx_small_c5;

/* int8 16x8 */
union enx_small_c6 {
    uint32_t words[32];
    int8_t int8[128];
};
extern const union enx_small_c6 enx_small_c6;

/* int32 8 */
union enx_small_c7 {
    uint32_t words[8];
    int32_t int32[8];
};
extern const union enx_small_c7 enx_small_c7;

/* int8 8x16 */
union enx_small_c8 {
    uint32_t words[32];
    int8_t int8[128];
};
extern const union enx_small_c8 enx_small_c8;

/* int32 16 */
union enx_small_c9 {
    uint32_t words[16];
    int32_t int32[16];
};
extern const union enx_small_c9 enx_small_c9;

/* int8 16x8 */
union enx_small_c10 {
    uint32_t words[32];
    int8_t int8[128];
};
extern const union enx_small_c10 enx_small_c10;

/* int32 8 */
union enx_small_c11 {
    uint32_t words[8];
    int32_t int32[8];
};
extern const union enx_small_c11 enx_small_c11;

#endif
