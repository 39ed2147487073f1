/* Results for people. */
#include "cli.h"

void cli_text_image(cli_writer_t *writer, const cli_input_t *input, const cli_rank_t *ranks)
{
    fprintf(writer->out, "%s", input->path);
    if (input->count > 1) {
        fprintf(writer->out, "[%u]", input->next - 1);
    }
    if (input->is_tensor) {
        fprintf(writer->out, ": network input\n");
    } else {
        fprintf(writer->out, ": %d x %d pixels\n", input->width, input->height);
    }
    for (int32_t i = 0; i < writer->options->top; ++i) {
        const char *const *names = enx_cli_model->class_names;
        fprintf(writer->out, "%4d. class %4d  %-28s %10.4f  %6.2f %%\n", i + 1, ranks[i].class_index,
                names != NULL ? names[ranks[i].class_index] : "", (double)ranks[i].logit,
                100.0 * ranks[i].probability);
    }
    writer->images += 1;
}

static void print_profile(FILE *out, const cli_profile_t *profile, cli_layer_time_t *rows)
{
    const enx_model_t *model = enx_cli_model;
    double total_us = 0.0;
    for (uint32_t i = 0; i < model->num_steps; ++i) {
        total_us += profile->total_us[i] / profile->count;
    }
    const double percent = total_us > 0.0 ? 100.0 / total_us : 0.0;
    fprintf(out, "\nprofile: steps in order, mean of %u runs, %.1f us in all\n", profile->count, total_us);
    fprintf(out, "%5s %10s %7s %10s  %-16s %-40s %s\n", "step", "us", "share", "MAC/ns", "kernel", "layer", "detail");
    for (uint32_t i = 0; i < model->num_steps; ++i) {
        const enx_step_t *step = &model->steps[i];
        const double us = profile->total_us[i] / profile->count;
        fprintf(out, "%5u %10.1f %6.1f%% %10.2f  %-16s %-40s %s\n", i, us, us * percent,
                us > 0.0 ? (double)step->macs / (us * 1e3) : 0.0, step->kernel, step->layer,
                step->detail != NULL ? step->detail : "");
    }
    const uint32_t num_rows = cli_profile_by_layer(profile, rows);
    fprintf(out, "\nprofile: layers by time\n%10s %7s %14s  %s\n", "us", "share", "MACs", "layer");
    for (uint32_t i = 0; i < num_rows; ++i) {
        fprintf(out, "%10.1f %6.1f%% %14llu  %s\n", rows[i].us, rows[i].us * percent,
                (unsigned long long)rows[i].macs, rows[i].layer);
    }
}

void cli_text_end(cli_writer_t *writer, const cli_timing_t *timing, const cli_profile_t *profile,
                  cli_layer_time_t *rows)
{
    if (timing != NULL) {
        fprintf(writer->out, "benchmark: median %.3f ms, min %.3f ms, threads %d, repeat %d",
                timing->inference_median_us * 1e-3, timing->inference_min_us * 1e-3, writer->options->threads,
                writer->options->repeat);
        if (timing->preprocess_median_us >= 0.0) {
            fprintf(writer->out, ", preprocessing median %.3f ms", timing->preprocess_median_us * 1e-3);
        }
        fputc('\n', writer->out);
    }
    if (profile != NULL) {
        print_profile(writer->out, profile, rows);
    }
}
