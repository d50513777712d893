/* SPDX-License-Identifier: MIT */
/* Rounds in order, and the one in the middle: for the programs that tell medians. */
#ifndef QUARRY_BENCH_MEDIAN_H
#define QUARRY_BENCH_MEDIAN_H

#include <stdlib.h>

static int median_order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The least first. */
static void median_sort(double *list, size_t n)
{
	qsort(list, n, sizeof(*list), median_order);
}

static inline double median(double *list, size_t n)
{
	median_sort(list, n);
	return list[n / 2];
}

#endif
