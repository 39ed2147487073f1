/* Time per step, added up over the runs, and per layer of the source network. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

int cli_profile_open(cli_profile_t *profile)
{
    memset(profile, 0, sizeof *profile);
    profile->total_us = (double *)calloc(enx_cli_model->num_steps, sizeof(double));
    return profile->total_us != NULL ? CLI_OK : cli_fail("out of memory for the profile; free some");
}

void cli_profile_close(cli_profile_t *profile)
{
    free(profile->total_us);
    profile->total_us = NULL;
}

void cli_profile_callback(void *user, uint32_t step_index, const enx_step_t *step, enx_phase_t phase)
{
    cli_profile_t *profile = (cli_profile_t *)user;
    (void)step;
    if (phase == ENX_STEP_BEGIN) {
        profile->started_us = cli_now_us();
    } else {
        profile->total_us[step_index] += cli_now_us() - profile->started_us;
    }
}

static int by_time(const void *left, const void *right)
{
    const double a = ((const cli_layer_time_t *)left)->us;
    const double b = ((const cli_layer_time_t *)right)->us;
    return a < b ? 1 : a > b ? -1 : 0;
}

uint32_t cli_profile_by_layer(const cli_profile_t *profile, cli_layer_time_t *rows)
{
    const enx_model_t *model = enx_cli_model;
    uint32_t num_rows = 0;
    for (uint32_t i = 0; i < model->num_steps; ++i) {
        uint32_t row = 0;
        while (row < num_rows && strcmp(rows[row].layer, model->steps[i].layer) != 0) {
            ++row;
        }
        if (row == num_rows) {
            rows[num_rows++] = (cli_layer_time_t){model->steps[i].layer, 0.0, 0};
        }
        rows[row].us += profile->total_us[i] / profile->count;
        rows[row].macs += model->steps[i].macs;
    }
    qsort(rows, num_rows, sizeof *rows, by_time);
    return num_rows;
}
