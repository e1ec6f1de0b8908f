/* dm-verity by raw device-mapper ioctls (linux/dm-ioctl.h; Documentation/admin-guide/device-mapper/verity). */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SECTORS_PER_BLOCK (BLOCK_SIZE / 512)
#define PANIC_OPTION " 1 panic_on_corruption"

struct request {
	struct dm_ioctl header;
	struct dm_target_spec target;
	char text[sizeof((struct verity_device *)0)->table + sizeof PANIC_OPTION];
};

static int control(unsigned long command, struct request *request)
{
	int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC), result, error;

	if (fd < 0)
		return -1;
	result = ioctl(fd, command, request);
	error = errno;
	close(fd);
	errno = error;
	return result < 0 ? -1 : 0;
}

static struct request new_request(const char *name)
{
	struct request request;

	memset(&request, 0, sizeof request);
	request.header.version[0] = DM_VERSION_MAJOR;
	request.header.data_size = sizeof request;
	request.header.data_start = offsetof(struct request, target);
	snprintf(request.header.name, sizeof request.header.name, "%s", name);
	return request;
}

/* Loads the table and makes it the live one (a resume swaps tables without losing an I/O). */
static int load(const struct verity_device *verity, const char *options)
{
	struct request request = new_request(verity->name);

	request.header.flags = DM_READONLY_FLAG;
	request.header.target_count = 1;
	request.target.length = verity->sectors;
	request.target.next = sizeof request - offsetof(struct request, target);
	strcpy(request.target.target_type, "verity");
	snprintf(request.text, sizeof request.text, "%s%s", verity->table, options);
	if (control(DM_TABLE_LOAD, &request) < 0)
		return -1;
	request = new_request(verity->name);
	return control(DM_DEV_SUSPEND, &request); /* without DM_SUSPEND_FLAG this is "resume" */
}

int verity_open(struct verity_device *verity, const char *name, const struct verity_target *target,
		dev_t data, dev_t hash, uint64_t hash_start)
{
	struct request request = new_request(name);
	int error;

	snprintf(verity->name, sizeof verity->name, "%s", name);
	verity->sectors = target->data_blocks * SECTORS_PER_BLOCK;
	snprintf(verity->table, sizeof verity->table,
		 "1 %u:%u %u:%u %d %d %" PRIu64 " %" PRIu64 " sha256 %s %s", major(data), minor(data),
		 major(hash), minor(hash), BLOCK_SIZE, BLOCK_SIZE, target->data_blocks, hash_start,
		 target->root_hash, target->salt);
	/* The form that libcryptsetup gives, so that lsblk and veritysetup know what this is. */
	snprintf(request.header.uuid, sizeof request.header.uuid, "CRYPT-VERITY-%.32s-%s", target->root_hash,
		 name);
	if (control(DM_DEV_CREATE, &request) < 0)
		return -1;
	snprintf(verity->node, sizeof verity->node, "/dev/dm-%u", minor((dev_t)request.header.dev));
	if (load(verity, "") == 0)
		return 0;
	error = errno;
	verity_close(verity);
	errno = error;
	return -1;
}

int verity_panic_on_corruption(const struct verity_device *verity)
{
	return load(verity, PANIC_OPTION);
}

bool verity_corrupted(const struct verity_device *verity)
{
	struct request request = new_request(verity->name);

	/* The target's status is one letter: V valid so far, C corruption was met. */
	return control(DM_TABLE_STATUS, &request) == 0 && request.header.target_count == 1 &&
	       request.text[0] == 'C';
}

void verity_close(const struct verity_device *verity)
{
	struct request request = new_request(verity->name);

	control(DM_DEV_REMOVE, &request);
}
