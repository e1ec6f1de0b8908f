/* The boot, top to bottom. init.h says what this program is. */
#include "init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYSROOT "/sysroot"
#define ROOT_WAIT_MS 10000

static void mount_root(const struct verity_target *root)
{
	uint64_t deadline = now_ms() + ROOT_WAIT_MS;
	char hash_label[LABEL_SIZE + sizeof "_verity"];
	struct partition data, hash;
	struct verity_device verity;
	bool corrupted;
	int error;

	snprintf(hash_label, sizeof hash_label, "%s_verity", root->label);
	if (!partition_wait(root->label, deadline, &data))
		die("root: no partition is labelled %s; not booting", root->label);
	if (!partition_wait(hash_label, deadline, &hash))
		die("root: no partition is labelled %s; not booting", hash_label);
	if (verity_open(&verity, "root", root, data.device, hash.device, 0) < 0)
		die("root: dm-verity does not take %s and %s: %s; not booting", data.name, hash.name,
		    errno == E2BIG ? "the data partition is too short" : strerror(errno));
	if (mount(verity.node, SYSROOT, "erofs", MS_RDONLY | MS_NODEV, NULL) < 0) {
		error = errno;
		corrupted = verity_corrupted(&verity);
		if (corrupted)
			die("root: dm-verity refused it: wrong root hash or altered disk; not booting");
		die("root: cannot mount %s: %s; not booting", data.name, strerror(error));
	}
	/* Only now: until here a refusal is explained in our words, from here on it must stop everything. */
	if (verity_panic_on_corruption(&verity) < 0)
		die("root: dm-verity does not take panic_on_corruption (%s); not booting", strerror(errno));
}

/* Empties the initramfs, whose memory is never given back otherwise; other filesystems are not entered. */
static void remove_tree(int directory, dev_t device)
{
	DIR *stream = fdopendir(directory);
	struct dirent *entry;
	struct stat status;

	while (stream && (entry = readdir(stream))) {
		const char *name = entry->d_name;

		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
		    fstatat(dirfd(stream), name, &status, AT_SYMLINK_NOFOLLOW) < 0 || status.st_dev != device)
			continue;
		if (S_ISDIR(status.st_mode)) {
			int child = openat(dirfd(stream), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

			if (child >= 0)
				remove_tree(child, device);
		}
		unlinkat(dirfd(stream), name, S_ISDIR(status.st_mode) ? AT_REMOVEDIR : 0);
	}
	if (stream)
		closedir(stream);
}

static void switch_root(void)
{
	static const char *const moved[] = { "/dev", "/proc", "/sys" };
	int initramfs = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat status;

	for (unsigned i = 0; i < sizeof moved / sizeof *moved; i++) {
		char target[PATH_SIZE];

		snprintf(target, sizeof target, "%s%s", SYSROOT, moved[i]);
		if (mount(moved[i], target, NULL, MS_MOVE, NULL) < 0)
			die("root: cannot move %s into it: %s; not booting", moved[i], strerror(errno));
	}
	if (initramfs < 0 || fstat(initramfs, &status) < 0 || chdir(SYSROOT) < 0 ||
	    mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		die("root: cannot switch to it: %s; not booting", strerror(errno));
	remove_tree(initramfs, status.st_dev);
}

int main(void)
{
	struct boot_options options;

	if (getpid() != 1) {
		fprintf(stderr, "hal-init: this is the initrd's PID 1 and does nothing elsewhere\n");
		return 2;
	}
	mkdir(SYSROOT, 0755);
	mount_kernel_filesystems();
	read_cmdline(&options);

	/* Every module comes from the initrd; run_init() closes the door behind them. */
	stage_begin("modules");
	modules_insert("/modules");
	stage_end("ok");

	stage_begin("root");
	mount_root(&options.root);
	stage_end("ok");

	mount_appliance(&options, SYSROOT);
	switch_root();
	run_init();
}
