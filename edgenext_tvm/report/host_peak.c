/* What one core of this machine can do at most: int8 multiply-adds from registers, and bytes from each memory level.
 *
 * Arguments: buffer sizes in bytes, each a multiple of 1024. Prints one JSON object. Every figure is the best of many
 * short trials, so that other programs and a sleeping clock do not lower it.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One STEP is the core's best way to multiply and add int8 values. Operands go through OPAQUE first: the compiler
 * believes them new and repeats a product that it knows.
 */
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
#include <immintrin.h>
typedef __m512i vector;
#define INSTRUCTION "vpdpbusd zmm"
#define MACS_PER_STEP 64
#define OPAQUE(v) (void)(v)
#define STEP(acc, a, b) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b))
#define LINE_BYTES 64
#elif defined(__AVXVNNI__)
#include <immintrin.h>
typedef __m256i vector;
#define INSTRUCTION "vpdpbusd ymm"
#define MACS_PER_STEP 32
#define OPAQUE(v) (void)(v)
#define STEP(acc, a, b) __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b))
#define LINE_BYTES 32
#elif defined(__AVX2__)
#include <immintrin.h>
typedef __m256i vector;
#define INSTRUCTION "vpmaddubsw, vpmaddwd, vpaddd ymm"
#define MACS_PER_STEP 32
#define OPAQUE(v) __asm__ volatile("" : "+x"(v))
#define LINE_BYTES 32
#define STEP(acc, a, b) \
    (acc) = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
typedef int8x16_t vector;
#define INSTRUCTION "sdot"
#define LINE_BYTES 16
#define MACS_PER_STEP 16
#define OPAQUE(v) __asm__ volatile("" : "+w"(v))
#define STEP(acc, a, b) (acc) = vreinterpretq_s8_s32(vdotq_s32(vreinterpretq_s32_s8(acc), a, b))
#elif defined(__ARM_NEON)
#include <arm_neon.h>
typedef int8x16_t vector;
#define INSTRUCTION "smull, smlal, sadalp"
#define LINE_BYTES 16
#define MACS_PER_STEP 16
#define OPAQUE(v) __asm__ volatile("" : "+w"(v))
#define STEP(acc, a, b)                                                                                    \
    (acc) = vreinterpretq_s8_s32(vpadalq_s16(                                                              \
        vreinterpretq_s32_s8(acc), vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vget_high_s8(a),    \
                                            vget_high_s8(b))))
#else
typedef int32_t vector;
#define INSTRUCTION "scalar"
#define LINE_BYTES 16
#define MACS_PER_STEP 1
#define OPAQUE(v) __asm__ volatile("" : "+r"(v))
#define STEP(acc, a, b) (acc) += (a) * (b)
#endif

#define ACCUMULATORS 12 /* more than the latency times the issue width of any core known */
#define ITERATIONS 20000
#define TRIALS 40
#define LEAST_TRIAL_S 0.001

typedef uint64_t line __attribute__((vector_size(LINE_BYTES)));

static double now_s(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Named variables: an array of accumulators would be written to memory in every round. */
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

static void multiply(void)
{
    vector a, b;
    memset(&a, 1, sizeof a);
    memset(&b, 1, sizeof b);
#define DECLARE(n) vector acc##n = a;
#define MULTIPLY(n) OPAQUE(a); STEP(acc##n, a, b);
#define KEEP(n) OPAQUE(acc##n);
    EACH(DECLARE)
    for (int i = 0; i < ITERATIONS; ++i) {
        EACH(MULTIPLY)
    }
    EACH(KEEP)
}

static void read_lines(const line *from, size_t lines)
{
    line sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0};
    for (size_t i = 0; i < lines; i += 4) {
        sum0 |= from[i];
        sum1 |= from[i + 1];
        sum2 |= from[i + 2];
        sum3 |= from[i + 3];
    }
    sum0 |= sum1 | sum2 | sum3;
    __asm__ volatile("" : : "m"(sum0));
}

static void copy_lines(line *to, const line *from, size_t lines)
{
    for (size_t i = 0; i < lines; ++i) {
        to[i] = from[i];
    }
    /* the copy is read, as far as the compiler knows */
    __asm__ volatile("" : : "r"(to) : "memory");
}

/* Bytes a second, read and written ones alike, of reading the whole buffer or of copying one half to the other. */
static double bandwidth(line *buffer, size_t bytes, int is_copy)
{
    const size_t lines = bytes / sizeof(line);
    double best = 0.0;
    size_t passes = 1;
    for (int trial = 0; trial < TRIALS;) {
        const double start = now_s();
        for (size_t pass = 0; pass < passes; ++pass) {
            if (is_copy) {
                copy_lines(buffer + lines / 2, buffer, lines / 2);
            } else {
                read_lines(buffer, lines);
            }
        }
        const double took = now_s() - start;
        if (took < LEAST_TRIAL_S) {
            passes *= 2;
            continue;
        }
        const double rate = (double)passes * (double)bytes / took;
        best = rate > best ? rate : best;
        ++trial;
    }
    return best;
}

int main(int argc, char **argv)
{
    double best = 1e9;
    for (int trial = 0; trial < TRIALS; ++trial) {
        const double start = now_s();
        multiply();
        const double took = now_s() - start;
        best = took < best ? took : best;
    }
    printf("{\"instruction\": \"%s\", \"macs_per_s\": %.6e, \"levels\": [", INSTRUCTION,
           (double)ITERATIONS * ACCUMULATORS * MACS_PER_STEP / best);
    for (int i = 1; i < argc; ++i) {
        const size_t bytes = strtoull(argv[i], NULL, 10);
        line *buffer = NULL;
        if (bytes == 0 || bytes % 1024 != 0 || posix_memalign((void **)&buffer, 4096, bytes) != 0) {
            fprintf(stderr, "host_peak: cannot use a buffer of %s bytes\n", argv[i]);
            return 1;
        }
        memset(buffer, 1, bytes);
        printf("%s{\"bytes\": %zu, \"read_bytes_per_s\": %.6e, \"copy_bytes_per_s\": %.6e}", i > 1 ? ", " : "", bytes,
               bandwidth(buffer, bytes, 0), bandwidth(buffer, bytes, 1));
        free(buffer);
    }
    printf("]}\n");
    return 0;
}
