/*
 * enx.h - run a compiled int8 (or float32) image classifier from C99.
 *
 * What holds for the whole library
 *   Memory    The caller owns every byte: the context, the arena, the pool's memory, the pixels. The library
 *             calls no malloc, no stdio, and has no mutable globals. Models are const and may lie in flash.
 *   Lifetime  Model, arena and pool must outlive every call made with a context that refers to them.
 *   Threads   Functions may be called from any thread. One context (and its arena) is used by one thread at a
 *             time; different contexts are independent. Models are read only and may be shared by contexts.
 *             A pool serves one running context at a time (see enx_pool_create).
 *   Errors    Every function that can fail returns enx_status_t: ENX_OK is 0, errors are negative. On an error
 *             nothing is written through out_ parameters unless the function says otherwise.
 *   Bits      The same inputs give the same outputs for every number of threads. Preprocessing is integer only
 *             and gives the same bytes on every target.
 *
 * Shapes: N batch (1), H rows, W columns, C channels, S side of the square input. Layout NHWC.
 *
 *     static enx_context_t context;
 *     static uint8_t arena[ARENA_BYTES] __attribute__((aligned(64)));   (any memory of that alignment)
 *     enx_init(&context, &enx_model_NAME, arena, sizeof arena, NULL);
 *     enx_preprocess_rgb8(&context, pixels, 640, 480, 640 * 3, 3);
 *     enx_run(&context);
 *     const float *logits = enx_output(&context);
 */
#ifndef ENX_ENX_H
#define ENX_ENX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Layout version of the structs below; a model carries the one it was generated for. */
#define ENX_ABI_VERSION 1u

/* Most threads of a pool, the calling thread included. */
#define ENX_MAX_THREADS 16

/* Largest image side in pixels that enx_preprocess_rgb8 accepts; also the largest resize_size. */
#define ENX_MAX_IMAGE_SIDE 16384

typedef enum enx_status {
    ENX_OK = 0,
    ENX_ERR_NULL = -1,            /* a required pointer argument is NULL */
    ENX_ERR_ABI = -2,             /* model->abi_version is not ENX_ABI_VERSION */
    ENX_ERR_MODEL = -3,           /* the model descriptor contradicts itself */
    ENX_ERR_ARENA_TOO_SMALL = -4, /* arena_bytes < model->arena_bytes */
    ENX_ERR_ARENA_ALIGNMENT = -5, /* arena is not a multiple of model->arena_align */
    ENX_ERR_NOT_INITIALIZED = -6, /* the context did not pass enx_init */
    ENX_ERR_STEP = -7,            /* a step's function returned non-zero; context->failed_step tells which */
    ENX_ERR_IMAGE_SIZE = -8,      /* width or height outside 1..ENX_MAX_IMAGE_SIDE */
    ENX_ERR_IMAGE_STRIDE = -9,    /* row_stride < width * channels */
    ENX_ERR_IMAGE_CHANNELS = -10, /* channels is not 1, 3 or 4 */
    ENX_ERR_SCRATCH = -11,        /* the arena beside the input tensor is too small to resize this image */
    ENX_ERR_UNSUPPORTED = -12,    /* the model has no preprocessing tables, or not a square 3-channel input */
    ENX_ERR_CAPACITY = -13,       /* the caller's buffer is too small */
    ENX_ERR_THREADS = -14,        /* number of threads outside 1..ENX_MAX_THREADS */
    ENX_ERR_THREAD_CREATE = -15,  /* the operating system refused a thread, mutex or condition variable */
    ENX_ERR_POOL_MEMORY = -16,    /* pool memory too small or not aligned to ENX_POOL_ALIGN */
    ENX_ERR_BUSY = -17,           /* the pool is serving another context */
    ENX_ERR_GOLDEN = -18          /* a golden vector is malformed */
} enx_status_t;

typedef enum enx_dtype { ENX_DTYPE_INT8 = 1, ENX_DTYPE_FLOAT32 = 2 } enx_dtype_t;

typedef struct enx_model enx_model_t;
typedef struct enx_pool enx_pool_t;

/*
 * One kernel call: computes [begin, end) of the step's extent; the ranges of one step are independent and may
 * run on several threads at once. All tensors (the network's input too) are found in arena by offsets known at
 * compile time, constants in the generated code. Returns 0, or non-zero to stop the run with ENX_ERR_STEP.
 */
typedef int32_t (*enx_step_fn)(const enx_model_t *model, uint8_t *arena, int32_t begin, int32_t end);

typedef struct enx_step {
    enx_step_fn fn;
    int32_t extent;     /* >= 1; 1 means the step runs whole on the calling thread, as fn(model, arena, 0, 1) */
    const char *layer;  /* module path in the source network, e.g. "stages.1.blocks.2.dwconv"; never NULL */
    const char *kernel; /* kernel kind, e.g. "conv2d"; never NULL */
    const char *detail; /* shapes and attributes for people, e.g. "1x64x64x24 -> 1x32x32x48 k2 s2"; or NULL */
    uint32_t macs;      /* multiply-accumulates of the whole step; 0 when it has none */
} enx_step_t;

/* real = scale * (q - zero_point); float32 tensors carry scale 1 and zero_point 0. */
typedef struct enx_tensor {
    enx_dtype_t dtype;
    uint8_t rank;          /* 1..4 */
    int32_t shape[4];      /* first rank entries, row-major, no padding; the rest 1 */
    float scale;
    int32_t zero_point;
    uint32_t arena_offset; /* bytes, multiple of the dtype's size */
    uint32_t bytes;        /* product of shape times the dtype's size */
} enx_tensor_t;

/* A compiled network. Const, generated, shared freely between contexts and threads. */
struct enx_model {
    uint32_t abi_version;    /* ENX_ABI_VERSION */
    const char *name;
    uint32_t arena_bytes;    /* exact need of enx_run */
    uint32_t arena_align;    /* power of two, at least 8 (64 as generated) */
    enx_tensor_t input;      /* [1, S, S, 3] int8 or float32 */
    enx_tensor_t output;     /* num_classes logits, float32, or int8 with scale and zero_point */
    const enx_step_t *steps; /* executed in order */
    uint32_t num_steps;
    /* Preprocessing: level v of channel c becomes input_lut[c][v] (int8 models) or input_lut_f32[c][v] (float32
     * models); each points at 3 tables. Both NULL: the model has no preprocessing. */
    const int8_t (*input_lut)[256];
    const float (*input_lut_f32)[256];
    int32_t resize_size;     /* short side after resizing, pixels; >= crop_size */
    int32_t crop_size;       /* side of the centre crop, pixels; equals S */
    const char *const *class_names; /* num_classes entries, or NULL */
    uint32_t num_classes;
};

/* Caller-owned, any storage. Set by enx_init alone; the fields are there to read. No clean-up is needed. */
typedef struct enx_context {
    const enx_model_t *model;
    uint8_t *arena;
    size_t arena_bytes;
    enx_pool_t *pool;     /* NULL: serial */
    uint32_t failed_step; /* after ENX_ERR_STEP: index into model->steps */
} enx_context_t;

typedef enum enx_phase { ENX_STEP_BEGIN = 0, ENX_STEP_END = 1 } enx_phase_t;

/*
 * Called by enx_run_profiled on the calling thread right before (ENX_STEP_BEGIN) and after (ENX_STEP_END, all
 * threads done) each step. The clock is the caller's. Must not touch the arena.
 */
typedef void (*enx_profile_fn)(void *user, uint32_t step_index, const enx_step_t *step, enx_phase_t phase);

/*
 * A constant sentence for a status, without a full stop; "unknown status" for a value that is none.
 * Ownership: static storage, valid forever. Threads: any. Errors: none.
 */
const char *enx_status_string(enx_status_t status);

/*
 * Binds a context to a model, an arena and optionally a pool.
 *   out_context  written only on success; may be re-initialised at any time outside enx_run.
 *   model        kept by reference.
 *   arena        kept by reference; aligned to model->arena_align; contents need no initialisation. One arena may
 *                serve several contexts if they are used strictly one after the other, results read in between.
 *   arena_bytes  at least model->arena_bytes; what is beyond serves as additional preprocessing scratch.
 *   pool         NULL for serial running; kept by reference.
 * Threads: any. Errors: ENX_ERR_NULL, _ABI, _MODEL, _ARENA_TOO_SMALL, _ARENA_ALIGNMENT.
 */
enx_status_t enx_init(enx_context_t *out_context, const enx_model_t *model, void *arena, size_t arena_bytes,
                      enx_pool_t *pool);

/*
 * The input tensor: model->input.bytes bytes in NHWC order, int8_t or float by model->input.dtype.
 * Lies in the arena, aligned for its dtype. enx_run may overwrite it: write it again before each run.
 * Threads: the context's. Errors: NULL for a context that is NULL or not initialised.
 */
void *enx_input(const enx_context_t *context);

/*
 * Fills the input tensor from 8-bit pixels: bilinear resize with antialiasing of the short side to
 * model->resize_size (long side floor(resize_size * long / short)), centre crop of model->crop_size, per-channel
 * table. The resize follows Pillow's Image.resize(BILINEAR): triangle filter, widened by the scale when
 * shrinking; rows first, 8 bits in between, 22 fractional bits; crop offsets round half to even. The levels are
 * Pillow's own, except that Pillow 13 resamples columns first for some tall images: at most one level apart there.
 *   pixels      [height, width, channels] u8, read only, not kept, must not overlap the arena; no alignment.
 *   row_stride  bytes from one row to the next.
 *   channels    3 RGB; 4 RGB and one ignored byte; 1 grey, used for all three.
 * Scratch: enx_preprocess_scratch_bytes in the arena beside the input tensor; overwrites a former output.
 * Threads: the context's (runs serially). Errors: ENX_ERR_NULL, _NOT_INITIALIZED, _UNSUPPORTED, _IMAGE_SIZE,
 * _IMAGE_STRIDE, _IMAGE_CHANNELS, _SCRATCH; the input tensor is untouched on an error.
 */
enx_status_t enx_preprocess_rgb8(enx_context_t *context, const uint8_t *pixels, int32_t width, int32_t height,
                                 size_t row_stride, int32_t channels);

/*
 * The exact scratch, in bytes, that enx_preprocess_rgb8 needs for one image size, as one block in the larger of the
 * two parts of the arena before and after the input tensor. At most
 *     35 * crop_size + 8 + 4 * crop_size * (ceil(2 * s) + 1), where s = max(width / resized width, 1).
 * With resize_size = crop_size = 256: at most 15 KiB up to 512 pixels on the short side, 26 KiB up to 2048 and 141 KiB for
 * 16384 x 16384.
 *   out_bytes   written on success.
 * To use it without a guess: an arena of model->arena_bytes + out_bytes + 8 is always enough.
 * Threads: any. Errors: ENX_ERR_NULL, _UNSUPPORTED, _IMAGE_SIZE.
 */
enx_status_t enx_preprocess_scratch_bytes(const enx_model_t *model, int32_t width, int32_t height,
                                          uint32_t *out_bytes);

/*
 * Runs the network on the input tensor. A step with extent > 1 is split into contiguous ranges over the pool's
 * threads, the calling thread among them; without a pool it runs whole.
 * Threads: the context's. Errors: ENX_ERR_NULL, _NOT_INITIALIZED, _STEP (context->failed_step is set and the
 * output undefined), _BUSY (the pool serves another context: nothing has run, call again later).
 */
enx_status_t enx_run(enx_context_t *context);

/* enx_run with callback(user, ...) around each step; callback NULL equals enx_run. Same errors. */
enx_status_t enx_run_profiled(enx_context_t *context, enx_profile_fn callback, void *user);

/*
 * The logits, model->num_classes floats, in the arena; valid until the next enx_run, enx_preprocess_rgb8 or write to
 * the input tensor. Threads: the context's. Errors: NULL for a context that is NULL or not initialised, and for
 * a model whose output is not float32 (use enx_output_copy).
 */
const float *enx_output(const enx_context_t *context);

/*
 * Copies the logits to the caller, an int8 output converted by scale * (q - zero_point).
 *   out_logits  capacity floats, of which model->num_classes are written.
 * Threads: the context's. Errors: ENX_ERR_NULL, _NOT_INITIALIZED, _CAPACITY.
 */
enx_status_t enx_output_copy(const enx_context_t *context, float *out_logits, uint32_t capacity);

/* Alignment of the memory handed to enx_pool_create. */
#define ENX_POOL_ALIGN 64

/* Memory that is always enough for a pool of num_threads, as a constant for static arrays. */
#define ENX_POOL_BYTES(num_threads) (640u + 64u * (unsigned)(num_threads))

/*
 * Starts a pool of num_threads threads in caller-owned memory: the caller's own and num_threads - 1 created here.
 * Idle threads spin briefly, then sleep. num_threads 1 creates no thread.
 *   memory        aligned to ENX_POOL_ALIGN, kept until enx_pool_destroy; must not be moved or copied.
 *   memory_bytes  at least ENX_POOL_BYTES(num_threads).
 *   out_pool      a pointer into memory, written on success.
 * Thread rule: one enx_run uses a pool at a time, from any thread; a second one that meets it running returns
 * ENX_ERR_BUSY at once. Contexts may share a pool if their runs take turns, or have one each.
 * Built with ENX_NO_THREADS, only num_threads 1 is accepted and nothing of pthreads is referenced.
 * Errors: ENX_ERR_NULL, _THREADS, _POOL_MEMORY, _THREAD_CREATE (nothing is left running).
 */
enx_status_t enx_pool_create(void *memory, size_t memory_bytes, int32_t num_threads, enx_pool_t **out_pool);

/*
 * Ends and joins the pool's threads; the memory is the caller's again on ENX_OK.
 * Errors: ENX_ERR_NULL, _BUSY (a context is running on it; nothing has changed).
 */
enx_status_t enx_pool_destroy(enx_pool_t *pool);

/* The number of threads of a pool, the caller's included; 1 for NULL. Threads: any. */
int32_t enx_pool_num_threads(const enx_pool_t *pool);

#ifdef __cplusplus
}
#endif

#endif
