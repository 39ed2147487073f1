/* Prints the CRC-32 of preprocessed pseudo-random images; arguments: width height resize crop, repeated. */
#include <stdio.h>
#include <stdlib.h>

#include "enx/enx.h"

int probe_scratch_bytes(int32_t resize, int32_t crop, int32_t width, int32_t height, uint32_t *out_bytes);
int probe_preprocess(const uint8_t *pixels, int32_t width, int32_t height, size_t row_stride, int32_t channels,
                     int32_t resize, int32_t crop, uint8_t *arena, size_t arena_bytes, uint32_t offset,
                     uint8_t *out);

static uint8_t arena[1 << 20] __attribute__((aligned(64)));
static uint8_t out[3 * 256 * 256];

int main(int argc, char **argv)
{
    for (int a = 1; a + 3 < argc; a += 4) {
        const int32_t width = atoi(argv[a]), height = atoi(argv[a + 1]);
        const int32_t resize = atoi(argv[a + 2]), crop = atoi(argv[a + 3]);
        const size_t bytes = (size_t)width * (size_t)height * 3u;
        uint8_t *pixels = (uint8_t *)malloc(bytes);
        uint32_t x = (uint32_t)(width * 31 + height), crc = 0xFFFFFFFFu;
        if (pixels == NULL) {
            return 1;
        }
        for (size_t i = 0; i < bytes; ++i) {
            x ^= x << 13, x ^= x >> 17, x ^= x << 5;
            pixels[i] = (uint8_t)(x >> 24);
        }
        const int status = probe_preprocess(pixels, width, height, (size_t)width * 3u, 3, resize, crop, arena,
                                            sizeof arena, 0, out);
        for (size_t i = 0; i < 3u * (size_t)crop * (size_t)crop; ++i) {
            crc ^= out[i];
            for (int bit = 0; bit < 8; ++bit) {
                crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0xEDB88320u : 0u);
            }
        }
        printf("%d %08x\n", status, (unsigned)~crc);
        free(pixels);
    }
    return 0;
}
