/* Times, or runs once, each candidate of a batch in turn; a crash or a hang of one does not keep the others from running.
 *
 * main [--rounds R] [--min-ms M] [--limit-ms L] [--core N] [--skip NAME]...    time them
 * main --once [--limit-ms L] [--skip NAME]...                                  run each once, between two enx_mark()
 *
 * Prints "begin NAME" at a candidate's first turn, "NAME ROUND SECONDS" (seconds of one call: the least of the round),
 * "once NAME" after a single run, "failed NAME WHY", and "end". L bounds the processor time of one turn, not wall time:
 * waiting for a busy board is no failure of the candidate.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "measure.h"

#define MAX_CANDIDATES 256
#define CHUNK_SECONDS 50e-6 /* a clock reading costs up to a microsecond on some boards */
#define ALTERNATE_STACK_BYTES 65536

static sigjmp_buf escape;
static volatile sig_atomic_t guarded; /* whether a signal comes from a candidate */
static unsigned char alternate_stack[ALTERNATE_STACK_BYTES];

static struct options {
    long rounds, min_ms, limit_ms, core;
    int once;
} options = {5, 2, 2000, -1, 0};

static int skipped[MAX_CANDIDATES];        /* by the command line, or failed */
static long calls_per_chunk[MAX_CANDIDATES]; /* so many that a chunk is long against reading the clock */

/* A counting emulator recognises this function by its address. */
__attribute__((noinline)) void enx_mark(void)
{
    __asm__ volatile("" : : : "memory");
}

static void on_signal(int number)
{
    if (guarded) {
        guarded = 0;
        siglongjmp(escape, number);
    }
    signal(number, SIG_DFL);
    raise(number);
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGPROF};
    stack_t stack;
    struct sigaction action;
    memset(&stack, 0, sizeof stack);
    stack.ss_sp = alternate_stack;
    stack.ss_size = sizeof alternate_stack;
    sigaltstack(&stack, NULL);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_ONSTACK;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        sigaction(numbers[i], &action, NULL);
    }
}

static void limit_processor_time(long ms)
{
    struct itimerval timer;
    memset(&timer, 0, sizeof timer);
    timer.it_value.tv_sec = ms / 1000;
    timer.it_value.tv_usec = ms % 1000 * 1000;
    setitimer(ITIMER_PROF, &timer, NULL);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static uint64_t random_word(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t as_filled(enum enx_fill fill, uint64_t word)
{
    int16_t shorts[4];
    float floats[2];
    double wide;
    switch (fill) {
    case ENX_FILL_BYTES:
        return word;
    case ENX_FILL_INT16:
        for (int i = 0; i < 4; i++) {
            shorts[i] = (int16_t)((int)(word >> (16 * i) & 255) - 128);
        }
        memcpy(&word, shorts, sizeof word);
        return word;
    case ENX_FILL_INT32:
        return word & UINT64_C(0x0000000300000003);
    case ENX_FILL_INT64:
        return word & 3;
    case ENX_FILL_FLOAT32:
        floats[0] = 0.5f + (float)(word & 0xffff) / 65536.0f;
        floats[1] = 0.5f + (float)(word >> 32 & 0xffff) / 65536.0f;
        memcpy(&word, floats, sizeof word);
        return word;
    case ENX_FILL_FLOAT64:
        wide = 0.5 + (double)(word & 0xffff) / 65536.0;
        memcpy(&word, &wide, sizeof word);
        return word;
    case ENX_FILL_ZERO:
        break;
    }
    return 0;
}

/* The same bytes at every turn: the candidates share the arena and overwrite each other's arguments. */
static void fill_arguments(const struct enx_candidate *candidate)
{
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15);
    for (size_t a = 0; a < candidate->num_arguments; a++) {
        const struct enx_argument *argument = &candidate->arguments[a];
        unsigned char *to = enx_measure_arena + argument->offset;
        for (size_t at = 0; at < argument->bytes; at += sizeof(uint64_t)) {
            uint64_t word = as_filled(argument->fill, random_word(&state));
            memcpy(to + at, &word, sizeof word);
        }
    }
}

static double seconds_of(const struct enx_candidate *candidate, long calls)
{
    double begin = now();
    for (long i = 0; i < calls; i++) {
        candidate->call();
    }
    return (now() - begin) / (double)calls;
}

static void warm_up(size_t index)
{
    enx_candidates[index].call();
    double seconds = seconds_of(&enx_candidates[index], 1);
    calls_per_chunk[index] = seconds < CHUNK_SECONDS ? 1 + (long)(CHUNK_SECONDS / (seconds + 1e-9)) : 1;
}

static void time_round(size_t index, long round)
{
    double begin = now(), least = seconds_of(&enx_candidates[index], calls_per_chunk[index]);
    while (now() - begin < 1e-3 * (double)options.min_ms) {
        double seconds = seconds_of(&enx_candidates[index], calls_per_chunk[index]);
        least = seconds < least ? seconds : least;
    }
    printf("%s %ld %.12g\n", enx_candidates[index].name, round, least);
}

static void run_once(size_t index)
{
    enx_mark();
    enx_candidates[index].call();
}

static void take_turn(size_t index, long round)
{
    /* volatile: read again after a signal has jumped back */
    volatile size_t kept = index;
    fill_arguments(&enx_candidates[index]);
    if (options.once || round < 0) {
        printf("begin %s\n", enx_candidates[index].name);
        fflush(stdout);
    }
    int number = sigsetjmp(escape, 1);
    if (number == 0) {
        limit_processor_time(options.limit_ms);
        guarded = 1;
        if (options.once) {
            run_once(index);
        } else if (round < 0) {
            warm_up(index);
        } else {
            time_round(index, round);
        }
    }
    guarded = 0;
    limit_processor_time(0);
    if (options.once) {
        enx_mark();
    }
    if (number == SIGPROF) {
        printf("failed %s did not end within %ld ms of processor time\n", enx_candidates[kept].name, options.limit_ms);
    } else if (number != 0) {
        printf("failed %s crashed: %s\n", enx_candidates[kept].name, strsignal(number));
    } else if (options.once) {
        printf("once %s\n", enx_candidates[kept].name);
    }
    skipped[kept] = skipped[kept] || number != 0;
    fflush(stdout);
}

static void skip(const char *name)
{
    for (size_t i = 0; i < enx_num_candidates; i++) {
        skipped[i] = skipped[i] || strcmp(enx_candidates[i].name, name) == 0;
    }
}

static int read_options(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--once") == 0) {
            options.once = 1;
            continue;
        }
        if (strcmp(argv[i], "--rounds") == 0) {
            options.rounds = strtol(value, NULL, 10);
        } else if (strcmp(argv[i], "--min-ms") == 0) {
            options.min_ms = strtol(value, NULL, 10);
        } else if (strcmp(argv[i], "--limit-ms") == 0) {
            options.limit_ms = strtol(value, NULL, 10);
        } else if (strcmp(argv[i], "--core") == 0) {
            options.core = strtol(value, NULL, 10);
        } else if (strcmp(argv[i], "--skip") == 0) {
            skip(value);
        } else {
            fprintf(stderr, "unknown option '%s'\n", argv[i]);
            return 0;
        }
        i++;
    }
    return 1;
}

static void stay_on_core(long core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) {
        perror("cannot stay on the core asked for");
    }
}

int main(int argc, char **argv)
{
    if (enx_num_candidates > MAX_CANDIDATES || !read_options(argc, argv)) {
        return 2;
    }
    if (options.core >= 0) {
        stay_on_core(options.core);
    }
    catch_signals();
    /* round -1 warms up: it finds out how many calls fill a chunk, and who crashes */
    for (long round = options.once ? 0 : -1; round < (options.once ? 1 : options.rounds); round++) {
        for (size_t i = 0; i < enx_num_candidates; i++) {
            if (!skipped[i]) {
                take_turn(i, round);
            }
        }
    }
    puts("end");
    return 0;
}
