/*
 * hal-boot: PID 1 of an appliance that boots without an initrd.
 *
 * The kernel has opened the root by `dm-mod.create=` and mounted it. From here on this is what the initrd's
 * init does, from the same sources (services/init): packs, the state partition, the report, kernel settings;
 * then the root's own init. `hal.root=` on the command line says once more what the kernel was told, for the
 * report; it opens nothing.
 */
#include "init.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Whether the root is what the kernel has opened by dm-mod.create=: else nobody has verified it. */
static bool root_is_verified(void)
{
	char device[32], text[32];
	struct stat root;

	if (access("/sys/block/dm-0/dm/name", F_OK) != 0 || stat("/", &root) < 0 ||
	    read_file("/sys/block/dm-0/dev", text, sizeof text) < 0)
		return false;
	snprintf(device, sizeof device, "%u:%u\n", major(root.st_dev), minor(root.st_dev));
	return strcmp(device, text) == 0;
}

int main(void)
{
	struct boot_options options;

	if (getpid() != 1) {
		fprintf(stderr, "hal-boot: this is an appliance's PID 1 and does nothing elsewhere\n");
		return 2;
	}
	mount_kernel_filesystems();
	read_cmdline(&options);

	stage_begin("root");
	if (!root_is_verified())
		die("root: it is not the one of dm-mod.create=; not booting");
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NODEV, NULL) < 0)
		die("root: cannot be mounted without device nodes: %s; not booting", strerror(errno));
	stage_end("ok");

	mount_appliance(&options, "");
	run_init();
}
