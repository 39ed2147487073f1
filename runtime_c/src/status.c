#include "enx/enx.h"

const char *enx_status_string(enx_status_t status)
{
    switch (status) {
    case ENX_OK: return "ok";
    case ENX_ERR_NULL: return "a required pointer argument is NULL";
    case ENX_ERR_ABI: return "the model was generated for another version of this runtime; compile it again";
    case ENX_ERR_MODEL: return "the model descriptor contradicts itself";
    case ENX_ERR_ARENA_TOO_SMALL: return "the arena is smaller than model->arena_bytes";
    case ENX_ERR_ARENA_ALIGNMENT: return "the arena is not aligned to model->arena_align";
    case ENX_ERR_NOT_INITIALIZED: return "the context was not initialised by enx_init";
    case ENX_ERR_STEP: return "a step of the network reported a failure";
    case ENX_ERR_IMAGE_SIZE: return "the image's width or height is outside 1..16384 pixels";
    case ENX_ERR_IMAGE_STRIDE: return "the image's row stride is smaller than width * channels";
    case ENX_ERR_IMAGE_CHANNELS: return "the image has to have 1, 3 or 4 channels";
    case ENX_ERR_SCRATCH: return "the arena is too small to resize this image; see enx_preprocess_scratch_bytes";
    case ENX_ERR_UNSUPPORTED: return "the model carries no image preprocessing";
    case ENX_ERR_CAPACITY: return "the caller's buffer is too small";
    case ENX_ERR_THREADS: return "the number of threads is outside what this build allows";
    case ENX_ERR_THREAD_CREATE: return "the operating system refused to create a thread";
    case ENX_ERR_POOL_MEMORY: return "the pool's memory is too small or not aligned to ENX_POOL_ALIGN";
    case ENX_ERR_BUSY: return "the pool is serving another context";
    case ENX_ERR_GOLDEN: return "the golden vector is malformed";
    }
    return "unknown status";
}
