/* Results for programs: one JSON object (RFC 8259). */
#include <math.h>

#include "cli.h"

static void print_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; ++text) {
        const unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\') {
            fputc('\\', out);
            fputc(byte, out);
        } else if (byte < 0x20) {
            fprintf(out, "\\u%04x", byte);
        } else {
            fputc(byte, out);
        }
    }
    fputc('"', out);
}

/* JSON has no infinity and no NaN. */
static void print_number(FILE *out, double value)
{
    if (isfinite(value)) {
        fprintf(out, "%.9g", value);
    } else {
        fprintf(out, "null");
    }
}

static void print_field(FILE *out, const char *name, double value)
{
    fprintf(out, ", \"%s\": ", name);
    print_number(out, value);
}

void cli_json_begin(cli_writer_t *writer)
{
    fprintf(writer->out, "{\"model\": ");
    print_string(writer->out, enx_cli_model->name);
    fprintf(writer->out, ", \"threads\": %d, \"repeat\": %d, \"arena_bytes\": %u, \"images\": [",
            writer->options->threads, writer->options->repeat, enx_cli_model->arena_bytes);
}

void cli_json_image(cli_writer_t *writer, const cli_input_t *input, const cli_rank_t *ranks)
{
    FILE *out = writer->out;
    fprintf(out, "%s{\"file\": ", writer->images > 0 ? ", " : "");
    print_string(out, input->path);
    fprintf(out, ", \"index\": %u, \"top\": [", input->next - 1);
    for (int32_t i = 0; i < writer->options->top; ++i) {
        fprintf(out, "%s{\"class\": %d", i > 0 ? ", " : "", ranks[i].class_index);
        if (enx_cli_model->class_names != NULL) {
            fprintf(out, ", \"name\": ");
            print_string(out, enx_cli_model->class_names[ranks[i].class_index]);
        }
        print_field(out, "logit", (double)ranks[i].logit);
        print_field(out, "probability", ranks[i].probability);
        fputc('}', out);
    }
    fprintf(out, "]}");
    writer->images += 1;
}

static void print_profile(FILE *out, const cli_profile_t *profile, cli_layer_time_t *rows)
{
    const enx_model_t *model = enx_cli_model;
    double total_us = 0.0;
    for (uint32_t i = 0; i < model->num_steps; ++i) {
        total_us += profile->total_us[i] / profile->count;
    }
    const double scale = total_us > 0.0 ? 1.0 / total_us : 0.0;
    fprintf(out, ", \"profile\": {\"runs\": %u, \"total_us\": ", profile->count);
    print_number(out, total_us);
    fprintf(out, ", \"steps\": [");
    for (uint32_t i = 0; i < model->num_steps; ++i) {
        const enx_step_t *step = &model->steps[i];
        const double us = profile->total_us[i] / profile->count;
        fprintf(out, "%s{\"layer\": ", i > 0 ? ", " : "");
        print_string(out, step->layer);
        fprintf(out, ", \"kernel\": ");
        print_string(out, step->kernel);
        fprintf(out, ", \"detail\": ");
        print_string(out, step->detail != NULL ? step->detail : "");
        fprintf(out, ", \"macs\": %u, \"extent\": %d", step->macs, step->extent);
        print_field(out, "us", us);
        print_field(out, "share", us * scale);
        fputc('}', out);
    }
    fprintf(out, "], \"layers\": [");
    const uint32_t num_rows = cli_profile_by_layer(profile, rows);
    for (uint32_t i = 0; i < num_rows; ++i) {
        fprintf(out, "%s{\"layer\": ", i > 0 ? ", " : "");
        print_string(out, rows[i].layer);
        fprintf(out, ", \"macs\": %llu", (unsigned long long)rows[i].macs);
        print_field(out, "us", rows[i].us);
        print_field(out, "share", rows[i].us * scale);
        fputc('}', out);
    }
    fprintf(out, "]}");
}

void cli_json_end(cli_writer_t *writer, const cli_timing_t *timing, const cli_profile_t *profile,
                  cli_layer_time_t *rows)
{
    FILE *out = writer->out;
    fputc(']', out);
    if (timing != NULL) {
        fprintf(out, ", \"benchmark\": {\"runs\": %u", timing->runs);
        print_field(out, "median_us", timing->inference_median_us);
        print_field(out, "min_us", timing->inference_min_us);
        if (timing->preprocess_median_us >= 0.0) {
            print_field(out, "preprocess_median_us", timing->preprocess_median_us);
        }
        fputc('}', out);
    }
    if (profile != NULL) {
        print_profile(out, profile, rows);
    }
    fprintf(out, "}\n");
}
