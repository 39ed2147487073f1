/* The step loop. */
#include "enx_internal.h"

static int32_t run_step(const enx_context_t *context, const enx_step_t *step)
{
    if (step->extent > 1 && context->pool != NULL) {
        return enx_pool_run_step(context->pool, context->model, step, context->arena);
    }
    return step->fn(context->model, context->arena, 0, step->extent);
}

enx_status_t enx_run_profiled(enx_context_t *context, enx_profile_fn callback, void *user)
{
    if (context == NULL) {
        return ENX_ERR_NULL;
    }
    if (context->model == NULL) {
        return ENX_ERR_NOT_INITIALIZED;
    }
    if (context->pool != NULL && !enx_pool_try_acquire(context->pool)) {
        return ENX_ERR_BUSY;
    }
    enx_status_t status = ENX_OK;
    for (uint32_t i = 0; i < context->model->num_steps; ++i) {
        const enx_step_t *step = &context->model->steps[i];
        if (callback != NULL) {
            callback(user, i, step, ENX_STEP_BEGIN);
        }
        const int32_t failure = run_step(context, step);
        if (callback != NULL) {
            callback(user, i, step, ENX_STEP_END);
        }
        if (failure != 0) {
            context->failed_step = i;
            status = ENX_ERR_STEP;
            break;
        }
    }
    if (context->pool != NULL) {
        enx_pool_release(context->pool);
    }
    return status;
}

enx_status_t enx_run(enx_context_t *context)
{
    return enx_run_profiled(context, NULL, NULL);
}
