/* SPDX-License-Identifier: MIT */
/* HTTP/1.0, as much of it as a scrape needs: GET of /metrics, no more than some seconds and some kilobytes for each
 * connection. Nothing here waits: the caller polls, for POLLOUT from when it is answering, and for POLLIN before. */
#ifndef QUARRY_TOOLS_METRICS_HTTP_H
#define QUARRY_TOOLS_METRICS_HTTP_H

#include "tools/published.h"

#define HTTP_REQUEST_MAX 8192
#define HTTP_SECONDS 5 /* for the request, and for the answer */

/* A connection; fd: -1 when it has ended. */
struct http_client {
	int fd;
	bool answering, head_alone; /* head_alone: asked by HEAD, and the body is not sent */
	uint64_t end; /* until when (published_now) it has time for what it does */
	size_t used;  /* of the request */
	char *body;   /* mapped, or the line */
	size_t head_size, body_size, sent;
	char request[HTTP_REQUEST_MAX], head[256], line[300];
};

void http_begin(struct http_client *c, int fd);
/* Read or write what can be, and end when that was all. flags: enum quarry_metrics_flags. */
void http_go_on(struct http_client *c, struct published *from, unsigned flags);
/* Its time is over, or another needs its place: it is told so, if it takes that at once, and ends. */
void http_give_up(struct http_client *c);
void http_end(struct http_client *c);

#endif
