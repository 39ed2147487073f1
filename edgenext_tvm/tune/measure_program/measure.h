/* What main.c runs: the candidates of one batch, defined by a generated table beside the kernels' objects. */
#ifndef ENX_MEASURE_H
#define ENX_MEASURE_H

#include <stddef.h>
#include <stdint.h>

/* What the bytes of an argument are filled with before each turn of a candidate. */
enum enx_fill {
    ENX_FILL_ZERO,    /* workspaces and types of no other kind */
    ENX_FILL_BYTES,   /* any byte: activations, weights, lookup tables */
    ENX_FILL_INT16,   /* -128 to 127: widened weights */
    ENX_FILL_INT32,   /* 0 to 3: zero points, biases, and indices that stay inside any table of four entries */
    ENX_FILL_INT64,   /* 0 to 3 */
    ENX_FILL_FLOAT32, /* 0.5 to 1.5: neither denormal, infinite nor NaN, which some cores compute slowly */
    ENX_FILL_FLOAT64  /* 0.5 to 1.5 */
};

struct enx_argument {
    size_t offset; /* into enx_measure_arena, a multiple of 64 */
    size_t bytes;  /* a multiple of 8: filled in words of 8 bytes */
    enum enx_fill fill;
};

struct enx_candidate {
    const char *name;
    int32_t (*call)(void); /* all iterations of the kernel, on one thread */
    const struct enx_argument *arguments;
    size_t num_arguments;
};

extern unsigned char enx_measure_arena[]; /* shared: the candidates of a batch run in the same pages */
extern const struct enx_candidate enx_candidates[];
extern const size_t enx_num_candidates;

#endif
