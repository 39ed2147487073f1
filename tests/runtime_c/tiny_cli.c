/* What codegen writes as NAME_cli.c: the model that the command line program runs. */
#include "enx/enx_golden.h"

#ifndef TINY_MODEL
#define TINY_MODEL enx_model_tiny
#endif
#ifdef TINY_GOLDEN
extern const enx_golden_t tiny_golden;
#define GOLDEN &tiny_golden
#else
#define GOLDEN NULL
#endif

extern const enx_model_t TINY_MODEL;
extern const enx_model_t *const enx_cli_model;
extern const enx_golden_t *const enx_cli_golden;
const enx_model_t *const enx_cli_model = &TINY_MODEL;
const enx_golden_t *const enx_cli_golden = GOLDEN;
