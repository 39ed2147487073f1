/* small_golden.c - 3 inputs with the logits that a correct build gives. */
#include "small.h"

#include <math.h>

static const float logits_0[8] = {
    (-2.0f), (-1.4285715f), (-0.85714287f), (-0.2857143f), 0.2857143f, 0.85714287f, 1.4285715f, 2.0f,
};

static const float logits_1[8] = {
    2.0f, 1.4285715f, 0.85714287f, 0.2857143f, (-0.2857143f), (-0.85714287f), (-1.4285715f), (-2.0f),
};

static const enx_golden_vector_t vectors[3] = {
    {
        .kind = ENX_GOLDEN_RANDOM,
        .seed = 1u,
        .value = 0,
        .expected_logits = logits_0,
        .width = 0,
        .height = 0,
        .expected_crc32 = 0u,
        .tolerance = 0.0f,
    },
    {
        .kind = ENX_GOLDEN_CONSTANT,
        .seed = 0u,
        .value = -128,
        .expected_logits = logits_1,
        .width = 0,
        .height = 0,
        .expected_crc32 = 0u,
        .tolerance = 0.5f,
    },
    {
        .kind = ENX_GOLDEN_IMAGE,
        .seed = 9u,
        .value = 0,
        .expected_logits = 0,
        .width = 31,
        .height = 17,
        .expected_crc32 = 3735928559u,
        .tolerance = 0.0f,
    },
};

const enx_golden_t enx_golden_small = { 3u, vectors };
