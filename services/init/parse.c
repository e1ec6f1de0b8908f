/* The parsers: pure functions over text, strict, with no system call. */
#include "init.h"

#include <string.h>

struct slice {
	const char *start;
	size_t length;
};

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); }
static bool is_word(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("._+-", c);
}

static bool all(struct slice s, bool (*accepts)(char))
{
	for (size_t i = 0; i < s.length; i++)
		if (s.start[i] == '\0' || !accepts(s.start[i]))
			return false;
	return s.length > 0;
}

static bool copy(struct slice s, char *to, size_t size)
{
	if (s.length >= size)
		return false;
	memcpy(to, s.start, s.length);
	to[s.length] = '\0';
	return true;
}

/* Cuts the text up to `separator` (or its end) off the front of `rest`. */
static struct slice cut(struct slice *rest, char separator)
{
	const char *at = rest->length ? memchr(rest->start, separator, rest->length) : NULL;
	struct slice head = { rest->start, at ? (size_t)(at - rest->start) : rest->length };
	size_t used = head.length + (at ? 1 : 0);

	rest->start += used;
	rest->length -= used;
	return head;
}

static const char *parse_label(struct slice s, char label[LABEL_SIZE])
{
	return all(s, is_word) && copy(s, label, LABEL_SIZE) ? NULL : "a label has 1 to 36 of A-Za-z0-9._+-";
}

static const char *parse_blocks(struct slice s, uint64_t *blocks)
{
	/* 15 digits of 4096-byte blocks are beyond any disk and cannot overflow in sectors or bytes. */
	if (!all(s, is_digit) || s.length > 15 || s.start[0] == '0')
		return "the number of data blocks is not a plain positive number";
	*blocks = 0;
	for (size_t i = 0; i < s.length; i++)
		*blocks = *blocks * 10 + (uint64_t)(s.start[i] - '0');
	return NULL;
}

static const char *parse_verity(struct slice label, struct slice blocks, struct slice salt,
				struct slice hash, struct verity_target *target)
{
	const char *wrong = parse_label(label, target->label);

	if (!wrong)
		wrong = parse_blocks(blocks, &target->data_blocks);
	if (wrong)
		return wrong;
	if (!(salt.length == 1 && salt.start[0] == '-') && (!all(salt, is_hex) || salt.length % 2))
		return "the salt is neither lower-case hexadecimal nor -";
	if (!copy(salt, target->salt, SALT_SIZE))
		return "the salt is longer than 256 bytes";
	if (!all(hash, is_hex) || hash.length != HASH_SIZE - 1)
		return "the root hash is not 64 lower-case hexadecimal digits";
	copy(hash, target->root_hash, HASH_SIZE);
	return NULL;
}

/* The next word of the command line; quotes keep spaces together, as in the kernel's next_arg(). */
static struct slice next_word(const char **text)
{
	struct slice word;
	bool quoted = false;

	while (**text == ' ' || **text == '\t' || **text == '\n')
		(*text)++;
	word.start = *text;
	while (**text && (quoted || (**text != ' ' && **text != '\t' && **text != '\n'))) {
		if (**text == '"')
			quoted = !quoted;
		(*text)++;
	}
	word.length = (size_t)(*text - word.start);
	return word;
}

static bool take_value(struct slice word, const char *key, struct slice *value)
{
	size_t length = strlen(key);

	if (word.length < length || memcmp(word.start, key, length) != 0)
		return false;
	*value = (struct slice){ word.start + length, word.length - length };
	return true;
}

const char *parse_cmdline(const char *text, struct boot_options *options)
{
	bool seen_root = false, seen_state = false;
	const char *wrong = NULL;
	struct slice word, value;

	memset(options, 0, sizeof *options);
	while (!wrong && (word = next_word(&text)).length) {
		if (word.length == 2 && memcmp(word.start, "--", 2) == 0)
			break; /* what follows is for init, not for the kernel and not for us */
		if (take_value(word, "hal.root=", &value)) {
			struct slice label = cut(&value, ','), blocks = cut(&value, ','),
				     salt = cut(&value, ',');

			if (seen_root)
				return "hal.root is given twice";
			seen_root = true;
			/* `value` is the rest: a fifth field would make it a bad hash */
			wrong = parse_verity(label, blocks, salt, value, &options->root);
			if (!wrong && options->root.label[LABEL_SIZE - 1 - strlen("_verity")])
				wrong = "the root's label leaves no room for _verity";
		} else if (take_value(word, "hal.state=", &value)) {
			if (seen_state)
				return "hal.state is given twice";
			seen_state = true;
			wrong = parse_label(value, options->state_label);
		}
	}
	if (!wrong && !seen_root)
		return "hal.root is missing";
	return wrong;
}

/* Absolute, of plain characters, no empty, "." or ".." component. */
static bool is_mountpoint(struct slice path)
{
	if (path.length < 2 || path.start[0] != '/')
		return false;
	path.start++;
	path.length--;
	while (path.length) {
		bool more = memchr(path.start, '/', path.length) != NULL;
		struct slice part = cut(&path, '/');

		if (!all(part, is_word) || (part.start[0] == '.' && part.length == 1) ||
		    (part.length == 2 && memcmp(part.start, "..", 2) == 0) || (more && !path.length))
			return false;
	}
	return true;
}

const char *parse_pack(const char *line, struct pack *pack)
{
	struct slice rest = { line, strcspn(line, "\n") };
	struct slice name = cut(&rest, ' '), label = cut(&rest, ' '), blocks = cut(&rest, ' '),
		     salt = cut(&rest, ' '), hash = cut(&rest, ' ');
	const char *wrong;

	memset(pack, 0, sizeof *pack);
	if (!all(name, is_word) || !copy(name, pack->name, sizeof pack->name))
		return "a pack's name has 1 to 64 of A-Za-z0-9._+-";
	wrong = parse_verity(label, blocks, salt, hash, &pack->target);
	if (wrong)
		return wrong;
	if (!is_mountpoint(rest) || !copy(rest, pack->mountpoint, sizeof pack->mountpoint))
		return "the mount point is not a plain absolute path";
	return NULL;
}

const char *parse_module(const char *line, struct module_line *module)
{
	struct slice path = { line, strcspn(line, "\n") };

	memset(module, 0, sizeof *module);
	if (path.length == 0 || line[0] == '#')
		return NULL;
	if (line[0] == '?') {
		module->optional = true;
		path.start++;
		path.length--;
	}
	if (!is_mountpoint(path) || !copy(path, module->path, sizeof module->path))
		return "a module is not a plain absolute path";
	return NULL;
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }
static bool is_key(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || c == '_'; }
static bool is_printable(char c) { return c >= ' ' && c <= '~'; }

static struct slice trim(struct slice s)
{
	while (s.length && is_blank(s.start[0])) {
		s.start++;
		s.length--;
	}
	while (s.length && is_blank(s.start[s.length - 1]))
		s.length--;
	return s;
}

const char *parse_setting(const char *line, struct setting *setting)
{
	static const char root[] = "/proc/sys";
	struct slice rest = trim((struct slice){ line, strcspn(line, "\n") });
	struct slice key;
	size_t used = sizeof root - 1;

	memset(setting, 0, sizeof *setting);
	if (rest.length == 0 || rest.start[0] == '#')
		return NULL;
	if (rest.start[0] == '-') {
		setting->optional = true;
		rest.start++;
		rest.length--;
	}
	key = trim(cut(&rest, '='));
	rest = trim(rest);
	if (!all(rest, is_printable) || !copy(rest, setting->value, sizeof setting->value))
		return "a setting has no value of plain characters";
	memcpy(setting->path, root, used);
	for (bool more = true; more; ) {
		struct slice part;

		more = memchr(key.start, '.', key.length) != NULL;
		part = cut(&key, '.');
		if (!all(part, is_key) || used + 1 + part.length >= sizeof setting->path) {
			memset(setting, 0, sizeof *setting);
			return "a setting's name has parts of a-z0-9_ with dots between";
		}
		setting->path[used++] = '/';
		memcpy(setting->path + used, part.start, part.length);
		used += part.length;
	}
	return NULL;
}

bool parse_uevent(const char *text, const char *key, char *value, size_t size)
{
	size_t length = strlen(key);

	while (*text) {
		size_t line = strcspn(text, "\n");

		if (line > length && memcmp(text, key, length) == 0 && text[length] == '=')
			return copy((struct slice){ text + length + 1, line - length - 1 }, value, size);
		text += line + (text[line] == '\n');
	}
	return false;
}
