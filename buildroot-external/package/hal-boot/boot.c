/*
 * hal-boot: PID 1 of an appliance that boots without an initrd.
 *
 * The kernel has opened the root by `dm-mod.create=` and mounted it. From here on this is what the initrd's
 * init does (services/init, whose sources it is built with): packs, the state partition, the report, kernel
 * settings; then the root's own init. `hal.root=` on the command line says once more what the kernel was
 * told, for the report; it opens nothing.
 */
#include "init.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SETTINGS "/usr/lib/sysctl.d/hal.conf"
#define PACKS "/usr/lib/hal/packs"

/* The kernel has mounted /dev itself, without flags. */
static void mount_or_die(const char *type, const char *target, unsigned long flags, const char *data)
{
	if (mount(type, target, type, flags, data) < 0 &&
	    (errno != EBUSY || mount(NULL, target, NULL, MS_REMOUNT | flags, data) < 0))
		die("cannot mount %s on %s: %s; not booting", type, target, strerror(errno));
}

static void mount_kernel_filesystems(void)
{
	mount_or_die("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
	mount_or_die("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_or_die("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
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

static void run_init(void)
{
	static const char *const programs[] = { "/sbin/init", "/usr/lib/systemd/systemd" };

	if (prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE, 0, 0, 0) < 0)
		die("modules: cannot give up the right to load them: %s; not booting", strerror(errno));
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
		fprintf(stderr, "hal-boot: this is an appliance's PID 1 and does nothing elsewhere\n");
		return 2;
	}
	mount_kernel_filesystems();
	read_cmdline(&options);

	stage_begin("root");
	/* A kernel without dm-mod.create= would have mounted what nobody has verified. */
	if (access("/sys/block/dm-0/dm/name", F_OK) != 0)
		die("root: the kernel has opened none by dm-mod.create=; not booting");
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NODEV, NULL) < 0)
		die("root: cannot be mounted without device nodes: %s; not booting", strerror(errno));
	stage_end("ok");

	stage_begin("packs");
	pack_count = packs_mount(PACKS, "", packs);
	for (unsigned i = 0; i < pack_count; i++)
		mounted += packs[i].reason == NULL;
	stage_end(mounted == pack_count ? "ok" : "degraded");

	stage_begin("state");
	state = state_mount(options.state_label, "/var/lib/hal");
	stage_end(options.state_label[0] && strcmp(state, "ext4") != 0 ? "degraded" : "ok");

	mount_or_die("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755,size=20%,nr_inodes=800k");
	mkdir("/run/hal", 0755);
	if (report_write("/run/hal", &options, packs, pack_count, state) < 0)
		die("report: cannot write boot.json: %s; not booting", strerror(errno));
	run_init();
}
