/*
 * Linked with -Wl,--wrap=pthread_create,--wrap=pthread_join,--wrap=pthread_mutex_init,--wrap=pthread_cond_init: lets the
 * n-th request of a kind fail and checks that enx_pool_create says so and ends the threads it had started.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "enx/enx.h"

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*main)(void *), void *user);
int __real_pthread_join(pthread_t thread, void **out_result);
int __real_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __real_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*main)(void *), void *user);
int __wrap_pthread_join(pthread_t thread, void **out_result);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);

static int requests, refused, started, joined;

static int is_refused(void)
{
    return ++requests == refused;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*main)(void *), void *user)
{
    if (is_refused()) {
        return EAGAIN;
    }
    started += 1;
    return __real_pthread_create(thread, attributes, main, user);
}

int __wrap_pthread_join(pthread_t thread, void **out_result)
{
    joined += 1;
    return __real_pthread_join(thread, out_result);
}

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes)
{
    return is_refused() ? ENOMEM : __real_pthread_mutex_init(mutex, attributes);
}

int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes)
{
    return is_refused() ? ENOMEM : __real_pthread_cond_init(condition, attributes);
}

int main(void)
{
    static uint8_t memory[ENX_POOL_BYTES(5)] __attribute__((aligned(ENX_POOL_ALIGN)));
    enum { REQUESTS = 1 + 2 + 4 }; /* one mutex, two conditions, four threads */
    for (refused = 1; refused <= REQUESTS + 1; ++refused) {
        enx_pool_t *pool = NULL;
        requests = started = joined = 0;
        const enx_status_t status = enx_pool_create(memory, sizeof memory, 5, &pool);
        const int is_good = refused <= REQUESTS
                                ? status == ENX_ERR_THREAD_CREATE && pool == NULL
                                : status == ENX_OK && enx_pool_destroy(pool) == ENX_OK && started == 4;
        if (!is_good || started != joined) {
            fprintf(stderr, "request %d refused: status %d, %d started, %d joined\n", refused, status, started, joined);
            return 1;
        }
    }
    puts("ok");
    return 0;
}
