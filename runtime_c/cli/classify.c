/*
 * Checks all inputs, takes all memory, then reads, preprocesses and runs image by image.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { WARM_UP_RUNS = 3, MAX_RUNS = 20000000 };

/* What all inputs together need. */
typedef struct {
    uint32_t images;
    size_t largest_item_bytes;
    uint32_t extra_arena_bytes;
} needs_t;

typedef struct {
    const cli_options_t *options;
    const needs_t *needs;
    cli_engine_t engine;
    cli_profile_t profile;
    cli_dump_t dump;
    cli_writer_t writer;
    void *item;            /* one image or tensor of the file */
    cli_rank_t *ranks;     /* [top] */
    cli_layer_time_t *rows; /* [num_steps] */
    double *run_us;        /* [images * repeat] */
    double *preprocess_us; /* [images] */
    uint32_t images, runs, preprocessed;
} job_t;

static int survey_inputs(const cli_options_t *options, needs_t *needs)
{
    memset(needs, 0, sizeof *needs);
    uint64_t images = options->num_files == 0 ? 1 : 0;
    for (int i = 0; i < options->num_files; ++i) {
        cli_input_t input;
        const int result = cli_input_open(&input, options->files[i]);
        if (result != CLI_OK) {
            return result;
        }
        cli_input_close(&input);
        uint32_t scratch = 0;
        if (!input.is_tensor && enx_preprocess_scratch_bytes(enx_cli_model, input.width, input.height,
                                                             &scratch) == ENX_OK &&
            scratch + 8u > needs->extra_arena_bytes) {
            needs->extra_arena_bytes = scratch + 8u;
        }
        if (input.item_bytes > needs->largest_item_bytes) {
            needs->largest_item_bytes = input.item_bytes;
        }
        images += input.count;
    }
    if (images * (uint64_t)options->repeat > MAX_RUNS) {
        return cli_fail("%llu images times --repeat %d are too many runs; allowed are %d; lower --repeat",
                        (unsigned long long)images, options->repeat, MAX_RUNS);
    }
    needs->images = (uint32_t)images;
    return CLI_OK;
}

static int job_open(job_t *job, const cli_options_t *options, const needs_t *needs)
{
    const enx_model_t *model = enx_cli_model;
    memset(job, 0, sizeof *job);
    job->options = options;
    job->needs = needs;
    job->writer.options = options;
    job->writer.out = stdout;
    int result = cli_engine_open(&job->engine, options->threads, needs->extra_arena_bytes);
    if (result == CLI_OK && options->profile) {
        result = cli_profile_open(&job->profile);
    }
    if (result != CLI_OK) {
        return result;
    }
    job->item = malloc(needs->largest_item_bytes + 1);
    job->ranks = (cli_rank_t *)calloc((size_t)options->top, sizeof *job->ranks);
    job->rows = (cli_layer_time_t *)calloc(model->num_steps, sizeof *job->rows);
    job->run_us = (double *)calloc((size_t)needs->images * (size_t)options->repeat, sizeof(double));
    job->preprocess_us = (double *)calloc(needs->images, sizeof(double));
    if (job->item == NULL || job->ranks == NULL || job->rows == NULL || job->run_us == NULL ||
        job->preprocess_us == NULL) {
        return cli_fail("out of memory: the largest image needs %zu bytes; free some, or give smaller images",
                        needs->largest_item_bytes);
    }
    return options->dump != NULL ? cli_dump_open(&job->dump, options->dump, needs->images) : CLI_OK;
}

static void job_close(job_t *job)
{
    cli_dump_close(&job->dump);
    cli_profile_close(&job->profile);
    cli_engine_close(&job->engine);
    free(job->item);
    free(job->ranks);
    free(job->rows);
    free(job->run_us);
    free(job->preprocess_us);
}

/* Item -> input tensor. */
static int set_input(job_t *job, const cli_input_t *input)
{
    enx_context_t *context = &job->engine.context;
    if (input->is_tensor) {
        memcpy(enx_input(context), job->item, input->item_bytes);
        return CLI_OK;
    }
    const double started_us = cli_now_us();
    const enx_status_t status =
        enx_preprocess_rgb8(context, (const uint8_t *)job->item, input->width, input->height,
                            (size_t)input->width * (size_t)input->channels, input->channels);
    if (status != ENX_OK) {
        return cli_fail("cannot preprocess '%s': %s", input->path, enx_status_string(status));
    }
    job->preprocess_us[job->preprocessed++] = cli_now_us() - started_us;
    return CLI_OK;
}

static int run_once(job_t *job, int is_measured)
{
    enx_context_t *context = &job->engine.context;
    const int with_profile = is_measured && job->options->profile;
    const double started_us = cli_now_us();
    const enx_status_t status =
        with_profile ? enx_run_profiled(context, cli_profile_callback, &job->profile) : enx_run(context);
    if (is_measured) {
        job->run_us[job->runs++] = cli_now_us() - started_us;
        job->profile.count += 1;
    }
    if (status != ENX_OK) {
        return cli_fail("the network failed at step %u (%s): %s", context->failed_step,
                        enx_cli_model->steps[context->failed_step].layer, enx_status_string(status));
    }
    enx_output_copy(context, job->engine.logits, enx_cli_model->num_classes);
    return CLI_OK;
}

/* All runs of one input; every run must give the bits of the first. */
static int run_repeatedly(job_t *job)
{
    cli_engine_t *engine = &job->engine;
    void *input = enx_input(&engine->context);
    const size_t input_bytes = enx_cli_model->input.bytes;
    const size_t logit_bytes = enx_cli_model->num_classes * sizeof(float);
    const int32_t unmeasured = job->options->benchmark ? WARM_UP_RUNS : 0;
    memcpy(engine->saved_input, input, input_bytes);
    for (int32_t i = 0; i < unmeasured + job->options->repeat; ++i) {
        if (i > 0) {
            memcpy(input, engine->saved_input, input_bytes);
        }
        const int result = run_once(job, i >= unmeasured);
        if (result != CLI_OK) {
            return result;
        }
        if (i == 0) {
            memcpy(engine->first_logits, engine->logits, logit_bytes);
        } else if (memcmp(engine->first_logits, engine->logits, logit_bytes) != 0) {
            cli_fail("run %d of one input gave other logits than the first: the build or the machine is faulty; try "
                     "--selftest and --threads 1", i + 1);
            return CLI_FAILED;
        }
    }
    return CLI_OK;
}

static int run_file(job_t *job, const char *path)
{
    cli_input_t input;
    int result = cli_input_open(&input, path);
    if (result != CLI_OK) {
        return result;
    }
    if (input.item_bytes > job->needs->largest_item_bytes || input.count > job->needs->images - job->images) {
        cli_input_close(&input);
        return cli_fail("'%s' was changed after it was checked; run again when nothing writes to it", path);
    }
    job->images += input.count;
    for (uint32_t i = 0; result == CLI_OK && i < input.count; ++i) {
        result = cli_input_read(&input, job->item);
        if (result == CLI_OK) {
            result = set_input(job, &input);
        }
        if (result == CLI_OK) {
            result = run_repeatedly(job);
        }
        if (result == CLI_OK) {
            cli_rank_classes(job->engine.logits, job->options->top, job->ranks);
            (job->options->json ? cli_json_image : cli_text_image)(&job->writer, &input, job->ranks);
            result = job->options->dump != NULL ? cli_dump_row(&job->dump, job->engine.logits) : CLI_OK;
        }
    }
    cli_input_close(&input);
    return result;
}

static int run_synthetic(job_t *job)
{
    const enx_golden_vector_t vector = {ENX_GOLDEN_RANDOM, 1, 0, NULL, 0, 0, 0, 0.0f};
    const enx_status_t status = enx_golden_fill_input(&job->engine.context, &vector);
    return status == ENX_OK ? run_repeatedly(job) : cli_fail("%s", enx_status_string(status));
}

static int ascending(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b ? 1 : 0;
}

static double median(double *values, uint32_t count)
{
    qsort(values, count, sizeof *values, ascending);
    return count % 2 != 0 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

static int run_all(job_t *job)
{
    const cli_options_t *options = job->options;
    int result = options->num_files == 0 ? run_synthetic(job) : CLI_OK;
    for (int i = 0; result == CLI_OK && i < options->num_files; ++i) {
        result = run_file(job, options->files[i]);
    }
    if (result == CLI_OK && options->dump != NULL) {
        result = cli_dump_commit(&job->dump);
    }
    return result;
}

static void print_end(job_t *job)
{
    cli_timing_t timing;
    timing.runs = job->runs;
    timing.inference_median_us = median(job->run_us, job->runs);
    timing.inference_min_us = job->run_us[0];
    timing.preprocess_median_us = job->preprocessed > 0 ? median(job->preprocess_us, job->preprocessed) : -1.0;
    (job->options->json ? cli_json_end : cli_text_end)(&job->writer, job->options->benchmark ? &timing : NULL,
                                                       job->options->profile ? &job->profile : NULL, job->rows);
}

int cli_classify(const cli_options_t *options)
{
    needs_t needs;
    job_t job;
    char *text = NULL; /* the JSON object, printed only when it is whole */
    size_t text_bytes = 0;
    int result = survey_inputs(options, &needs);
    if (result != CLI_OK) {
        return result;
    }
    result = job_open(&job, options, &needs);
    if (result == CLI_OK && options->json) {
        job.writer.out = open_memstream(&text, &text_bytes);
        if (job.writer.out == NULL) {
            result = cli_fail("out of memory for the JSON text; free some");
        } else {
            cli_json_begin(&job.writer);
        }
    }
    if (result == CLI_OK) {
        result = run_all(&job);
        if (result == CLI_OK) {
            print_end(&job);
        }
    }
    if (options->json && job.writer.out != NULL && job.writer.out != stdout) {
        fclose(job.writer.out);
        if (result == CLI_OK) {
            fwrite(text, 1, text_bytes, stdout);
        }
    }
    free(text);
    job_close(&job);
    return result;
}
