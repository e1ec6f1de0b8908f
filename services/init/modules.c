/* Kernel modules: listed in the order of their dependencies by the build, inserted one after the other. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int insert(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), result, error;

	if (fd < 0)
		return -1;
	result = (int)syscall(SYS_finit_module, fd, "", 0);
	error = errno;
	close(fd);
	errno = error;
	return result < 0 && errno != EEXIST ? -1 : 0;
}

unsigned modules_insert(const char *list)
{
	char text[8192];
	unsigned inserted = 0;

	if (access(list, F_OK) != 0)
		return 0; /* a kernel with everything built in */
	if (read_file(list, text, sizeof text) < 0)
		die("modules: cannot read %s: %s; not booting", list, strerror(errno));
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		struct module_line module;
		const char *wrong = parse_module(line, &module);

		if (wrong)
			die("modules: %s: %s; not booting", list, wrong);
		if (!module.path[0])
			continue;
		if (insert(module.path) == 0)
			inserted++;
		else if (!module.optional) /* optional ones fail where the hardware is another: no news */
			die("modules: %s: %s; not booting", module.path, strerror(errno));
	}
	return inserted;
}
