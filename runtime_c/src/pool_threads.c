/*
 * A pool of POSIX threads in caller-owned memory.
 *
 * A step is published by raising `generation`; each worker that sees it runs its contiguous range and lowers
 * `pending`. Both sides spin briefly before they sleep. Sleeping is safe without a lock on the fast path because
 * each sleeper first announces itself and then looks again, while the other side first changes the value and
 * then looks for sleepers: with sequentially consistent order at least one of them sees the other.
 */
#ifndef ENX_NO_THREADS
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#endif

#include "enx_internal.h"

#ifndef ENX_NO_THREADS

/* About 20 to 100 microseconds: longer than a serial step of a small network, shorter than anyone notices. */
#ifndef ENX_POOL_SPINS
#if defined(__x86_64__) || defined(__i386__)
#define ENX_POOL_SPINS 1000
#else
#define ENX_POOL_SPINS 10000
#endif
#endif

typedef struct {
    pthread_t thread;
    enx_pool_t *pool;
    int32_t index; /* 1..num_threads-1; 0 is the caller */
} enx_worker_t;

struct enx_pool {
    /* Written by the running caller, read by workers. */
    uint32_t generation;
    int32_t stop;
    const enx_model_t *model;
    const enx_step_t *step;
    uint8_t *arena;
    int32_t num_threads;
    uint32_t in_use;
    uint8_t line_1[64]; /* keeps the workers' counter away from what they poll */
    int32_t pending;
    int32_t failure;
    uint8_t line_2[64];
    uint32_t sleeping_workers;
    uint32_t caller_sleeps;
    pthread_mutex_t mutex;
    pthread_cond_t work_ready;
    pthread_cond_t work_done;
    enx_worker_t workers[1]; /* num_threads - 1, the first counted in the struct */
};

typedef char enx_pool_fits_one[sizeof(struct enx_pool) <= ENX_POOL_BYTES(1) ? 1 : -1];
typedef char enx_worker_fits[sizeof(enx_worker_t) <= 64 ? 1 : -1];

static void spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__ARM_ARCH) && __ARM_ARCH >= 7)
    __asm__ volatile("yield");
#endif
}

static enx_worker_t *worker_at(enx_pool_t *pool, int32_t index)
{
    return (enx_worker_t *)(void *)((uint8_t *)pool + offsetof(struct enx_pool, workers)) + (index - 1);
}

static void run_range(enx_pool_t *pool, int32_t index)
{
    const enx_step_t *step = pool->step;
    const int32_t share = step->extent / pool->num_threads;
    const int32_t rest = step->extent % pool->num_threads;
    const int32_t begin = share * index + (index < rest ? index : rest);
    const int32_t end = begin + share + (index < rest ? 1 : 0);
    if (begin < end && step->fn(pool->model, pool->arena, begin, end) != 0) {
        __atomic_store_n(&pool->failure, 1, __ATOMIC_RELAXED);
    }
}

/* Returns the generation that differs from `seen`. */
static uint32_t wait_for_work(enx_pool_t *pool, uint32_t seen)
{
    for (int32_t i = 0; i < ENX_POOL_SPINS; ++i) {
        const uint32_t generation = __atomic_load_n(&pool->generation, __ATOMIC_ACQUIRE);
        if (generation != seen) {
            return generation;
        }
        spin_pause();
    }
    uint32_t generation;
    pthread_mutex_lock(&pool->mutex);
    __atomic_add_fetch(&pool->sleeping_workers, 1u, __ATOMIC_SEQ_CST);
    while ((generation = __atomic_load_n(&pool->generation, __ATOMIC_SEQ_CST)) == seen) {
        pthread_cond_wait(&pool->work_ready, &pool->mutex);
    }
    __atomic_sub_fetch(&pool->sleeping_workers, 1u, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&pool->mutex);
    return generation;
}

static void publish(enx_pool_t *pool)
{
    __atomic_add_fetch(&pool->generation, 1u, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool->sleeping_workers, __ATOMIC_SEQ_CST) != 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->work_ready);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static void finish_range(enx_pool_t *pool)
{
    if (__atomic_sub_fetch(&pool->pending, 1, __ATOMIC_SEQ_CST) == 0 &&
        __atomic_load_n(&pool->caller_sleeps, __ATOMIC_SEQ_CST) != 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_signal(&pool->work_done);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static void wait_for_workers(enx_pool_t *pool)
{
    for (int32_t i = 0; i < ENX_POOL_SPINS; ++i) {
        if (__atomic_load_n(&pool->pending, __ATOMIC_ACQUIRE) == 0) {
            return;
        }
        spin_pause();
    }
    pthread_mutex_lock(&pool->mutex);
    __atomic_store_n(&pool->caller_sleeps, 1u, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&pool->pending, __ATOMIC_SEQ_CST) != 0) {
        pthread_cond_wait(&pool->work_done, &pool->mutex);
    }
    __atomic_store_n(&pool->caller_sleeps, 0u, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&pool->mutex);
}

static void *worker_main(void *argument)
{
    const enx_worker_t *worker = (const enx_worker_t *)argument;
    enx_pool_t *pool = worker->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_work(pool, seen);
        if (pool->stop) {
            return NULL;
        }
        run_range(pool, worker->index);
        finish_range(pool);
    }
}

/* Ends workers 1..last and releases what enx_pool_create took. */
static void shut_down(enx_pool_t *pool, int32_t last)
{
    pool->stop = 1;
    publish(pool);
    for (int32_t i = 1; i <= last; ++i) {
        pthread_join(worker_at(pool, i)->thread, NULL);
    }
    pthread_cond_destroy(&pool->work_done);
    pthread_cond_destroy(&pool->work_ready);
    pthread_mutex_destroy(&pool->mutex);
}

static enx_status_t create_locks(enx_pool_t *pool)
{
    if (pthread_mutex_init(&pool->mutex, NULL) != 0) {
        return ENX_ERR_THREAD_CREATE;
    }
    if (pthread_cond_init(&pool->work_ready, NULL) != 0) {
        pthread_mutex_destroy(&pool->mutex);
        return ENX_ERR_THREAD_CREATE;
    }
    if (pthread_cond_init(&pool->work_done, NULL) != 0) {
        pthread_cond_destroy(&pool->work_ready);
        pthread_mutex_destroy(&pool->mutex);
        return ENX_ERR_THREAD_CREATE;
    }
    return ENX_OK;
}

enx_status_t enx_pool_create(void *memory, size_t memory_bytes, int32_t num_threads, enx_pool_t **out_pool)
{
    if (memory == NULL || out_pool == NULL) {
        return ENX_ERR_NULL;
    }
    if (num_threads < 1 || num_threads > ENX_MAX_THREADS) {
        return ENX_ERR_THREADS;
    }
    if (memory_bytes < ENX_POOL_BYTES(num_threads) || ((uintptr_t)memory & (ENX_POOL_ALIGN - 1)) != 0) {
        return ENX_ERR_POOL_MEMORY;
    }
    enx_pool_t *pool = (enx_pool_t *)memory;
    pool->generation = 0;
    pool->stop = 0;
    pool->model = NULL;
    pool->step = NULL;
    pool->arena = NULL;
    pool->num_threads = num_threads;
    pool->in_use = 0;
    pool->pending = 0;
    pool->failure = 0;
    pool->sleeping_workers = 0;
    pool->caller_sleeps = 0;
    const enx_status_t status = create_locks(pool);
    if (status != ENX_OK) {
        return status;
    }
    for (int32_t i = 1; i < num_threads; ++i) {
        enx_worker_t *worker = worker_at(pool, i);
        worker->pool = pool;
        worker->index = i;
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
            shut_down(pool, i - 1);
            return ENX_ERR_THREAD_CREATE;
        }
    }
    *out_pool = pool;
    return ENX_OK;
}

enx_status_t enx_pool_destroy(enx_pool_t *pool)
{
    if (pool == NULL) {
        return ENX_ERR_NULL;
    }
    if (!enx_pool_try_acquire(pool)) {
        return ENX_ERR_BUSY;
    }
    shut_down(pool, pool->num_threads - 1);
    return ENX_OK;
}

int32_t enx_pool_num_threads(const enx_pool_t *pool)
{
    return pool == NULL ? 1 : pool->num_threads;
}

int enx_pool_try_acquire(enx_pool_t *pool)
{
    return __atomic_exchange_n(&pool->in_use, 1u, __ATOMIC_ACQUIRE) == 0;
}

void enx_pool_release(enx_pool_t *pool)
{
    __atomic_store_n(&pool->in_use, 0u, __ATOMIC_RELEASE);
}

int32_t enx_pool_run_step(enx_pool_t *pool, const enx_model_t *model, const enx_step_t *step, uint8_t *arena)
{
    if (pool->num_threads == 1) {
        return step->fn(model, arena, 0, step->extent);
    }
    pool->model = model;
    pool->step = step;
    pool->arena = arena;
    pool->failure = 0;
    pool->pending = pool->num_threads - 1;
    publish(pool);
    run_range(pool, 0);
    wait_for_workers(pool);
    return pool->failure;
}

#endif
