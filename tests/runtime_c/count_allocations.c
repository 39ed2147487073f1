/*
 * Linked into the command line program with -Wl,--wrap=enx_run,--wrap=enx_preprocess_rgb8. The allocator defined here
 * takes the place of glibc's for the whole process, libraries included, and counts its calls between entry and
 * exit of the two wrapped functions. At exit one line goes to stderr.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "enx/enx.h"

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);
extern void *__libc_memalign(size_t align, size_t bytes);
extern void __libc_free(void *memory);
enx_status_t __real_enx_run(enx_context_t *context);
enx_status_t __real_enx_preprocess_rgb8(enx_context_t *context, const uint8_t *pixels, int32_t width,
                                        int32_t height, size_t row_stride, int32_t channels);

static int inside, calls_inside, calls_outside, inferences;

static void count(void)
{
    if (__atomic_load_n(&inside, __ATOMIC_SEQ_CST)) {
        __atomic_add_fetch(&calls_inside, 1, __ATOMIC_SEQ_CST);
    } else {
        __atomic_add_fetch(&calls_outside, 1, __ATOMIC_SEQ_CST);
    }
}

void *malloc(size_t bytes) { count(); return __libc_malloc(bytes); }
void *calloc(size_t n, size_t bytes) { count(); return __libc_calloc(n, bytes); }
void *realloc(void *memory, size_t bytes) { count(); return __libc_realloc(memory, bytes); }
void *memalign(size_t align, size_t bytes) { count(); return __libc_memalign(align, bytes); }
void free(void *memory) { count(); __libc_free(memory); }
int posix_memalign(void **out, size_t align, size_t bytes)
{
    count();
    *out = __libc_memalign(align, bytes);
    return *out == NULL;
}

static void print_counts(void)
{
    fprintf(stderr, "inferences %d inside %d outside %s\n", inferences, calls_inside,
            calls_outside > 0 ? "some" : "none");
}

static void enter(void)
{
    if (inferences++ == 0) {
        atexit(print_counts);
    }
    __atomic_store_n(&inside, 1, __ATOMIC_SEQ_CST);
}

enx_status_t __wrap_enx_run(enx_context_t *context);
enx_status_t __wrap_enx_run(enx_context_t *context)
{
    enter();
    const enx_status_t status = __real_enx_run(context);
    __atomic_store_n(&inside, 0, __ATOMIC_SEQ_CST);
    return status;
}

enx_status_t __wrap_enx_preprocess_rgb8(enx_context_t *context, const uint8_t *pixels, int32_t width,
                                        int32_t height, size_t row_stride, int32_t channels);
enx_status_t __wrap_enx_preprocess_rgb8(enx_context_t *context, const uint8_t *pixels, int32_t width,
                                        int32_t height, size_t row_stride, int32_t channels)
{
    enter();
    const enx_status_t status =
        __real_enx_preprocess_rgb8(context, pixels, width, height, row_stride, channels);
#ifdef ALLOCATE_INSIDE /* proves that the count is not always zero */
    void *volatile memory = malloc(1); /* volatile: the pair may not be optimised away */
    free(memory);
#endif
    __atomic_store_n(&inside, 0, __ATOMIC_SEQ_CST);
    return status;
}
