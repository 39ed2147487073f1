/*
 * The command line program of one compiled model. The generated NAME_cli.c says which model; everything here is
 * hosted C (POSIX): heap and stdio are used before and between inferences, never inside one.
 */
#ifndef ENX_CLI_H
#define ENX_CLI_H

#include <stdint.h>
#include <stdio.h>

#include "enx/enx.h"
#include "enx/enx_golden.h"

extern const enx_model_t *const enx_cli_model;
extern const enx_golden_t *const enx_cli_golden; /* NULL: no golden vectors are linked */

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USER_ERROR = 2 };

/* One line "NAME: error: ..." on stderr; returns CLI_USER_ERROR. */
int cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

typedef struct {
    int32_t top;     /* 1..num_classes */
    int32_t repeat;  /* inferences per image */
    int32_t threads; /* 1..ENX_MAX_THREADS */
    int benchmark, selftest, profile, json;
    int show_help, show_version;
    const char *dump; /* path, or NULL */
    char *const *files;
    int num_files;
} cli_options_t;

int cli_parse_options(int argc, char **argv, cli_options_t *out_options);
void cli_print_help(void);
void cli_print_version(void);

/* ---- input files: P5, P6 and .npy, recognised by their first bytes ---- */

typedef struct {
    const char *path;
    FILE *file;
    int is_tensor;     /* raw network input, else 8-bit pixels */
    int32_t width, height, channels; /* of pixels */
    uint32_t count;    /* images or tensors in the file */
    size_t item_bytes; /* of one image or tensor */
    uint32_t next;     /* index of the item read next */
} cli_input_t;

/* Opens a file and checks its header and its length against the model; reports errors itself. */
int cli_input_open(cli_input_t *input, const char *path);
/* Reads the next item into item_bytes of buffer. */
int cli_input_read(cli_input_t *input, void *buffer);
void cli_input_close(cli_input_t *input);

/* The two formats; called by cli_input_open with the file at its start, leave it at the first data byte. */
int cli_read_pnm_header(cli_input_t *input);
int cli_read_npy_header(cli_input_t *input);
/* Checks sides against what the runtime handles; sets item_bytes of pixels. */
int cli_set_image_size(cli_input_t *input, int64_t width, int64_t height, int32_t channels);

/* ---- model, arena, pool ---- */

typedef struct {
    enx_context_t context;
    enx_pool_t *pool;
    void *arena;
    void *pool_memory;
    void *saved_input; /* model->input.bytes: enx_run may overwrite the input */
    float *logits;     /* num_classes, of the last inference */
    float *first_logits;
} cli_engine_t;

/* extra_arena_bytes: preprocessing scratch beyond the model's own arena. */
int cli_engine_open(cli_engine_t *engine, int32_t threads, size_t extra_arena_bytes);
void cli_engine_close(cli_engine_t *engine);
double cli_now_us(void);

/* ---- results ---- */

typedef struct {
    uint32_t count;
    double *total_us; /* [num_steps], summed over count runs */
    double started_us;
} cli_profile_t;

int cli_profile_open(cli_profile_t *profile);
void cli_profile_close(cli_profile_t *profile);
void cli_profile_callback(void *user, uint32_t step_index, const enx_step_t *step, enx_phase_t phase);

/* Steps of one layer, summed; sorted by time, longest first. Returns the number written to rows[num_steps]. */
typedef struct {
    const char *layer;
    double us;
    uint64_t macs;
} cli_layer_time_t;
uint32_t cli_profile_by_layer(const cli_profile_t *profile, cli_layer_time_t *rows);

typedef struct {
    double inference_median_us, inference_min_us;
    double preprocess_median_us; /* negative: nothing was preprocessed */
    uint32_t runs;
} cli_timing_t;

typedef struct {
    int32_t class_index;
    float logit;
    double probability; /* softmax */
} cli_rank_t;

/* The `top` largest logits, largest first, equal ones by class index. */
void cli_rank_classes(const float *logits, int32_t top, cli_rank_t *out_ranks);

/* Output goes to `out`; begin, any number of images, end. The text writer and the JSON writer. */
typedef struct {
    FILE *out;
    const cli_options_t *options;
    uint32_t images;
} cli_writer_t;

void cli_text_image(cli_writer_t *writer, const cli_input_t *input, const cli_rank_t *ranks);
void cli_text_end(cli_writer_t *writer, const cli_timing_t *timing, const cli_profile_t *profile,
                  cli_layer_time_t *rows);
void cli_json_begin(cli_writer_t *writer);
void cli_json_image(cli_writer_t *writer, const cli_input_t *input, const cli_rank_t *ranks);
void cli_json_end(cli_writer_t *writer, const cli_timing_t *timing, const cli_profile_t *profile,
                  cli_layer_time_t *rows);

/* ---- --dump: float32 [rows, num_classes] .npy, complete or absent ---- */

typedef struct {
    const char *path;
    char *temporary;
    FILE *file;
} cli_dump_t;

int cli_dump_open(cli_dump_t *dump, const char *path, uint32_t rows);
int cli_dump_row(cli_dump_t *dump, const float *logits);
int cli_dump_commit(cli_dump_t *dump);
/* Removes what is not committed; harmless after a commit. */
void cli_dump_close(cli_dump_t *dump);

/* ---- the two things the program does ---- */

int cli_selftest(const cli_options_t *options);
int cli_classify(const cli_options_t *options);

#endif
