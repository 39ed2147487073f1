/* All memory an inference works in, taken before the first one. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"

double cli_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

static int allocate(cli_engine_t *engine, size_t arena_bytes, size_t pool_bytes)
{
    const enx_model_t *model = enx_cli_model;
    if (posix_memalign(&engine->arena, model->arena_align, arena_bytes) != 0) {
        engine->arena = NULL;
    }
    if (posix_memalign(&engine->pool_memory, ENX_POOL_ALIGN, pool_bytes) != 0) {
        engine->pool_memory = NULL;
    }
    engine->saved_input = malloc(model->input.bytes);
    engine->logits = (float *)malloc(model->num_classes * sizeof(float));
    engine->first_logits = (float *)malloc(model->num_classes * sizeof(float));
    return engine->arena != NULL && engine->pool_memory != NULL && engine->saved_input != NULL &&
           engine->logits != NULL && engine->first_logits != NULL;
}

int cli_engine_open(cli_engine_t *engine, int32_t threads, size_t extra_arena_bytes)
{
    const size_t arena_bytes = enx_cli_model->arena_bytes + extra_arena_bytes;
    const size_t pool_bytes = ENX_POOL_BYTES(threads);
    memset(engine, 0, sizeof *engine);
    if (!allocate(engine, arena_bytes, pool_bytes)) {
        cli_engine_close(engine);
        return cli_fail("out of memory: the arena needs %zu bytes; free some, or give smaller images", arena_bytes);
    }
    enx_status_t status = enx_pool_create(engine->pool_memory, pool_bytes, threads, &engine->pool);
    if (status != ENX_OK) {
        cli_engine_close(engine);
        return cli_fail("cannot start %d threads: %s; try --threads 1", threads, enx_status_string(status));
    }
    status = enx_init(&engine->context, enx_cli_model, engine->arena, arena_bytes, engine->pool);
    if (status != ENX_OK) {
        cli_engine_close(engine);
        return cli_fail("cannot set up the model: %s", enx_status_string(status));
    }
    return CLI_OK;
}

void cli_engine_close(cli_engine_t *engine)
{
    if (engine->pool != NULL) {
        enx_pool_destroy(engine->pool);
    }
    free(engine->arena);
    free(engine->pool_memory);
    free(engine->saved_input);
    free(engine->logits);
    free(engine->first_logits);
    memset(engine, 0, sizeof *engine);
}
