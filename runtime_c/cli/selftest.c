/* Runs the golden vectors that are linked in. */
#include <stdlib.h>

#include "cli.h"

static void print_failure(uint32_t index, const enx_golden_vector_t *vector, const enx_golden_result_t *result)
{
    if (vector->kind == ENX_GOLDEN_IMAGE && result->got_crc32 != vector->expected_crc32) {
        fprintf(stderr, "vector %u: preprocessing of %d x %d pixels gives CRC-32 %08x, expected %08x\n", index,
                vector->width, vector->height, result->got_crc32, vector->expected_crc32);
    }
    if (result->class_index >= 0) {
        fprintf(stderr, "vector %u: logit %d is %.9g, expected %.9g\n", index, result->class_index,
                (double)result->got, (double)result->expected);
    }
}

static int check_all(cli_engine_t *engine, uint8_t *pixels, size_t pixel_bytes, uint32_t *out_failed)
{
    const enx_golden_t *golden = enx_cli_golden;
    *out_failed = 0;
    for (uint32_t i = 0; i < golden->num_vectors; ++i) {
        const enx_golden_vector_t *vector = &golden->vectors[i];
        enx_golden_result_t result;
        const enx_status_t status = enx_golden_check(&engine->context, vector, pixels, pixel_bytes, &result);
        if (status != ENX_OK) {
            fprintf(stderr, "vector %u: %s\n", i, enx_status_string(status));
            *out_failed += 1;
        } else if (!result.passed) {
            print_failure(i, vector, &result);
            *out_failed += 1;
        }
    }
    return *out_failed == 0 ? CLI_OK : CLI_FAILED;
}

int cli_selftest(const cli_options_t *options)
{
    const enx_golden_t *golden = enx_cli_golden;
    if (golden == NULL || golden->num_vectors == 0) {
        return cli_fail("--selftest: no golden vectors are linked in; compile the model with its golden vectors");
    }
    size_t pixel_bytes = 1;
    uint32_t extra = 0;
    for (uint32_t i = 0; i < golden->num_vectors; ++i) {
        const enx_golden_vector_t *vector = &golden->vectors[i];
        const size_t needed = enx_golden_pixel_bytes(vector);
        uint32_t scratch = 0;
        pixel_bytes = needed > pixel_bytes ? needed : pixel_bytes;
        if (needed > 0 && enx_preprocess_scratch_bytes(enx_cli_model, vector->width, vector->height,
                                                       &scratch) == ENX_OK && scratch + 8u > extra) {
            extra = scratch + 8u;
        }
    }
    cli_engine_t engine;
    uint32_t failed = 0;
    int result = cli_engine_open(&engine, options->threads, extra);
    if (result != CLI_OK) {
        return result;
    }
    uint8_t *pixels = (uint8_t *)malloc(pixel_bytes);
    if (pixels == NULL) {
        result = cli_fail("out of memory: a golden image needs %zu bytes; free some", pixel_bytes);
    } else {
        result = check_all(&engine, pixels, pixel_bytes, &failed);
        const char *verdict = failed == 0 ? "PASS" : "FAIL";
        if (options->json) {
            printf("{\"model\": \"%s\", \"selftest\": \"%s\", \"vectors\": %u, \"failed\": %u, \"threads\": %d}\n",
                   enx_cli_model->name, verdict, golden->num_vectors, failed, options->threads);
        } else {
            printf("selftest %s: %u of %u vectors, threads %d\n", verdict, golden->num_vectors - failed,
                   golden->num_vectors, options->threads);
        }
    }
    free(pixels);
    cli_engine_close(&engine);
    return result;
}
