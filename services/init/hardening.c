/* What the verified root asks of the kernel before any of its programs runs: settings, and no core dumps. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int write_setting(const struct setting *setting)
{
	size_t length = strlen(setting->value);
	int fd = open(setting->path, O_WRONLY | O_CLOEXEC), error;
	ssize_t written;

	if (fd < 0)
		return -1;
	written = write(fd, setting->value, length);
	error = errno;
	close(fd);
	errno = error;
	return written == (ssize_t)length ? 0 : -1;
}

void settings_apply(const char *list)
{
	char text[16384];

	if (access(list, F_OK) != 0)
		return;
	if (read_file(list, text, sizeof text) < 0)
		die("settings: cannot read %s: %s; not booting", list, strerror(errno));
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		struct setting setting;
		const char *wrong = parse_setting(line, &setting);

		if (wrong)
			die("settings: %s: %s; not booting", list, wrong);
		if (setting.path[0] && write_setting(&setting) < 0 && !setting.optional)
			die("settings: %s: %s; not booting", setting.path, strerror(errno));
	}
}

void no_core_dumps(void)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		die("settings: core dumps cannot be turned off: %s; not booting", strerror(errno));
}
