/* boot.json: what this boot did and how long each stage took. All its texts come from the strict parsers
 * or are constants (strerror too), so that nothing needs escaping. */
#include "init.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_STAGES 16

static struct stage {
	const char *name, *outcome;
	uint64_t start, end;
} stages[MAX_STAGES];
static unsigned stage_count;

void stage_begin(const char *name)
{
	if (stage_count < MAX_STAGES)
		stages[stage_count++] = (struct stage){ name, NULL, now_ms(), 0 };
}

void stage_end(const char *outcome)
{
	struct stage *stage = &stages[stage_count - 1];

	stage->outcome = outcome;
	stage->end = now_ms();
	say("%s: %s, %" PRIu64 " ms", stage->name, outcome, stage->end - stage->start);
}

static void write_report(FILE *file, const struct boot_options *options, const struct pack *packs,
			 unsigned pack_count, const char *state)
{
	fprintf(file, "{\"version\": 1,\n \"started_ms\": %" PRIu64 ",\n \"stages\": [", stages[0].start);
	for (unsigned i = 0; i < stage_count; i++)
		fprintf(file, "%s\n  {\"name\": \"%s\", \"outcome\": \"%s\", \"ms\": %" PRIu64 "}", i ? "," : "",
			stages[i].name, stages[i].outcome, stages[i].end - stages[i].start);
	fprintf(file, "],\n \"root\": {\"label\": \"%s\", \"root_hash\": \"%s\"},\n \"packs\": [",
		options->root.label, options->root.root_hash);
	for (unsigned i = 0; i < pack_count; i++) {
		const struct pack *pack = &packs[i];

		fprintf(file,
			"%s\n  {\"name\": \"%s\", \"label\": \"%s\", \"root_hash\": \"%s\", \"mountpoint\": \"%s\", "
			"\"state\": \"%s\", \"reason\": %s%s%s}",
			i ? "," : "", pack->name, pack->target.label, pack->target.root_hash, pack->mountpoint,
			pack->state, pack->reason ? "\"" : "", pack->reason ? pack->reason : "null",
			pack->reason ? "\"" : "");
	}
	fprintf(file, "],\n \"state\": {\"label\": \"%s\", \"filesystem\": \"%s\"}}\n", options->state_label,
		state);
}

int report_write(const char *directory, const struct boot_options *options, const struct pack *packs,
		 unsigned pack_count, const char *state)
{
	char draft[PATH_SIZE], path[PATH_SIZE];
	FILE *file;
	int failed;

	snprintf(draft, sizeof draft, "%s/.boot.json", directory);
	snprintf(path, sizeof path, "%s/boot.json", directory);
	file = fopen(draft, "we");
	if (!file)
		return -1;
	write_report(file, options, packs, pack_count, state);
	failed = ferror(file);
	failed |= fclose(file);
	return failed || chmod(draft, 0644) < 0 || rename(draft, path) < 0 ? -1 : 0;
}
