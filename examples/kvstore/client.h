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
	size_t at, n; /* from where the buffer begins */
};

/* A whole request: where its arguments are among those of the client. */
struct request {
	size_t first, count;
};

#define READY_MAX 16 /* requests that are looked at together, before each is carried out */

struct client {
	struct client *next, *previous;
	struct buffer in, out;
	/* The request that is carried out: */
	const struct argument *request;
	size_t arguments;
	/* What was looked at of the buffer: whole requests, of which some were carried out, and a part of one. */
	struct argument *argument;
	size_t argument_count, argument_room;
	struct request ready[READY_MAX];
	unsigned ready_count, ready_next;
	size_t whole;   /* bytes of the whole ones, */
	size_t parsed;  /* and of all that was looked at */
	size_t missing; /* arguments of the part that have not come */
	int64_t bulk;   /* the length of the one that is coming; -1: not known yet */
	uint64_t id;
	int fd;
	uint32_t events; /* that epoll looks for */
	bool ended;      /* nothing more comes; what is here is carried out still */
	bool closing;    /* when all has gone out */
	bool broken;     /* at once: the connection is, or there is no memory for it */
};

enum parsed { PARSED_PART, PARSED_WHOLE, PARSED_WRONG };

/* Look for whole requests, as many as are here up to READY_MAX, when none is ready. PARSED_WHOLE: there are some.
 * PARSED_WRONG: what is wrong was answered, and the client is to be closed. */
enum parsed client_parse(struct client *c);
/* The next of them is to be carried out: its arguments, maybe none. False: all were. */
bool client_next(struct client *c);

static inline struct text client_text(const struct client *c, const struct argument *a)
{
	return (struct text){ c->in.p + c->in.begin + a->at, a->n };
}

static inline struct text client_argument(const struct client *c, size_t i)
{
	return client_text(c, &c->request[i]);
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
