/* /var/lib/hal: the state partition (ext4, grown to its disk), or a tmpfs. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define STATE_WAIT_MS 3000
#define FLAGS (MS_NOSUID | MS_NODEV | MS_NOEXEC)
/* fs/ext4/ext4.h; the kernel exports it in no header. The argument is the new number of blocks. */
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

/* A filesystem of the right size is left alone by the kernel (ext4_resize_fs). */
static void grow(const char *node, const char *target)
{
	int device = open(node, O_RDONLY | O_CLOEXEC), root = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint64_t bytes, blocks;
	struct statvfs fs;

	if (device < 0 || root < 0 || ioctl(device, BLKGETSIZE64, &bytes) < 0 || fstatvfs(root, &fs) < 0) {
		say("state: its size is unknown: %s", strerror(errno));
	} else {
		blocks = bytes / fs.f_bsize;
		if (ioctl(root, EXT4_IOC_RESIZE_FS, &blocks) < 0)
			say("state: the filesystem does not grow: %s", strerror(errno));
	}
	if (device >= 0)
		close(device);
	if (root >= 0)
		close(root);
}

const char *state_mount(const char *label, const char *target)
{
	struct partition partition;
	char node[64];

	if (label[0] && partition_wait(label, now_ms() + STATE_WAIT_MS, &partition)) {
		partition_extend(&partition);
		snprintf(node, sizeof node, "/dev/%s", partition.name);
		if (mount(node, target, "ext4", FLAGS, NULL) == 0) {
			grow(node, target);
			return "ext4";
		}
		say("state: %s cannot be mounted (%s); state lasts until power-off", node, strerror(errno));
	} else if (label[0]) {
		say("state: no partition is labelled %s; state lasts until power-off", label);
	}
	if (mount("tmpfs", target, "tmpfs", FLAGS, "mode=0755") < 0)
		die("state: cannot mount a tmpfs on %s: %s; not booting", target, strerror(errno));
	return "tmpfs";
}
