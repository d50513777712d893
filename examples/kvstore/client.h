/* SPDX-License-Identifier: MIT */
/* A connection: what came in and is not carried out yet, what is to go out, and the protocol of both (RESP2, the Redis
 * serialization protocol; and lines by hand, "inline commands").
 *
 * Nothing is believed that has not come: memory is for bytes that are here, and not for lengths that somebody names. */
#ifndef KVSTORE_CLIENT_H
#define KVSTORE_CLIENT_H

#include "store.h"

#define ARGUMENTS_MAX ((size_t)1 << 20)
#define REQUEST_MAX ((size_t)1 << 30) /* bytes of a request, */
#define REPLY_MAX ((size_t)1 << 30)   /* and of what waits to go out */

struct buffer {
	char *p;
	size_t begin, end, room;
};

struct argument {
	size_t at, n; /* from where its request begins in the buffer */
};

struct client {
	struct client *next, *previous;
	struct buffer in, out;
	struct argument *argument;
	size_t arguments, arguments_room; /* of the request that is coming in; those that are here, */
	size_t missing;                   /* and how many are not */
	size_t parsed;                    /* bytes of it that were looked at */
	long long bulk;                   /* the length of the argument that is coming in; -1: not known yet */
	uint64_t id;
	int fd;
	uint32_t events; /* that epoll looks for */
	bool ended;      /* nothing more comes; what is here is carried out still */
	bool closing;    /* when all has gone out */
	bool broken;     /* at once: the connection is, or there is no memory for it */
};

enum parsed { PARSED_PART, PARSED_WHOLE, PARSED_WRONG };

/* Look for a whole request: its arguments, maybe none. PARSED_WRONG: what is wrong was answered, and the client is to
 * be closed. */
enum parsed client_parse(struct client *c);
/* The request was carried out. */
void client_next(struct client *c);

static inline struct text client_argument(const struct client *c, size_t i)
{
	return (struct text){ c->in.p + c->in.begin + c->argument[i].at, c->argument[i].n };
}

/* Room for so many bytes more, at the end. False: there is none. */
bool buffer_reserve(struct buffer *b, size_t more, size_t most);
/* A buffer in which nothing is gives back what is more than usual. */
void buffer_rest(struct buffer *b);
void buffer_free(struct buffer *b);

void reply_raw(struct client *c, const char *p, size_t n);
#define reply_literal(c, literal) reply_raw((c), (literal), sizeof(literal) - 1)
void reply_ok(struct client *c);
void reply_error(struct client *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void reply_integer(struct client *c, int64_t n);
void reply_bulk(struct client *c, struct text t);
void reply_null(struct client *c);
void reply_array(struct client *c, size_t n);

/* Written as a decimal number would be, and nothing else: no space, no plus, no leading zero. */
bool text_to_integer(struct text t, int64_t *n);
/* At most 20 characters; how many. */
size_t integer_to_text(int64_t n, char *text);
bool text_is(struct text t, const char *word); /* without regard to case */

#endif
