/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/metrics_http.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static void set_time(struct http_client *c)
{
	c->end = published_now() + HTTP_SECONDS * UINT64_C(1000000000);
}

void http_begin(struct http_client *c, int fd)
{
	*c = (struct http_client){ .fd = fd };
	set_time(c);
}

void http_end(struct http_client *c)
{
	if (c->body && c->body != c->line)
		munmap(c->body, c->body_size);
	c->body = NULL;
	/* (A reader that could not be ended has it, too.) */
	(void)shutdown(c->fd, SHUT_RDWR);
	close(c->fd);
	c->fd = -1;
}

static bool is_passing(int error)
{
	return error == EINTR || error == EAGAIN;
}

/* ---- the answer ---- */

static void send_some(struct http_client *c)
{
	size_t body_size = c->head_alone ? 0 : c->body_size;

	while (c->sent < c->head_size + body_size) {
		bool in_head = c->sent < c->head_size;
		const char *from = in_head ? c->head + c->sent : c->body + (c->sent - c->head_size);
		size_t size = in_head ? c->head_size - c->sent : c->head_size + body_size - c->sent;
		ssize_t n = send(c->fd, from, size, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && is_passing(errno))
			return;
		if (n < 0)
			break;
		c->sent += (size_t)n;
	}
	http_end(c);
}

static void answer(struct http_client *c, const char *status, const char *type, char *body, size_t size)
{
	int n = snprintf(c->head, sizeof(c->head), "HTTP/1.0 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
			 "Connection: close\r\n\r\n", status, type, size);

	c->answering = true;
	c->head_size = (size_t)n;
	c->body = body;
	c->body_size = size;
	set_time(c);
	send_some(c);
}

static void answer_line(struct http_client *c, const char *status, const char *why)
{
	snprintf(c->line, sizeof(c->line), "%s\n", why);
	answer(c, status, "text/plain; charset=utf-8", c->line, strlen(c->line));
}

/* (In a file without a name, since its length comes first.) */
static void answer_metrics(struct http_client *c, const struct published *from, unsigned flags)
{
	int file = memfd_create("quarry-metrics", MFD_CLOEXEC);
	off_t size = 0;
	char *text = MAP_FAILED;
	int error;

	if (file >= 0 && quarry_published_metrics(from->copy, from->size, file, flags) == 0)
		size = lseek(file, 0, SEEK_END);
	if (size > 0)
		text = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, file, 0);
	error = errno;
	if (file >= 0)
		close(file);
	if (text != MAP_FAILED)
		answer(c, "200 OK", flags & QUARRY_METRICS_CLASSIC ? "text/plain; version=0.0.4; charset=utf-8" :
				    "application/openmetrics-text; version=1.0.0; charset=utf-8", text, (size_t)size);
	else
		answer_line(c, "500 Internal Server Error", strerror(error));
}

/* ---- the request ---- */

/* Whatever is asked of it. */
static bool is_target(const char *target, const char *path)
{
	size_t n = strlen(path);

	return strncmp(target, path, n) == 0 && strchr(" ?\r\n", target[n]);
}

/* Who does not ask for OpenMetrics gets the format that every scraper knows. What cannot be read now may be the next
 * time. */
static void answer_request(struct http_client *c, struct published *from, unsigned flags)
{
	const char *target = strchr(c->request, '/');

	c->head_alone = strncmp(c->request, "HEAD /", 6) == 0;
	if (!c->head_alone && strncmp(c->request, "GET /", 5) != 0) {
		answer_line(c, "405 Method Not Allowed\r\nAllow: GET, HEAD", "GET and HEAD are all there is");
	} else if (!is_target(target, "/metrics") && !is_target(target, "/")) {
		answer_line(c, "404 Not Found", "/metrics is all there is");
	} else if (published_read(from) != STATUS_OK) {
		answer_line(c, "503 Service Unavailable", from->error);
	} else {
		if (!strcasestr(c->request, "application/openmetrics-text"))
			flags |= QUARRY_METRICS_CLASSIC;
		answer_metrics(c, from, flags);
	}
}

static void refuse(struct http_client *c)
{
	answer_line(c, "400 Bad Request", "no request, or one that is too long");
}

/* Up to the empty line. */
static void read_some(struct http_client *c, struct published *from, unsigned flags)
{
	ssize_t n = recv(c->fd, c->request + c->used, sizeof(c->request) - 1 - c->used, MSG_DONTWAIT);

	if (n < 0 && is_passing(errno))
		return;
	if (n <= 0) {
		refuse(c);
		return;
	}
	c->used += (size_t)n;
	c->request[c->used] = '\0';
	if (strlen(c->request) != c->used)
		refuse(c);
	else if (strstr(c->request, "\r\n\r\n") || strstr(c->request, "\n\n"))
		answer_request(c, from, flags);
	else if (c->used + 1 == sizeof(c->request))
		refuse(c);
}

void http_go_on(struct http_client *c, struct published *from, unsigned flags)
{
	if (c->answering)
		send_some(c);
	else
		read_some(c, from, flags);
}

void http_give_up(struct http_client *c)
{
	if (!c->answering)
		refuse(c);
	if (c->fd >= 0)
		http_end(c);
}
