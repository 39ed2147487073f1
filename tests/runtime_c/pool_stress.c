/*
 * Runs models over pools in every way that the header allows and compares with the serial result. Prints "ok" and
 * exits 0, or says what went wrong and exits 1.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "enx/enx.h"
#include "enx/enx_golden.h"

extern const enx_model_t enx_model_tiny, enx_model_tiny_f32;

enum { CLASSES = 4 };

typedef struct {
    uint8_t arena[1024] __attribute__((aligned(64)));
    uint8_t pool_memory[ENX_POOL_BYTES(ENX_MAX_THREADS)] __attribute__((aligned(ENX_POOL_ALIGN)));
    enx_context_t context;
    enx_pool_t *pool;
    const enx_model_t *model;
    int runs, busy;
    uint32_t seed;
} lane_t;

static void expect(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "failed: %s\n", what);
        exit(1);
    }
}

static enx_status_t infer(enx_context_t *context, uint32_t seed, float *logits)
{
    const enx_golden_vector_t vector = {ENX_GOLDEN_RANDOM, seed, 0, NULL, 0, 0, 0, 0.0f};
    expect(enx_golden_fill_input(context, &vector) == ENX_OK, "fill input");
    const enx_status_t status = enx_run(context);
    if (status == ENX_OK) {
        expect(enx_output_copy(context, logits, CLASSES) == ENX_OK, "copy output");
    }
    return status;
}

static void serial(const enx_model_t *model, uint32_t seed, float *logits)
{
    static _Thread_local uint8_t arena[1024] __attribute__((aligned(64)));
    enx_context_t context;
    expect(enx_init(&context, model, arena, sizeof arena, NULL) == ENX_OK, "init");
    expect(infer(&context, seed, logits) == ENX_OK, "serial run");
}

static void pause_us(long us)
{
    const struct timespec time = {0, us * 1000};
    nanosleep(&time, NULL);
}

static void same_bits_for_every_thread_count(int runs)
{
    static lane_t lane;
    for (int32_t threads = 1; threads <= 4; ++threads) {
        expect(enx_pool_create(lane.pool_memory, ENX_POOL_BYTES(threads), threads, &lane.pool) == ENX_OK, "create");
        expect(enx_pool_num_threads(lane.pool) == threads, "num_threads");
        expect(enx_init(&lane.context, &enx_model_tiny, lane.arena, sizeof lane.arena, lane.pool) == ENX_OK, "init");
        for (int i = 0; i < runs; ++i) {
            float expected[CLASSES], got[CLASSES];
            serial(&enx_model_tiny, (uint32_t)i + 1, expected);
            expect(infer(&lane.context, (uint32_t)i + 1, got) == ENX_OK, "pool run");
            expect(memcmp(expected, got, sizeof got) == 0, "same bits");
            if (i % 50 == 0) {
                pause_us(2000); /* lets the workers fall asleep */
            }
        }
        expect(enx_pool_destroy(lane.pool) == ENX_OK, "destroy");
    }
}

static void create_and_destroy_often(int rounds)
{
    static lane_t lane;
    for (int i = 0; i < rounds; ++i) {
        float logits[CLASSES];
        const int32_t threads = 1 + i % ENX_MAX_THREADS;
        expect(enx_pool_create(lane.pool_memory, sizeof lane.pool_memory, threads, &lane.pool) == ENX_OK, "create");
        if (i % 3 == 0) {
            expect(enx_init(&lane.context, &enx_model_tiny, lane.arena, sizeof lane.arena, lane.pool) == ENX_OK,
                   "init");
            expect(infer(&lane.context, 7, logits) == ENX_OK, "run");
        }
        expect(enx_pool_destroy(lane.pool) == ENX_OK, "destroy");
    }
}

static void *run_lane(void *argument)
{
    lane_t *lane = (lane_t *)argument;
    float expected[CLASSES];
    serial(lane->model, lane->seed, expected);
    for (int i = 0; i < lane->runs; ++i) {
        float got[CLASSES];
        const enx_status_t status = infer(&lane->context, lane->seed, got);
        if (status == ENX_ERR_BUSY) {
            lane->busy += 1;
        } else {
            expect(status == ENX_OK && memcmp(expected, got, sizeof got) == 0, "same bits beside another context");
        }
    }
    return NULL;
}

/* Two models, two contexts, two caller threads; one pool each or one for both. */
static void two_contexts_at_once(int runs, int share_pool)
{
    static lane_t lanes[2];
    pthread_t threads[2];
    const enx_model_t *models[2] = {&enx_model_tiny, &enx_model_tiny_f32};
    for (int i = 0; i < 2; ++i) {
        lanes[i].model = models[i];
        lanes[i].runs = runs;
        lanes[i].busy = 0;
        lanes[i].seed = 11u + (uint32_t)i;
        if (i == 0 || !share_pool) {
            expect(enx_pool_create(lanes[i].pool_memory, sizeof lanes[i].pool_memory, 3, &lanes[i].pool) == ENX_OK,
                   "create");
        } else {
            lanes[1].pool = lanes[0].pool;
        }
        expect(enx_init(&lanes[i].context, models[i], lanes[i].arena, sizeof lanes[i].arena, lanes[i].pool) == ENX_OK,
               "init");
    }
    for (int i = 0; i < 2; ++i) {
        expect(pthread_create(&threads[i], NULL, run_lane, &lanes[i]) == 0, "pthread_create");
    }
    for (int i = 0; i < 2; ++i) {
        pthread_join(threads[i], NULL);
    }
    expect(share_pool || lanes[0].busy + lanes[1].busy == 0, "pools of one's own are never busy");
    expect(lanes[0].busy < runs || lanes[1].busy < runs, "a shared pool serves somebody");
    expect(enx_pool_destroy(lanes[0].pool) == ENX_OK, "destroy");
    if (!share_pool) {
        expect(enx_pool_destroy(lanes[1].pool) == ENX_OK, "destroy");
    }
}

int main(int argc, char **argv)
{
    const int runs = argc > 1 ? atoi(argv[1]) : 300;
    same_bits_for_every_thread_count(runs);
    create_and_destroy_often(runs / 6);
    two_contexts_at_once(runs, 0);
    two_contexts_at_once(runs, 1);
    puts("ok");
    return 0;
}
