/*
 * dump_steps INPUTS OUTPUTS - runs a model step by step and writes what every step leaves in the arena.
 *
 * INPUTS    any number of input tensors, one after the other, as they lie in the arena
 * OUTPUTS   for each input, the bytes of every entry of dump_entries, in order
 *
 * Not part of the library: generated code is linked with it as it is. Ends with 0, or 2 after one line on stderr.
 */
#include <stdio.h>

#include "dump_table.h"

static uint8_t arena[DUMP_ARENA_BYTES] __attribute__((aligned(DUMP_ARENA_ALIGN)));

static int fail(const char *what, const char *name)
{
    fprintf(stderr, "%s %s\n", what, name);
    return 2;
}

static int dump_one(const enx_model_t *model, FILE *out)
{
    uint32_t step, entry = 0;
    for (step = 0; step < model->num_steps; step++) {
        if (model->steps[step].fn(model, arena, 0, model->steps[step].extent) != 0) {
            return -1;
        }
        for (; entry < DUMP_ENTRIES && dump_entries[entry].step == step; entry++) {
            if (fwrite(arena + dump_entries[entry].offset, 1, dump_entries[entry].bytes, out) !=
                dump_entries[entry].bytes) {
                return -1;
            }
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    const enx_model_t *model = &DUMP_MODEL;
    FILE *in, *out;
    int status = 0;
    if (argc != 3) {
        return fail("usage:", "dump_steps INPUTS OUTPUTS");
    }
    in = fopen(argv[1], "rb");
    if (in == NULL) {
        return fail("cannot read", argv[1]);
    }
    out = fopen(argv[2], "wb");
    if (out == NULL) {
        fclose(in);
        return fail("cannot write", argv[2]);
    }
    while (status == 0 && fread(arena + model->input.arena_offset, 1, model->input.bytes, in) == model->input.bytes) {
        status = dump_one(model, out);
    }
    fclose(in);
    if (fclose(out) != 0 || status != 0) {
        return fail("cannot finish", argv[2]);
    }
    return 0;
}
