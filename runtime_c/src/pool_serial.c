/* The pool of a build without threads: the interface of pool_threads.c, one thread, no pthread symbol. */
#include "enx_internal.h"

#ifdef ENX_NO_THREADS

struct enx_pool {
    int32_t in_use;
};

enx_status_t enx_pool_create(void *memory, size_t memory_bytes, int32_t num_threads, enx_pool_t **out_pool)
{
    if (memory == NULL || out_pool == NULL) {
        return ENX_ERR_NULL;
    }
    if (num_threads != 1) {
        return ENX_ERR_THREADS;
    }
    if (memory_bytes < ENX_POOL_BYTES(1) || ((uintptr_t)memory & (ENX_POOL_ALIGN - 1)) != 0) {
        return ENX_ERR_POOL_MEMORY;
    }
    enx_pool_t *pool = (enx_pool_t *)memory;
    pool->in_use = 0;
    *out_pool = pool;
    return ENX_OK;
}

enx_status_t enx_pool_destroy(enx_pool_t *pool)
{
    if (pool == NULL) {
        return ENX_ERR_NULL;
    }
    return pool->in_use ? ENX_ERR_BUSY : ENX_OK;
}

int32_t enx_pool_num_threads(const enx_pool_t *pool)
{
    (void)pool;
    return 1;
}

int enx_pool_try_acquire(enx_pool_t *pool)
{
    if (pool->in_use) {
        return 0;
    }
    pool->in_use = 1;
    return 1;
}

void enx_pool_release(enx_pool_t *pool)
{
    pool->in_use = 0;
}

int32_t enx_pool_run_step(enx_pool_t *pool, const enx_model_t *model, const enx_step_t *step, uint8_t *arena)
{
    (void)pool;
    return step->fn(model, arena, 0, step->extent);
}

#else
typedef int enx_pool_serial_is_unused; /* ISO C wants at least one declaration in a file */
#endif
