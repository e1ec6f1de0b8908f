/* The boot, top to bottom. init.h says what this program is. */
#include "init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYSROOT "/sysroot"
#define ROOT_WAIT_MS 10000
#define SETTINGS "/usr/lib/sysctl.d/hal.conf"

static void mount_or_die(const char *type, const char *target, unsigned long flags, const char *data)
{
	if (mount(type, target, type, flags, data) < 0)
		die("cannot mount %s on %s: %s; not booting", type, target, strerror(errno));
}

static void mount_kernel_filesystems(void)
{
	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir(SYSROOT, 0755);
	mount_or_die("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
	mount_or_die("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_or_die("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);

	/* The kernel drops a program's log lines after ten in five seconds; ours must not get lost. */
	int fd = open("/proc/sys/kernel/printk_devkmsg", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, "on\n", 3) == 3)
		close(fd);
}

static void read_cmdline(struct boot_options *options)
{
	char text[CMDLINE_SIZE];
	const char *wrong;

	if (read_file("/proc/cmdline", text, sizeof text) < 0)
		die("command line: cannot be read; not booting");
	wrong = parse_cmdline(text, options);
	if (wrong)
		die("command line: %s; not booting", wrong);
}

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

static void run_init(void)
{
	static const char *const programs[] = { "/sbin/init", "/usr/lib/systemd/systemd" };

	/* Every module is in: from here on nobody adds code to the kernel, not even root. systemd does not try
	 * either, which without libkmod is an error in the journal. */
	if (prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE, 0, 0, 0) < 0)
		die("modules: cannot give up the right to load them: %s; not booting", strerror(errno));
	/* Among them is the one that closes the loading of modules to the kernel itself, which asks without us. */
	settings_apply(SETTINGS);
	no_core_dumps();
	for (unsigned i = 0; i < sizeof programs / sizeof *programs; i++)
		execl(programs[i], programs[i], (char *)NULL);
	die("root: it has no /sbin/init that runs: %s; not booting", strerror(errno));
}

int main(void)
{
	static struct pack packs[MAX_PACKS];
	struct boot_options options;
	unsigned pack_count, mounted = 0;
	const char *state;

	if (getpid() != 1) {
		fprintf(stderr, "hal-init: this is the initrd's PID 1 and does nothing elsewhere\n");
		return 2;
	}
	mount_kernel_filesystems();
	read_cmdline(&options);

	stage_begin("modules");
	modules_insert("/modules");
	stage_end("ok");

	stage_begin("root");
	mount_root(&options.root);
	stage_end("ok");

	stage_begin("packs");
	pack_count = packs_mount(SYSROOT "/usr/lib/hal/packs", SYSROOT, packs);
	for (unsigned i = 0; i < pack_count; i++)
		mounted += packs[i].reason == NULL;
	stage_end(mounted == pack_count ? "ok" : "degraded");

	stage_begin("state");
	state = state_mount(options.state_label, SYSROOT "/var/lib/hal");
	stage_end(options.state_label[0] && strcmp(state, "ext4") != 0 ? "degraded" : "ok");

	mount_or_die("tmpfs", SYSROOT "/run", MS_NOSUID | MS_NODEV, "mode=0755,size=20%,nr_inodes=800k");
	mkdir(SYSROOT "/run/hal", 0755);
	if (report_write(SYSROOT "/run/hal", &options, packs, pack_count, state) < 0)
		die("report: cannot write boot.json: %s; not booting", strerror(errno));

	switch_root();
	run_init();
}
