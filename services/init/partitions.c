/* Partitions by GPT label, through sysfs: the kernel has parsed the table already, and no udev is needed. */
#include "init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS 10
#define SECTOR 512 /* sysfs counts in 512-byte sectors whatever the disk's own are */
#define ALIGNMENT 2048
#define BACKUP_GPT_SECTORS 33 /* the header and 128 entries of 128 bytes (UEFI 2.10, 5.3.1) */

/* Fills all but the label from a block device's uevent file; false if it is no partition with `label`. */
static bool has_label(struct partition *partition, const char *label)
{
	char path[PATH_SIZE], text[1024], seen[LABEL_SIZE], major[8], minor[8];

	snprintf(path, sizeof path, "/sys/class/block/%s/uevent", partition->name);
	if (read_file(path, text, sizeof text) < 0 || !parse_uevent(text, "PARTNAME", seen, sizeof seen) ||
	    strcmp(seen, label) != 0 || !parse_uevent(text, "MAJOR", major, sizeof major) ||
	    !parse_uevent(text, "MINOR", minor, sizeof minor))
		return false;
	partition->device = makedev((unsigned)atoi(major), (unsigned)atoi(minor));
	return true;
}

bool partition_find(const char *label, struct partition *partition)
{
	DIR *directory = opendir("/sys/class/block");
	bool found = false;
	struct dirent *entry;

	while (directory && (entry = readdir(directory))) {
		struct partition candidate;
		size_t length = strlen(entry->d_name);

		if (entry->d_name[0] == '.' || length >= sizeof candidate.name)
			continue;
		memcpy(candidate.name, entry->d_name, length + 1);
		/* Of two with one label take the first by name, so that every boot decides alike. */
		if (has_label(&candidate, label) && (!found || strcmp(candidate.name, partition->name) < 0)) {
			*partition = candidate;
			found = true;
		}
	}
	if (directory)
		closedir(directory);
	return found;
}

bool partition_wait(const char *label, uint64_t deadline_ms, struct partition *partition)
{
	const struct timespec pause = { 0, POLL_MS * 1000000L };

	while (!partition_find(label, partition)) {
		if (now_ms() >= deadline_ms)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

/* A number from /sys/class/block/NAME/FILE. */
static bool read_number(const char *name, const char *file, long long *number)
{
	char path[PATH_SIZE * 3], text[64];

	snprintf(path, sizeof path, "/sys/class/block/%s/%s", name, file);
	if (read_file(path, text, sizeof text) <= 0)
		return false;
	*number = atoll(text);
	return true;
}

/* Whether another partition of the same disk begins after `start`. */
static bool is_followed(const struct partition *partition, long long start)
{
	char path[PATH_SIZE];
	struct dirent *entry;
	DIR *disk;
	bool followed;

	snprintf(path, sizeof path, "/sys/class/block/%s/..", partition->name);
	disk = opendir(path);
	followed = !disk;
	while (disk && (entry = readdir(disk))) {
		long long other;

		if (entry->d_name[0] != '.' && read_number(entry->d_name, "partition", &other) &&
		    read_number(entry->d_name, "start", &other) && other > start)
			followed = true;
	}
	if (disk)
		closedir(disk);
	return followed;
}

/*
 * The table on the disk stays as it was built, so this is done at each boot. The old backup table
 * comes to lie inside the partition; Linux needs only the primary one (block/partitions/efi.c).
 */
void partition_extend(const struct partition *partition)
{
	char path[PATH_SIZE], text[1024], disk[32];
	long long start, size, number, disk_size, wanted;
	struct blkpg_partition change = { 0 };
	struct blkpg_ioctl_arg request = { BLKPG_RESIZE_PARTITION, 0, sizeof change, &change };
	int fd;

	snprintf(path, sizeof path, "/sys/class/block/%s/../uevent", partition->name);
	if (read_file(path, text, sizeof text) < 0 || !parse_uevent(text, "DEVNAME", disk, sizeof disk) ||
	    !read_number(partition->name, "start", &start) || !read_number(partition->name, "size", &size) ||
	    !read_number(partition->name, "partition", &number) || !read_number(disk, "size", &disk_size))
		return;
	wanted = (disk_size - BACKUP_GPT_SECTORS) / ALIGNMENT * ALIGNMENT - start;
	if (wanted <= size || is_followed(partition, start))
		return;
	change.start = start * SECTOR;
	change.length = wanted * SECTOR;
	change.pno = (int)number;
	snprintf(path, sizeof path, "/dev/%s", disk);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, BLKPG, &request) < 0)
		say("state: %s stays at %lld MiB: %s", partition->name, size / ALIGNMENT, strerror(errno));
	else
		say("state: %s grows from %lld to %lld MiB", partition->name, size / ALIGNMENT,
		    wanted / ALIGNMENT);
	if (fd >= 0)
		close(fd);
}
