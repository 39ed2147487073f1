/* QEMU TCG plugin: counts how often each translated block of a user-mode program runs, exactly.
 *
 * Arguments out=FILE and, if wanted, mark=DISTANCE: from the program's entry point to a function, in bytes, decimal. At
 * exit FILE holds one line "entry ADDRESS" (where the program's entry point was loaded) and one line "ADDRESS INSTRUCTIONS
 * EXECUTIONS" per block that ran, in hexadecimal. A line "mark" stands for each call of the marked function: executions
 * are then those since the mark before. Plugin API version 1 (QEMU 6 to 8.1); its few prototypes are declared here so
 * that no QEMU headers are needed.
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
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned int, void *),
                                                 enum qemu_plugin_cb_flags, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_entry_code(void);

int qemu_plugin_version = 1;

struct block {
    uint64_t executions; /* the emulated code adds to it, so a block never moves */
    uint64_t written;    /* how many of them are in the file */
    uint64_t address;
    uint64_t instructions;
    struct block *next;
};

static struct block *blocks; /* translation runs under QEMU's translation lock in user mode */
static FILE *out;
static bool has_mark;
static int64_t mark_distance;

static void write_blocks(void)
{
    for (struct block *block = blocks; block != NULL; block = block->next) {
        if (block->executions != block->written) {
            fprintf(out, "%" PRIx64 " %" PRIx64 " %" PRIx64 "\n", block->address, block->instructions,
                    block->executions - block->written);
            block->written = block->executions;
        }
    }
}

static void write_entry(void)
{
    static bool is_written;
    if (!is_written) {
        fprintf(out, "entry %" PRIx64 "\n", qemu_plugin_entry_code());
        is_written = true;
    }
}

static void on_mark(unsigned int vcpu, void *unused)
{
    (void)vcpu;
    (void)unused;
    write_entry();
    write_blocks();
    fputs("mark\n", out);
}

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
    if (has_mark && block->address == qemu_plugin_entry_code() + (uint64_t)mark_distance) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_mark, QEMU_PLUGIN_CB_NO_REGS, NULL);
    }
}

static void on_exit_write(qemu_plugin_id_t id, void *unused)
{
    (void)id;
    (void)unused;
    write_entry();
    write_blocks();
    fclose(out);
}

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_plugin_info *info, int argc, char **argv)
{
    (void)info;
    if (argc < 1 || argc > 2 || strncmp(argv[0], "out=", 4) != 0 || (argc == 2 && strncmp(argv[1], "mark=", 5) != 0)) {
        fprintf(stderr, "count_blocks: the arguments are out=FILE and mark=DISTANCE\n");
        return 1;
    }
    if (argc == 2) {
        has_mark = true;
        mark_distance = strtoll(argv[1] + 5, NULL, 10);
    }
    out = fopen(argv[0] + 4, "w");
    if (out == NULL) {
        perror(argv[0] + 4);
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_exit_write, NULL);
    return 0;
}
