/* Load generator and upstream in one process and one thread, so that both fit on one CPU and neither is the
 * bottleneck: two system calls for a client's request and two for the upstream's answer, and one epoll_wait for many.
 *
 *     load PORT        serves on 127.0.0.1:PORT and reads commands from standard input, one line each:
 *
 *     requests PORT CONNECTIONS SECONDS FILE   closed loop on kept connections, with the request in FILE
 *     streams PORT STREAMS SECONDS FILE        so many streams at once, none of which may end before the others
 *     exit
 *
 * Each command is answered by one line of JSON. Times in it are in microseconds.
 *
 * The upstream answers GET /v1/models with a list, every other request with a short chat completion, and a body with
 * "stream":true with one server-sent event per 20 ms, `max_tokens` of them, then [DONE].
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 512
#define BUFFER 16384
#define INTERVAL_MS 20    /* between two events of a stream: 50 tokens a second */
#define WARM_US 500000    /* requests before this are not counted */
#define SETTLE_US 1000000 /* nor are the gaps of the first second after the last stream has begun */
#define RAMP_PER_MS 2     /* streams opened in a millisecond */
#define DEADLINE_US 30000000

enum kind { LISTENER, SERVED, CLIENT };

struct connection {
	enum kind kind;
	int descriptor;
	int used;                      /* bytes in buffer */
	int left;                      /* SERVED: events of the stream still to come */
	int slot;                      /* SERVED: the millisecond of 20 in which its events are due; -1: no stream */
	struct connection *next, *previous; /* SERVED: others of this slot */
	int64_t since;                 /* CLIENT: when the request was sent, or the last bytes came */
	int begun;                     /* CLIENT: a stream's first bytes have come */
	char buffer[BUFFER];
};

struct samples {
	uint32_t *values;
	size_t count, room;
};

static int poller;
static struct connection *slots[INTERVAL_MS];
static int next_slot;
static int64_t tick;       /* the last millisecond whose slot was served */
static int64_t served;     /* requests answered by the upstream */
static struct samples late; /* how late slots were served: whether this program keeps up */

static int target;
static char *request;
static size_t request_size;
static struct samples found;
static int64_t counted_from, counted_to;
static int64_t completed, answered, failed, refused, reconnected;
static int streaming, begun_streams, ended_streams;

static const char completion[] =
	"{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"tiny\",\"choices\":[{\"index\":0,"
	"\"message\":{\"role\":\"assistant\",\"content\":\"Hello from the tiny model.\"},\"finish_reason\":\"stop\"}],"
	"\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":7,\"total_tokens\":16}}";
static const char models[] =
	"{\"object\":\"list\",\"data\":[{\"id\":\"tiny\",\"object\":\"model\",\"created\":1,\"owned_by\":\"bench\"},"
	"{\"id\":\"tiny:latest\",\"object\":\"model\",\"created\":1,\"owned_by\":\"bench\"}]}";
static const char event[] =
	"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"tiny\","
	"\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n";
static const char last_event[] =
	"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"tiny\","
	"\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
static const char stream_head[] =
	"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
static char completion_answer[1024], models_answer[512], event_chunk[512], last_chunk[512];
static int completion_size, models_size, event_size, last_size;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static int64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void add(struct samples *samples, int64_t value)
{
	if (samples->count == samples->room) {
		samples->room = samples->room ? samples->room * 2 : 1 << 16;
		samples->values = realloc(samples->values, samples->room * sizeof *samples->values);
		if (samples->values == NULL)
			die("realloc");
	}
	samples->values[samples->count++] = value < 0 ? 0 : value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static int ascending(const void *one, const void *other)
{
	uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
	return a < b ? -1 : a > b;
}

static uint32_t percentile(struct samples *samples, double share)
{
	if (samples->count == 0)
		return 0;
	return samples->values[(size_t)((double)(samples->count - 1) * share)];
}

static struct connection *watch(int descriptor, enum kind kind)
{
	struct connection *made = calloc(1, sizeof *made);
	struct epoll_event interest = {.events = EPOLLIN, .data.ptr = made};
	if (made == NULL)
		die("calloc");
	made->kind = kind;
	made->descriptor = descriptor;
	made->slot = -1;
	if (epoll_ctl(poller, EPOLL_CTL_ADD, descriptor, &interest) < 0)
		die("epoll_ctl");
	return made;
}

static struct connection *closed;

static void leave_slot(struct connection *connection)
{
	if (connection->slot < 0)
		return;
	if (connection->previous)
		connection->previous->next = connection->next;
	else
		slots[connection->slot] = connection->next;
	if (connection->next)
		connection->next->previous = connection->previous;
	connection->slot = -1;
}

/* Freed after the events in hand, which may still point to it. */
static void drop(struct connection *connection)
{
	if (connection->descriptor < 0)
		return;
	leave_slot(connection);
	close(connection->descriptor);
	connection->descriptor = -1;
	connection->next = closed;
	closed = connection;
}

static int put(struct connection *connection, const char *bytes, size_t size)
{
	/* Answers fit a socket's buffer; a peer that reads nothing for so long is given up. */
	return send(connection->descriptor, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

/* The value of a header in [head, end), or NULL; NAME is in lower case with its colon. */
static const char *header(const char *head, const char *end, const char *name)
{
	size_t size = strlen(name);
	const char *line = memchr(head, '\n', (size_t)(end - head));
	while (line != NULL && line + 1 + size < end) {
		line++;
		if (strncasecmp(line, name, size) == 0) {
			line += size;
			while (*line == ' ')
				line++;
			return line;
		}
		line = memchr(line, '\n', (size_t)(end - line));
	}
	return NULL;
}

/* The size of the message at the start of the buffer, 0 when it is not whole yet. */
static int message_size(const char *bytes, int used, int *head_size)
{
	const char *end = memmem(bytes, (size_t)used, "\r\n\r\n", 4), *value;
	if (end == NULL)
		return 0;
	end += 4;
	*head_size = (int)(end - bytes);
	if ((value = header(bytes, end, "content-length:")) != NULL) {
		int size = *head_size + atoi(value);
		return size <= used ? size : 0;
	}
	if ((value = header(bytes, end, "transfer-encoding:")) != NULL) {
		const char *last;
		if (used - *head_size >= 5 && memcmp(end, "0\r\n\r\n", 5) == 0)
			return *head_size + 5;
		last = memmem(end, (size_t)(used - *head_size), "\r\n0\r\n\r\n", 7);
		return last ? (int)(last + 7 - bytes) : 0;
	}
	return *head_size;
}

static void begin_stream(struct connection *connection, const char *body)
{
	const char *wanted = strstr(body, "\"max_tokens\":");
	connection->left = wanted ? atoi(wanted + 13) : 50;
	connection->slot = next_slot;
	connection->previous = NULL;
	connection->next = slots[next_slot];
	if (connection->next)
		connection->next->previous = connection;
	slots[next_slot] = connection;
	next_slot = (next_slot + 1) % INTERVAL_MS;
	if (!put(connection, stream_head, sizeof stream_head - 1))
		drop(connection);
}

static void serve(struct connection *connection)
{
	const char *value;
	int size, head = 0;
	ssize_t count = recv(connection->descriptor, connection->buffer + connection->used,
			     (size_t)(BUFFER - 1 - connection->used), MSG_DONTWAIT);
	if (count <= 0) {
		if (count == 0 || errno != EAGAIN)
			drop(connection);
		return;
	}
	connection->used += (int)count;
	connection->buffer[connection->used] = 0;
	while ((size = message_size(connection->buffer, connection->used, &head)) > 0) {
		char kept = connection->buffer[size];
		int sent = 1, last;
		served++;
		connection->buffer[size] = 0;
		value = header(connection->buffer, connection->buffer + head, "connection:");
		last = value != NULL && strncasecmp(value, "close", 5) == 0;
		if (strstr(connection->buffer + head, "\"stream\":true") ||
		    strstr(connection->buffer + head, "\"stream\": true"))
			begin_stream(connection, connection->buffer + head);
		else if (strncmp(connection->buffer, "GET /v1/models", 14) == 0)
			sent = put(connection, models_answer, (size_t)models_size);
		else
			sent = put(connection, completion_answer, (size_t)completion_size);
		if (!sent || last) {
			drop(connection);
			return;
		}
		connection->buffer[size] = kept;
		connection->used -= size;
		memmove(connection->buffer, connection->buffer + size, (size_t)connection->used);
	}
	if (connection->used == BUFFER - 1)
		drop(connection);
}

static void serve_slots(void)
{
	int64_t now = now_us();
	if (now / 1000 - tick > INTERVAL_MS)
		tick = now / 1000 - INTERVAL_MS; /* hopelessly late: `late` shows it */
	for (; tick < now / 1000; tick++) {
		struct connection *connection = slots[tick % INTERVAL_MS], *next;
		if (connection != NULL && now > counted_from && now < counted_to)
			add(&late, now_us() - (tick + 1) * 1000);
		for (; connection != NULL; connection = next) {
			next = connection->next;
			if (connection->left-- > 0) {
				if (!put(connection, event_chunk, (size_t)event_size))
					drop(connection);
			} else {
				leave_slot(connection);
				if (!put(connection, last_chunk, (size_t)last_size))
					drop(connection);
			}
		}
	}
}

static void dial(struct connection *connection)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)target)};
	struct epoll_event interest = {.events = EPOLLIN, .data.ptr = connection};
	int on = 1;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	connection->descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	connection->used = 0;
	if (connection->descriptor < 0)
		die("socket");
	setsockopt(connection->descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(connection->descriptor, (struct sockaddr *)&address, sizeof address) < 0) {
		failed++;
		close(connection->descriptor);
		connection->descriptor = -1;
		return;
	}
	if (epoll_ctl(poller, EPOLL_CTL_ADD, connection->descriptor, &interest) < 0)
		die("epoll_ctl");
}

static void ask(struct connection *connection)
{
	connection->since = now_ns();
	if (!put(connection, request, request_size))
		failed++;
}

static void redial(struct connection *connection)
{
	close(connection->descriptor);
	reconnected++;
	dial(connection);
	if (connection->descriptor >= 0)
		ask(connection);
}

static void take_answer(struct connection *connection)
{
	int size, head = 0;
	int64_t now;
	ssize_t count = recv(connection->descriptor, connection->buffer + connection->used,
			     (size_t)(BUFFER - connection->used), MSG_DONTWAIT);
	if (count <= 0) {
		if (count < 0 && errno == EAGAIN)
			return;
		failed += connection->used > 0; /* else the kept connection was given up: asked again */
		redial(connection);
		return;
	}
	connection->used += (int)count;
	size = message_size(connection->buffer, connection->used, &head);
	if (size == 0) {
		if (connection->used == BUFFER) {
			failed++;
			redial(connection);
		}
		return;
	}
	now = now_ns();
	answered++;
	if (now / 1000 >= counted_from && now / 1000 < counted_to) {
		completed++;
		add(&found, (now - connection->since) / 10); /* in 10 ns, which holds 42 s */
	}
	if (memcmp(connection->buffer + 9, "200", 3) != 0)
		refused++;
	connection->used = 0;
	ask(connection);
}

static void take_events(struct connection *connection)
{
	char *bytes = connection->buffer;
	int64_t now;
	ssize_t count = recv(connection->descriptor, bytes + connection->used,
			     (size_t)(BUFFER - 1 - connection->used), MSG_DONTWAIT);
	if (count < 0 && errno == EAGAIN)
		return;
	if (count <= 0) {
		ended_streams++;
		drop(connection);
		return;
	}
	now = now_us();
	connection->used += (int)count;
	bytes[connection->used] = 0;
	if (!connection->begun) {
		connection->begun = 1;
		begun_streams++;
		if (memcmp(bytes + 9, "200", 3) != 0)
			refused++;
	} else if (connection->since >= counted_from && now < counted_to) {
		add(&found, now - connection->since);
	}
	connection->since = now;
	if (strstr(bytes, "[DONE]")) {
		ended_streams++;
		drop(connection);
	}
	connection->used = 0;
}

/* Returns the number of connections that had something to do. */
static int turn(int wait_ms)
{
	struct epoll_event events[EVENTS];
	int count = epoll_wait(poller, events, EVENTS, wait_ms);
	for (int i = 0; i < count; i++) {
		struct connection *connection = events[i].data.ptr;
		if (connection->descriptor < 0)
			continue;
		if (connection->kind == LISTENER) {
			int one, on = 1;
			while ((one = accept4(connection->descriptor, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
				setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
				watch(one, SERVED);
			}
		} else if (connection->kind == SERVED) {
			serve(connection);
		} else if (connection->kind == CLIENT) {
			if (streaming)
				take_events(connection);
			else
				take_answer(connection);
		}
		if (streaming && (i & 31) == 31)
			serve_slots();
	}
	serve_slots();
	while (closed != NULL) {
		struct connection *ended = closed;
		closed = ended->next;
		free(ended);
	}
	return count;
}

static void load_request(const char *path)
{
	FILE *file = fopen(path, "rb");
	static char bytes[65536];
	if (file == NULL)
		die(path);
	request_size = fread(bytes, 1, sizeof bytes, file);
	fclose(file);
	request = bytes;
}

static void reset(void)
{
	found.count = late.count = 0;
	completed = answered = failed = refused = reconnected = served = 0;
	begun_streams = ended_streams = 0;
}

static double processor_seconds(void)
{
	struct rusage used;
	getrusage(RUSAGE_SELF, &used);
	return (double)used.ru_utime.tv_sec + (double)used.ru_stime.tv_sec +
	       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void requests(int connections, double seconds)
{
	struct connection **all = calloc((size_t)connections, sizeof *all);
	int64_t begin = now_us(), idle = 0, last;
	streaming = 0;
	reset();
	counted_from = begin + WARM_US;
	counted_to = counted_from + (int64_t)(seconds * 1e6);
	for (int i = 0; i < connections; i++) {
		all[i] = calloc(1, sizeof **all);
		all[i]->kind = CLIENT;
		all[i]->slot = -1;
		dial(all[i]);
		if (all[i]->descriptor >= 0)
			ask(all[i]);
	}
	/* It never sleeps: waking an idle CPU of a virtual machine costs the one that wakes it, here the proxy, microseconds. */
	while ((last = now_us()) < counted_to)
		if (turn(0) == 0 && last >= counted_from)
			idle += now_us() - last;
	for (int i = 0; i < connections; i++) {
		if (all[i]->descriptor >= 0)
			close(all[i]->descriptor);
		free(all[i]);
	}
	free(all);
	qsort(found.values, found.count, sizeof *found.values, ascending);
	printf("{\"completed\": %ld, \"all\": %ld, \"seconds\": %.3f, \"failed\": %ld, \"refused\": %ld, \"reconnected\": %ld, "
	       "\"p50\": %.2f, \"p99\": %.2f, \"most\": %.2f, \"busy\": %.3f}\n",
	       (long)completed, (long)answered, seconds, (long)failed, (long)refused, (long)reconnected, percentile(&found, 0.5) / 100.0,
	       percentile(&found, 0.99) / 100.0, percentile(&found, 1) / 100.0, 1 - (double)idle / 1e6 / seconds);
}

static void streams(int wanted, double seconds)
{
	struct connection **all = calloc((size_t)wanted, sizeof *all);
	int64_t last_opened = now_us(), give_up = last_opened + DEADLINE_US;
	int opened = 0;
	double cpu = 0;
	streaming = 1;
	reset();
	counted_from = counted_to = INT64_MAX;
	while (now_us() < give_up && now_us() < counted_to && ended_streams + failed == 0) {
		if (opened < wanted && now_us() - last_opened >= 1000) {
			for (int i = 0; i < RAMP_PER_MS && opened < wanted; i++, opened++) {
				all[opened] = calloc(1, sizeof **all);
				all[opened]->kind = CLIENT;
				all[opened]->slot = -1;
				dial(all[opened]);
				if (all[opened]->descriptor >= 0)
					ask(all[opened]);
			}
			last_opened = now_us();
		}
		if (begun_streams == wanted && counted_from == INT64_MAX) {
			counted_from = now_us() + SETTLE_US;
			counted_to = counted_from + (int64_t)(seconds * 1e6);
			give_up = counted_to + 1;
		}
		if (cpu == 0 && now_us() >= counted_from)
			cpu = processor_seconds();
		turn(1);
	}
	cpu = cpu ? processor_seconds() - cpu : 0;
	for (int i = 0; i < opened; i++)
		if (all[i]->descriptor >= 0)
			drop(all[i]);
	turn(0);
	free(all);
	qsort(found.values, found.count, sizeof *found.values, ascending);
	qsort(late.values, late.count, sizeof *late.values, ascending);
	printf("{\"begun\": %d, \"ended_early\": %d, \"failed\": %ld, \"refused\": %ld, \"gaps\": %zu, \"expected\": %.0f, "
	       "\"p50\": %u, \"p99\": %u, \"most\": %u, \"late_p99\": %u, \"busy\": %.3f}\n",
	       begun_streams, ended_streams, (long)failed, (long)refused, found.count,
	       wanted * seconds * 1000 / INTERVAL_MS, percentile(&found, 0.5), percentile(&found, 0.99),
	       percentile(&found, 1), percentile(&late, 0.99), cpu / seconds);
}

static int chunk(char *into, const char *content)
{
	return sprintf(into, "%zx\r\n%s\r\n", strlen(content), content);
}

static int whole(char *into, const char *content)
{
	return sprintf(into, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
		       strlen(content), content);
}

int main(int count, char **words)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct rlimit files;
	char line[4096], path[4000];
	int listener, on = 1, many;
	double seconds;

	if (count != 2) {
		fprintf(stderr, "usage: load PORT\n");
		return 2;
	}
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	completion_size = whole(completion_answer, completion);
	models_size = whole(models_answer, models);
	event_size = chunk(event_chunk, event);
	last_size = chunk(last_chunk, last_event);
	last_size += sprintf(last_chunk + last_size, "0\r\n\r\n");

	poller = epoll_create1(EPOLL_CLOEXEC);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((uint16_t)atoi(words[1]));
	if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0)
		die("listen");
	watch(listener, LISTENER);
	setvbuf(stdin, NULL, _IONBF, 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	tick = now_us() / 1000;
	for (;;) {
		/* Between commands probes of the proxies are answered; input is looked for every 2 ms. */
		fd_set readable;
		struct timeval none = {0, 0};
		FD_ZERO(&readable);
		FD_SET(STDIN_FILENO, &readable);
		if (select(STDIN_FILENO + 1, &readable, NULL, NULL, &none) == 0) {
			turn(2);
			continue;
		}
		if (fgets(line, sizeof line, stdin) == NULL || strcmp(line, "exit\n") == 0)
			return 0;
		if (sscanf(line, "requests %d %d %lf %3999s", &target, &many, &seconds, path) == 4) {
			load_request(path);
			requests(many, seconds);
		} else if (sscanf(line, "streams %d %d %lf %3999s", &target, &many, &seconds, path) == 4) {
			load_request(path);
			streams(many, seconds);
		} else {
			fprintf(stderr, "load: not a command: %s", line);
			return 2;
		}
	}
}
