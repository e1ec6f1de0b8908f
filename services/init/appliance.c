/* What an appliance's first program does however its root was opened: by the initrd's init, or by the kernel
 * itself (buildroot-external/package/hal-boot). */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PACKS "/usr/lib/hal/packs"
#define SETTINGS "/usr/lib/sysctl.d/hal.conf"

void mount_or_die(const char *type, const char *target, unsigned long flags, const char *data)
{
	/* A kernel that has mounted the root has mounted /dev, too, without flags. */
	if (mount(type, target, type, flags, data) < 0 &&
	    (errno != EBUSY || mount(NULL, target, NULL, MS_REMOUNT | flags, data) < 0))
		die("cannot mount %s on %s: %s; not booting", type, target, strerror(errno));
}

void mount_kernel_filesystems(void)
{
	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mount_or_die("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
	mount_or_die("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_or_die("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);

	/* The kernel drops a program's log lines after ten in five seconds; ours must not get lost. */
	int fd = open("/proc/sys/kernel/printk_devkmsg", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, "on\n", 3) == 3)
		close(fd);
}

void read_cmdline(struct boot_options *options)
{
	char text[CMDLINE_SIZE];
	const char *wrong;

	if (read_file("/proc/cmdline", text, sizeof text) < 0)
		die("command line: cannot be read; not booting");
	wrong = parse_cmdline(text, options);
	if (wrong)
		die("command line: %s; not booting", wrong);
}

static void join(const char *sysroot, char path[PATH_SIZE], const char *target)
{
	snprintf(path, PATH_SIZE, "%s%s", sysroot, target);
}

void mount_appliance(const struct boot_options *options, const char *sysroot)
{
	static struct pack packs[MAX_PACKS];
	unsigned pack_count, mounted = 0;
	char path[PATH_SIZE];
	const char *state;

	stage_begin("packs");
	join(sysroot, path, PACKS);
	pack_count = packs_mount(path, sysroot, packs);
	for (unsigned i = 0; i < pack_count; i++)
		mounted += packs[i].reason == NULL;
	stage_end(mounted == pack_count ? "ok" : "degraded");

	stage_begin("state");
	join(sysroot, path, "/var/lib/hal");
	state = state_mount(options->state_label, path);
	stage_end(options->state_label[0] && strcmp(state, "ext4") != 0 ? "degraded" : "ok");

	join(sysroot, path, "/run");
	mount_or_die("tmpfs", path, MS_NOSUID | MS_NODEV, "mode=0755,size=20%,nr_inodes=800k");
	join(sysroot, path, "/run/hal");
	mkdir(path, 0755);
	if (report_write(path, options, packs, pack_count, state) < 0)
		die("report: cannot write boot.json: %s; not booting", strerror(errno));
}

_Noreturn void run_init(void)
{
	static const char *const programs[] = { "/sbin/init", "/usr/lib/systemd/systemd" };

	/* From here on nobody adds code to the kernel, not even root. systemd does not try either, which
	 * without libkmod is an error in the journal. */
	if (prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE, 0, 0, 0) < 0)
		die("modules: cannot give up the right to load them: %s; not booting", strerror(errno));
	/* Among them is the one that closes the loading of modules to the kernel itself, which asks without us. */
	settings_apply(SETTINGS);
	no_core_dumps();
	for (unsigned i = 0; i < sizeof programs / sizeof *programs; i++)
		execl(programs[i], programs[i], (char *)NULL);
	die("root: it has no /sbin/init that runs: %s; not booting", strerror(errno));
}
