/* Lines for the kernel's log, the one way to give up, and small reads. */
#include "init.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

/* user.info and user.crit as syslog numbers: `quiet` hides the first on the console, never the second. */
#define INFO "<14>"
#define CRITICAL "<10>"

uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void write_line(const char *level, const char *format, va_list arguments)
{
	char line[768];
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC), n;

	n = snprintf(line, sizeof line, "%shal-init: ", level);
	n += vsnprintf(line + n, sizeof line - (size_t)n - 1, format, arguments);
	if (n > (int)sizeof line - 2)
		n = sizeof line - 2;
	line[n++] = '\n';
	/* Without devtmpfs there is still the console that the kernel opened for us. */
	if (write(fd < 0 ? STDERR_FILENO : fd, line, (size_t)n) < 0) {
		/* nobody is left to tell */
	}
	if (fd >= 0)
		close(fd);
}

void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	write_line(INFO, format, arguments);
	va_end(arguments);
}

_Noreturn void die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	write_line(CRITICAL, format, arguments);
	va_end(arguments);
	sync();
	reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT); /* no way to power off: under QEMU's -no-reboot this ends the VM too */
	_exit(1);            /* the kernel panics when PID 1 ends, and panic=-1 reboots */
}

ssize_t read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t n = -1;

	if (fd < 0)
		return -1;
	while (used < size && (n = read(fd, text + used, size - used)) > 0)
		used += (size_t)n;
	close(fd);
	if (n != 0) /* an error, or more than fits */
		return -1;
	text[used] = '\0';
	return (ssize_t)used;
}
