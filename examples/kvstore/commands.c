/* SPDX-License-Identifier: MIT */
/* The commands: those of Redis that are about texts and keys, with its replies. */
#include "commands.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct server server;

#define NO_MEMORY "OOM command not allowed when used memory > 'maxmemory', or there is none"
#define NO_INTEGER "ERR value is not an integer or out of range"
#define SYNTAX "ERR syntax error"

static struct text text_of(const char *s)
{
	return (struct text){ s, strlen(s) };
}

/* ---- of the connection ---- */

static void run_ping(struct client *c)
{
	if (c->arguments > 2)
		reply_error(c, "ERR wrong number of arguments for 'ping' command");
	else if (c->arguments == 2)
		reply_bulk(c, client_argument(c, 1));
	else
		reply_literal(c, "+PONG\r\n");
}

static void run_echo(struct client *c)
{
	reply_bulk(c, client_argument(c, 1));
}

static void run_quit(struct client *c)
{
	reply_ok(c);
	c->closing = true;
}

static void run_shutdown(struct client *c)
{
	c->closing = true;
	server.stopping = true;
}

static void run_select(struct client *c)
{
	int64_t database;

	if (!text_to_integer(client_argument(c, 1), &database))
		reply_error(c, NO_INTEGER);
	else if (database != 0)
		reply_error(c, "ERR DB index is out of range");
	else
		reply_ok(c);
}

static void run_client(struct client *c)
{
	struct text what = client_argument(c, 1);

	if (text_is(what, "id"))
		reply_integer(c, (int64_t)c->id);
	else if (text_is(what, "getname"))
		reply_null(c);
	else if (text_is(what, "setname") || text_is(what, "setinfo") || text_is(what, "no-evict"))
		reply_ok(c);
	else
		reply_error(c, "ERR unknown subcommand of CLIENT");
}

static void run_hello(struct client *c)
{
	int64_t version = 2;

	if (c->arguments > 1 && (!text_to_integer(client_argument(c, 1), &version) || version != 2)) {
		reply_error(c, "NOPROTO unsupported protocol version");
		return;
	}
	reply_array(c, 6);
	reply_bulk(c, text_of("server"));
	reply_bulk(c, text_of("kvstore"));
	reply_bulk(c, text_of("proto"));
	reply_integer(c, 2);
	reply_bulk(c, text_of("id"));
	reply_integer(c, (int64_t)c->id);
}

/* ---- values ---- */

static void reply_value(struct client *c, struct text key)
{
	struct place where;

	memory_enter();
	store_look(key, &where);
	if (where.at != REF_NONE)
		reply_bulk(c, store_value(&where));
	else
		reply_null(c);
	memory_leave();
	server.hits += where.at != REF_NONE;
	server.misses += where.at == REF_NONE;
}

static void run_get(struct client *c)
{
	reply_value(c, client_argument(c, 1));
}

static void run_mget(struct client *c)
{
	reply_array(c, c->arguments - 1);
	for (size_t i = 1; i < c->arguments && !c->broken; i++)
		reply_value(c, client_argument(c, i));
}

static void run_strlen(struct client *c)
{
	struct place where;
	size_t n = 0;

	memory_enter();
	store_look(client_argument(c, 1), &where);
	if (where.at != REF_NONE)
		n = store_value(&where).n;
	memory_leave();
	reply_integer(c, (int64_t)n);
}

struct set_options {
	bool if_new, if_there, keep_time, has_time;
	int64_t expires;
};

/* A time as EX and PX, EXPIRE and PEXPIRE have it: when that is. False: it is none. */
static bool parse_time(struct text t, int64_t unit, int64_t *expires)
{
	int64_t n;

	return text_to_integer(t, &n) && !__builtin_mul_overflow(n, unit, &n) &&
	       !__builtin_add_overflow(n, store.now, expires);
}

/* What follows a SET's value. False: it was answered what is wrong. */
static bool parse_set_options(struct client *c, struct set_options *o)
{
	for (size_t i = 3; i < c->arguments; i++) {
		struct text word = client_argument(c, i);
		bool seconds = text_is(word, "ex");

		if (text_is(word, "nx") && !o->if_there) {
			o->if_new = true;
		} else if (text_is(word, "xx") && !o->if_new) {
			o->if_there = true;
		} else if (text_is(word, "keepttl") && !o->has_time) {
			o->keep_time = true;
		} else if ((seconds || text_is(word, "px")) && !o->has_time && !o->keep_time && i + 1 < c->arguments) {
			struct text t = client_argument(c, ++i);
			int64_t n;

			if (!text_to_integer(t, &n)) {
				reply_error(c, NO_INTEGER);
				return false;
			}
			if (n <= 0 || !parse_time(t, seconds ? 1000 : 1, &o->expires)) {
				reply_error(c, "ERR invalid expire time in 'set' command");
				return false;
			}
			o->has_time = true;
		} else {
			reply_error(c, SYNTAX);
			return false;
		}
	}
	return true;
}

static void run_set(struct client *c)
{
	struct set_options o = { 0 };
	struct text key = client_argument(c, 1);
	struct place where;

	if (!parse_set_options(c, &o))
		return;
	store_look(key, &where);
	if ((o.if_new && where.at != REF_NONE) || (o.if_there && where.at == REF_NONE)) {
		reply_null(c);
		return;
	}
	if (o.keep_time && where.at != REF_NONE)
		o.expires = store_expires(&where);
	if (store_set(&where, key, client_argument(c, 2), o.expires))
		reply_ok(c);
	else
		reply_error(c, NO_MEMORY);
}

static void run_mset(struct client *c)
{
	struct place where;
	size_t size = 0;

	if (c->arguments % 2 == 0) {
		reply_error(c, "ERR wrong number of arguments for 'mset' command");
		return;
	}
	/* All of them or none, as far as can be known. */
	for (size_t i = 1; i < c->arguments; i++)
		size += c->argument[i].n + (i % 2) * sizeof(struct entry);
	if (!memory_allows(size)) {
		reply_error(c, NO_MEMORY);
		return;
	}
	for (size_t i = 1; i < c->arguments; i += 2) {
		store_look(client_argument(c, i), &where);
		if (!store_set(&where, client_argument(c, i), client_argument(c, i + 1), 0)) {
			reply_error(c, NO_MEMORY);
			return;
		}
	}
	reply_ok(c);
}

static void run_append(struct client *c)
{
	struct text key = client_argument(c, 1), tail = client_argument(c, 2);
	struct place where;
	size_t n = 0;

	store_look(key, &where);
	memory_enter();
	if (where.at != REF_NONE)
		n = store_value(&where).n;
	memory_leave();
	if (n + tail.n > VALUE_MAX)
		reply_error(c, "ERR string exceeds maximum allowed size (512MB)");
	else if (!store_append(&where, key, tail))
		reply_error(c, NO_MEMORY);
	else
		reply_integer(c, (int64_t)(n + tail.n));
}

static void add_to(struct client *c, int64_t by)
{
	struct text key = client_argument(c, 1);
	struct place where;
	int64_t n = 0, expires = 0;
	char digits[24];
	bool good = true;

	store_look(key, &where);
	if (where.at != REF_NONE) {
		memory_enter();
		good = text_to_integer(store_value(&where), &n);
		expires = store_entry(&where)->expires;
		memory_leave();
	}
	if (!good)
		reply_error(c, NO_INTEGER);
	else if (__builtin_add_overflow(n, by, &n))
		reply_error(c, "ERR increment or decrement would overflow");
	else if (!store_set(&where, key, (struct text){ digits, integer_to_text(n, digits) }, expires))
		reply_error(c, NO_MEMORY);
	else
		reply_integer(c, n);
}

static void run_incr(struct client *c)
{
	add_to(c, 1);
}

static void run_decr(struct client *c)
{
	add_to(c, -1);
}

static void run_incrby(struct client *c)
{
	int64_t by;

	if (text_to_integer(client_argument(c, 2), &by))
		add_to(c, by);
	else
		reply_error(c, NO_INTEGER);
}

static void run_decrby(struct client *c)
{
	int64_t by;

	if (text_to_integer(client_argument(c, 2), &by) && by != INT64_MIN)
		add_to(c, -by);
	else
		reply_error(c, NO_INTEGER);
}

/* ---- keys ---- */

static void run_del(struct client *c)
{
	struct place where;
	int64_t n = 0;

	for (size_t i = 1; i < c->arguments; i++) {
		store_look(client_argument(c, i), &where);
		if (where.at == REF_NONE)
			continue;
		store_remove(&where);
		n++;
	}
	reply_integer(c, n);
}

static void run_exists(struct client *c)
{
	struct place where;
	int64_t n = 0;

	for (size_t i = 1; i < c->arguments; i++) {
		store_look(client_argument(c, i), &where);
		n += where.at != REF_NONE;
	}
	reply_integer(c, n);
}

static void expire(struct client *c, int64_t unit)
{
	struct place where;
	int64_t expires, n;

	if (!text_to_integer(client_argument(c, 2), &n)) {
		reply_error(c, NO_INTEGER);
		return;
	}
	if (!parse_time(client_argument(c, 2), unit, &expires)) {
		reply_error(c, "ERR invalid expire time in 'expire' command");
		return;
	}
	store_look(client_argument(c, 1), &where);
	reply_integer(c, where.at != REF_NONE);
	if (where.at == REF_NONE)
		return;
	if (n <= 0)
		store_remove(&where);
	else
		store_expire_at(&where, expires);
}

static void run_expire(struct client *c)
{
	expire(c, 1000);
}

static void run_pexpire(struct client *c)
{
	expire(c, 1);
}

/* How long a key has, in units of so many milliseconds; -1: for ever; -2: there is none. */
static void time_left(struct client *c, int64_t unit)
{
	struct place where;
	int64_t expires;

	store_look(client_argument(c, 1), &where);
	if (where.at == REF_NONE) {
		reply_integer(c, -2);
		return;
	}
	expires = store_expires(&where);
	reply_integer(c, expires == 0 ? -1 : (expires - store.now + unit / 2) / unit);
}

static void run_ttl(struct client *c)
{
	time_left(c, 1000);
}

static void run_pttl(struct client *c)
{
	time_left(c, 1);
}

static void run_persist(struct client *c)
{
	struct place where;
	bool had;

	store_look(client_argument(c, 1), &where);
	had = where.at != REF_NONE && store_expires(&where) != 0;
	if (had)
		store_expire_at(&where, 0);
	reply_integer(c, had);
}

/* ---- of the server ---- */

static void run_dbsize(struct client *c)
{
	reply_integer(c, (int64_t)store.entries);
}

static void run_flush(struct client *c)
{
	store_clear();
	reply_ok(c);
}

static void run_command(struct client *c)
{
	if (c->arguments > 1 && text_is(client_argument(c, 1), "count"))
		reply_integer(c, 0);
	else
		reply_array(c, 0);
}

static void run_config(struct client *c)
{
	char limit[24];
	struct { const char *name, *value; } known[] = { { "save", "" }, { "appendonly", "no" }, { "maxmemory", limit } };

	if (!text_is(client_argument(c, 1), "get") || c->arguments < 3) {
		if (text_is(client_argument(c, 1), "resetstat"))
			reply_ok(c);
		else
			reply_error(c, "ERR CONFIG GET and CONFIG RESETSTAT is all there is; the rest is said at the start (--help)");
		return;
	}
	limit[integer_to_text((int64_t)memory.limit, limit)] = '\0';
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (text_is(client_argument(c, 2), known[i].name)) {
			reply_array(c, 2);
			reply_bulk(c, text_of(known[i].name));
			reply_bulk(c, text_of(known[i].value));
			return;
		}
	reply_array(c, 0);
}

static size_t resident(void)
{
	unsigned long all, here = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f == NULL)
		return 0;
	if (fscanf(f, "%lu %lu", &all, &here) != 2)
		here = 0;
	fclose(f);
	return here * (size_t)sysconf(_SC_PAGESIZE);
}

static void run_info(struct client *c)
{
	struct memory_figures m;
	char text[2048];
	int n;

	memory_count(&m);
	n = snprintf(text, sizeof(text),
		     "# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nprocess_id:%d\r\ntcp_port:%d\r\n"
		     "uptime_in_seconds:%lld\r\n"
		     "# Clients\r\nconnected_clients:%zu\r\nmaxclients:%zu\r\n"
		     "# Memory\r\nused_memory:%zu\r\nused_memory_rss:%zu\r\nmaxmemory:%zu\r\nmem_allocator:%s\r\n"
		     "handles_live:%llu\r\nhandles_held:%llu\r\nmoved_objects:%llu\r\nmoved_bytes:%llu\r\n"
		     "compacted_bytes:%llu\r\n"
		     "# Stats\r\ntotal_connections_received:%llu\r\ntotal_commands_processed:%llu\r\n"
		     "rejected_connections:%llu\r\nexpired_keys:%llu\r\nkeyspace_hits:%llu\r\nkeyspace_misses:%llu\r\n"
		     "# Keyspace\r\ndb0:keys=%zu,expires=%zu,avg_ttl=0\r\n",
		     (int)getpid(), server.port, (long long)(store.now - server.began) / 1000, server.clients,
		     server.clients_max, memory.asked, resident(), memory.limit,
		     memory.lanes != NULL ? "quarry-handles" : "malloc", (unsigned long long)m.live,
		     (unsigned long long)m.held, (unsigned long long)m.moved, (unsigned long long)m.moved_bytes,
		     (unsigned long long)m.freed, (unsigned long long)server.connections,
		     (unsigned long long)server.commands, (unsigned long long)server.refused,
		     (unsigned long long)store.expired, (unsigned long long)server.hits,
		     (unsigned long long)server.misses, store.entries, store.expiring);
	reply_bulk(c, (struct text){ text, (size_t)n });
}

/* ---- all of them ---- */

/* Those that are asked for most come first. A count below zero is the least that there may be, the name counted. Keys:
 * how many arguments it is from one to the next; 0: there is one at most. */
static const struct command {
	const char *name;
	int arguments;
	unsigned keys;
	void (*run)(struct client *c);
} commands[] = {
	{ "get", 2, 0, run_get },
	{ "set", -3, 0, run_set },
	{ "mget", -2, 1, run_mget },
	{ "mset", -3, 2, run_mset },
	{ "del", -2, 1, run_del },
	{ "incr", 2, 0, run_incr },
	{ "exists", -2, 1, run_exists },
	{ "ping", -1, 0, run_ping },
	{ "expire", 3, 0, run_expire },
	{ "ttl", 2, 0, run_ttl },
	{ "append", 3, 0, run_append },
	{ "strlen", 2, 0, run_strlen },
	{ "unlink", -2, 1, run_del },
	{ "decr", 2, 0, run_decr },
	{ "incrby", 3, 0, run_incrby },
	{ "decrby", 3, 0, run_decrby },
	{ "pexpire", 3, 0, run_pexpire },
	{ "pttl", 2, 0, run_pttl },
	{ "persist", 2, 0, run_persist },
	{ "echo", 2, 0, run_echo },
	{ "dbsize", 1, 0, run_dbsize },
	{ "flushall", -1, 0, run_flush },
	{ "flushdb", -1, 0, run_flush },
	{ "info", -1, 0, run_info },
	{ "config", -2, 0, run_config },
	{ "command", -1, 0, run_command },
	{ "client", -2, 0, run_client },
	{ "select", 2, 0, run_select },
	{ "hello", -1, 0, run_hello },
	{ "quit", -1, 0, run_quit },
	{ "shutdown", -1, 0, run_shutdown },
};

static const struct command *find(struct text name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (text_is(name, commands[i].name))
			return &commands[i];
	return NULL;
}

#define KEYS_MAX 256 /* of all requests: more would be gone again before their turn */

void commands_foresee(const struct client *c)
{
	struct text key[FORESEEN_MAX];
	size_t n = 0, all = 0;

	for (unsigned i = 0; i < c->ready_count; i++) {
		const struct request *r = &c->ready[i];
		const struct argument *argument = &c->argument[r->first];
		const struct command *command = r->count < 2 ? NULL : find(client_text(c, argument));
		size_t step = command == NULL ? 0 : command->keys;

		for (size_t k = 1; command != NULL && k < r->count && all < KEYS_MAX; k += step, all++) {
			key[n++] = client_text(c, &argument[k]);
			if (n == FORESEEN_MAX) {
				store_foresee(key, n);
				n = 0;
			}
			if (step == 0)
				break;
		}
	}
	if (n > 0 && all > 1) /* one alone has nothing to be fetched beside */
		store_foresee(key, n);
}

void command_run(struct client *c)
{
	struct text name = client_argument(c, 0);
	const struct command *command = find(name);

	server.commands++;
	if (command == NULL)
		reply_error(c, "ERR unknown command '%.*s'", name.n < 128 ? (int)name.n : 128, name.p);
	else if (command->arguments < 0 ? c->arguments < (size_t)-command->arguments
					: c->arguments != (size_t)command->arguments)
		reply_error(c, "ERR wrong number of arguments for '%s' command", command->name);
	else
		command->run(c);
}
