/* Packs: each a verity device whose hash tree follows its data, mounted read-only. A pack that is missing
 * or refused does not stop the boot: its engine reports failure, and nothing wrong is served. */
#include "init.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

/* Disks on the bus of the root's are there already; a slower one (NVMe, hot-plugged) gets this long. */
#define PACK_WAIT_MS 3000

static void mount_pack(struct pack *pack, const char *sysroot, uint64_t deadline)
{
	char name[NAME_SIZE], target[2 * PATH_SIZE];
	struct partition partition;
	struct verity_device verity;

	pack->state = "refused";
	if (!partition_wait(pack->target.label, deadline, &partition)) {
		pack->state = "missing";
		pack->reason = "no partition has its label";
		return;
	}
	snprintf(name, sizeof name, "pack-%s", pack->target.label);
	if (verity_open(&verity, name, &pack->target, partition.device, partition.device,
			pack->target.data_blocks) < 0) {
		pack->reason = "dm-verity does not take its partition, which may be cut short";
		return;
	}
	snprintf(target, sizeof target, "%s%s", sysroot, pack->mountpoint);
	if (access(target, F_OK) != 0)
		pack->reason = "its mount point is not in the root";
	else if (mount(verity.node, target, "erofs", MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) == 0)
		pack->state = "ok";
	else if (verity_corrupted(&verity))
		pack->reason = "dm-verity refused it: wrong root hash or altered disk";
	else
		pack->reason = strerror(errno);
	if (strcmp(pack->state, "ok") != 0)
		verity_close(&verity);
}

unsigned packs_mount(const char *list, const char *sysroot, struct pack packs[MAX_PACKS])
{
	static char text[64 * 1024];
	uint64_t deadline = now_ms() + PACK_WAIT_MS;
	unsigned count = 0;

	if (access(list, F_OK) != 0)
		return 0;
	if (read_file(list, text, sizeof text) < 0)
		die("packs: cannot read %s; not booting", list);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		const char *wrong;

		if (line[0] == '#')
			continue;
		if (count == MAX_PACKS)
			die("packs: more than %d packs; not booting", MAX_PACKS);
		wrong = parse_pack(line, &packs[count]);
		/* The list is under the root hash: a bad line is a bad build, not damage. */
		if (wrong)
			die("packs: line %u: %s; not booting", count + 1, wrong);
		mount_pack(&packs[count], sysroot, deadline);
		if (packs[count].reason)
			say("pack %s: %s: %s", packs[count].name, packs[count].state, packs[count].reason);
		count++;
	}
	return count;
}
