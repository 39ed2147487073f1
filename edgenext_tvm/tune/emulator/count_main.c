/* Runs the model MODEL (an enx_model_t, given at compile time) argv[1] times on an input of zeros: nothing else to count. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>

#include "enx/enx.h"

extern const enx_model_t MODEL;

int main(int argc, char **argv)
{
    enx_context_t context;
    void *arena = NULL;
    if (argc != 2 || posix_memalign(&arena, MODEL.arena_align, MODEL.arena_bytes) != 0) {
        return 1;
    }
    if (enx_init(&context, &MODEL, arena, MODEL.arena_bytes, NULL) != ENX_OK) {
        return 1;
    }
    for (long run = strtol(argv[1], NULL, 10); run > 0; run--) {
        memset(enx_input(&context), 0, MODEL.input.bytes);
        if (enx_run(&context) != ENX_OK) {
            return 1;
        }
    }
    return 0;
}
