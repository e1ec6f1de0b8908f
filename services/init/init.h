/*
 * hal-init: PID 1 of the initrd.
 *
 * It does one thing: open the root by the dm-verity root hash on the measured kernel command line,
 * mount what the verified root names, and hand over to the root's own init; or say in one line why
 * not, and power off. It trusts the command line and what the root hash covers, and nothing else on
 * any disk: no superblock, no partition content, no label decides anything but where to look.
 *
 * parse.c holds the pure functions (no system calls), tested on the build host.
 */
#ifndef HAL_INIT_H
#define HAL_INIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	LABEL_SIZE = 36 + 1,      /* a GPT label has 36 UTF-16 units (UEFI 2.10, 5.3.3) */
	HASH_SIZE = 64 + 1,       /* sha256 in hexadecimal */
	SALT_SIZE = 512 + 1,      /* dm-verity takes at most 256 bytes of salt */
	NAME_SIZE = 64 + 1,
	PATH_SIZE = 256,
	CMDLINE_SIZE = 4096,      /* x86 has 2048, arm64 2048 (COMMAND_LINE_SIZE) */
	MAX_PACKS = 64,
	BLOCK_SIZE = 4096,        /* of data and hash blocks alike */
};

/* What is needed to trust a block device: everything that a verity superblock would say, but told by
 * the command line or by the verified root. `salt` is hexadecimal or "-" for none. */
struct verity_target {
	char label[LABEL_SIZE];
	uint64_t data_blocks;
	char salt[SALT_SIZE];
	char root_hash[HASH_SIZE];
};

struct boot_options {
	struct verity_target root;
	char state_label[LABEL_SIZE]; /* empty: no state partition is wanted */
};

struct pack {
	char name[NAME_SIZE];
	struct verity_target target;
	char mountpoint[PATH_SIZE];
	const char *state;  /* "ok", "missing" or "refused" */
	const char *reason; /* NULL when ok */
};

struct module_line {
	char path[PATH_SIZE];
	bool optional;
};

/* A line of sysctl.d(5): the file under /proc/sys and what is written to it. */
struct setting {
	char path[PATH_SIZE];
	char value[PATH_SIZE];
	bool optional; /* "-" in front: a kernel may be built without it */
};

struct partition {
	char name[32];      /* the kernel's name: vda3 */
	dev_t device;
};

/* parse.c: pure. Each returns NULL, or a constant text that says what is wrong. */
const char *parse_cmdline(const char *text, struct boot_options *options);
const char *parse_pack(const char *line, struct pack *pack);
/* A module's path, or an empty one for a blank line or a comment. */
const char *parse_module(const char *line, struct module_line *module);
/* A kernel setting, or one with an empty path for a blank line or a comment. */
const char *parse_setting(const char *line, struct setting *setting);
/* Copies the value of `key` out of a uevent file's KEY=value lines; false if absent or too long. */
bool parse_uevent(const char *text, const char *key, char *value, size_t size);

/* appliance.c: the steps that do not depend on who has opened the root; each works or dies. */
void mount_or_die(const char *type, const char *target, unsigned long flags, const char *data);
void mount_kernel_filesystems(void);
void read_cmdline(struct boot_options *options);
/* Packs, the state partition, /run and the report, below `sysroot` (empty: the root itself). */
void mount_appliance(const struct boot_options *options, const char *sysroot);
/* Hardens the kernel as the root asks and becomes the root's own init. */
_Noreturn void run_init(void);

/* log.c */
uint64_t now_ms(void);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Reads a small file whole; the number of bytes, or -1 (also when it does not fit). */
ssize_t read_file(const char *path, char *text, size_t size);

/* modules.c: how many of the modules listed in `list` were inserted; dies if a needed one fails. */
unsigned modules_insert(const char *list);

/* hardening.c */
/* Writes the kernel settings in the file `list` (sysctl.d(5)), if there is one; dies if one cannot be. */
void settings_apply(const char *list);
/* For this process and all that come from it; nobody can raise the limit again but by CAP_SYS_RESOURCE. */
void no_core_dumps(void);

/* partitions.c */
bool partition_find(const char *label, struct partition *partition);
bool partition_wait(const char *label, uint64_t deadline_ms, struct partition *partition);
/* Extends the kernel's view of the last partition to the end of its disk. */
void partition_extend(const struct partition *partition);

/* verity.c */
struct verity_device {
	char name[NAME_SIZE];
	char node[32];      /* /dev/dm-0 */
	char table[2 * SALT_SIZE];
	uint64_t sectors;
};
/* 0 or -1 with errno. `hash_start` is the first block of the hash tree on `hash`. */
int verity_open(struct verity_device *verity, const char *name, const struct verity_target *target,
		dev_t data, dev_t hash, uint64_t hash_start);
/* From now on a corrupted block stops the machine instead of giving EIO. */
int verity_panic_on_corruption(const struct verity_device *verity);
/* Whether the target has met a block that does not match its hash. */
bool verity_corrupted(const struct verity_device *verity);
void verity_close(const struct verity_device *verity);

/* packs.c */
unsigned packs_mount(const char *list, const char *sysroot, struct pack packs[MAX_PACKS]);

/* state.c: mounts /var/lib/hal; a text for boot.json: "ext4" or "tmpfs". */
const char *state_mount(const char *label, const char *target);

/* report.c: the stages of this boot, written as JSON for the status page and the tests. */
void stage_begin(const char *name);
void stage_end(const char *outcome);
int report_write(const char *directory, const struct boot_options *options, const struct pack *packs,
		 unsigned pack_count, const char *state);

#endif
