/* SPDX-License-Identifier: MIT */
/* Circular doubly linked lists of numbers. The links stand in elements of a strided array, so a list costs its owner
 * one 32-bit word, zero when empty: a structure full of lists can be made by fresh zero memory, untouched. Element 0
 * can be in no list. */
#ifndef QUARRY_BASE_CHAIN_H
#define QUARRY_BASE_CHAIN_H

#include "lib/base/base.h"

/* Element n's links are two uint32_t (next, previous) at base + n * stride. */
struct qy_chain {
	char *base;
	size_t stride;
};

QY_INLINE uint32_t *qy_chain_links(const struct qy_chain *c, uint32_t n)
{
	return (uint32_t *)(void *)(c->base + (size_t)n * c->stride);
}

QY_INLINE uint32_t qy_chain_next(const struct qy_chain *c, uint32_t n)
{
	return qy_chain_links(c, n)[0];
}

/* Put n at the end; with the list circular, moving the head to it as well puts it in front. */
static inline void qy_chain_push_back(const struct qy_chain *c, uint32_t *head, uint32_t n)
{
	uint32_t *links = qy_chain_links(c, n);

	if (*head == 0) {
		links[0] = links[1] = n;
		*head = n;
		return;
	}
	links[0] = *head;
	links[1] = qy_chain_links(c, *head)[1];
	qy_chain_links(c, links[1])[0] = n;
	qy_chain_links(c, *head)[1] = n;
}

static inline void qy_chain_push_front(const struct qy_chain *c, uint32_t *head, uint32_t n)
{
	qy_chain_push_back(c, head, n);
	*head = n;
}

static inline void qy_chain_remove(const struct qy_chain *c, uint32_t *head, uint32_t n)
{
	uint32_t *links = qy_chain_links(c, n);

	if (links[0] == n) {
		*head = 0;
	} else {
		qy_chain_links(c, links[0])[1] = links[1];
		qy_chain_links(c, links[1])[0] = links[0];
		if (*head == n)
			*head = links[0];
	}
	links[0] = links[1] = 0;
}

#endif
