/* What the library's own files share; not installed. */
#ifndef ENX_INTERNAL_H
#define ENX_INTERNAL_H

#include "enx/enx.h"

/* Bytes of one element, 0 for a value that is no dtype. */
uint32_t enx_dtype_bytes(enx_dtype_t dtype);

/* True if the input is [1, S, S, 3] with tables for its dtype and consistent sizes. */
int enx_model_can_preprocess(const enx_model_t *model);

/* 1 when this caller now owns the pool, 0 when another run does. */
int enx_pool_try_acquire(enx_pool_t *pool);
void enx_pool_release(enx_pool_t *pool);

/* Runs one step over the pool's threads (the pool is acquired); 0, or non-zero when a range failed. */
int32_t enx_pool_run_step(enx_pool_t *pool, const enx_model_t *model, const enx_step_t *step, uint8_t *arena);

#endif
