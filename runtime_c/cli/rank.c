/* The best classes and their softmax. */
#include <math.h>

#include "cli.h"

static int is_better(const float *logits, uint32_t a, uint32_t b)
{
    return logits[a] > logits[b] || (!(logits[a] < logits[b]) && a < b);
}

void cli_rank_classes(const float *logits, int32_t top, cli_rank_t *out_ranks)
{
    const uint32_t num_classes = enx_cli_model->num_classes;
    int32_t count = 0;
    for (uint32_t c = 0; c < num_classes; ++c) {
        int32_t at = count < top ? count : top;
        while (at > 0 && is_better(logits, c, (uint32_t)out_ranks[at - 1].class_index)) {
            --at;
        }
        if (at == top) {
            continue;
        }
        count = count < top ? count + 1 : top;
        for (int32_t i = count - 1; i > at; --i) {
            out_ranks[i] = out_ranks[i - 1];
        }
        out_ranks[at].class_index = (int32_t)c;
        out_ranks[at].logit = logits[c];
    }
    const double largest = (double)out_ranks[0].logit;
    double sum = 0.0;
    for (uint32_t c = 0; c < num_classes; ++c) {
        sum += exp((double)logits[c] - largest);
    }
    for (int32_t i = 0; i < count; ++i) {
        out_ranks[i].probability = exp((double)out_ranks[i].logit - largest) / sum;
    }
}
