/* QEMU TCG plugin: counts how often each translated block of a user-mode program runs, exactly.
 *
 * Argument out=FILE. At exit FILE holds one line "entry ADDRESS" (where the program's entry point was loaded) and one
 * line "ADDRESS INSTRUCTIONS EXECUTIONS" per block, in hexadecimal. Plugin API version 1 (QEMU 6 to 8.1); its few
 * prototypes are declared here so that no QEMU headers are needed.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_info;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_entry_code(void);

int qemu_plugin_version = 1;

struct block {
    uint64_t executions; /* the emulated code adds to it, so a block never moves */
    uint64_t address;
    uint64_t instructions;
    struct block *next;
};

static struct block *blocks; /* translation runs under QEMU's translation lock in user mode */
static char *out_path;

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    struct block *block = calloc(1, sizeof *block);
    (void)id;
    if (block == NULL) {
        abort();
    }
    block->address = qemu_plugin_tb_vaddr(tb);
    block->instructions = qemu_plugin_tb_n_insns(tb);
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &block->executions, 1);
}

static void on_exit_write(qemu_plugin_id_t id, void *unused)
{
    FILE *out = fopen(out_path, "w");
    (void)id;
    (void)unused;
    if (out == NULL) {
        perror(out_path);
        return;
    }
    fprintf(out, "entry %" PRIx64 "\n", qemu_plugin_entry_code());
    for (const struct block *block = blocks; block != NULL; block = block->next) {
        if (block->executions != 0) {
            fprintf(out, "%" PRIx64 " %" PRIx64 " %" PRIx64 "\n", block->address, block->instructions,
                    block->executions);
        }
    }
    fclose(out);
}

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_plugin_info *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) {
        fprintf(stderr, "count_blocks: the one argument is out=FILE\n");
        return 1;
    }
    out_path = strdup(argv[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_exit_write, NULL);
    return 0;
}
