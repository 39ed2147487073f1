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

static int allocate(cli_session_t *session, size_t arena_bytes, size_t pool_bytes)
{
    const enx_model_t *model = enx_cli_model;
    if (posix_memalign(&session->arena, model->arena_align, arena_bytes) != 0) {
        session->arena = NULL;
    }
    if (posix_memalign(&session->pool_memory, ENX_POOL_ALIGN, pool_bytes) != 0) {
        session->pool_memory = NULL;
    }
    session->saved_input = malloc(model->input.bytes);
    session->logits = (float *)malloc(model->num_classes * sizeof(float));
    session->first_logits = (float *)malloc(model->num_classes * sizeof(float));
    return session->arena != NULL && session->pool_memory != NULL && session->saved_input != NULL &&
           session->logits != NULL && session->first_logits != NULL;
}

int cli_session_open(cli_session_t *session, int32_t threads, size_t extra_arena_bytes)
{
    const size_t arena_bytes = enx_cli_model->arena_bytes + extra_arena_bytes;
    const size_t pool_bytes = ENX_POOL_BYTES(threads);
    memset(session, 0, sizeof *session);
    if (!allocate(session, arena_bytes, pool_bytes)) {
        cli_session_close(session);
        return cli_fail("out of memory: the arena needs %zu bytes; free some, or give smaller images", arena_bytes);
    }
    enx_status_t status = enx_pool_create(session->pool_memory, pool_bytes, threads, &session->pool);
    if (status != ENX_OK) {
        cli_session_close(session);
        return cli_fail("cannot start %d threads: %s; try --threads 1", threads, enx_status_string(status));
    }
    status = enx_init(&session->context, enx_cli_model, session->arena, arena_bytes, session->pool);
    if (status != ENX_OK) {
        cli_session_close(session);
        return cli_fail("cannot set up the model: %s", enx_status_string(status));
    }
    return CLI_OK;
}

void cli_session_close(cli_session_t *session)
{
    if (session->pool != NULL) {
        enx_pool_destroy(session->pool);
    }
    free(session->arena);
    free(session->pool_memory);
    free(session->saved_input);
    free(session->logits);
    free(session->first_logits);
    memset(session, 0, sizeof *session);
}
