/* SPDX-License-Identifier: MIT */
/* A program that replaces operator new(size_t), operator delete(void *) and their aligned forms alone, with a header
 * in front of each object. The standard promises that all other forms come to these, and an allocator that answered
 * them itself would be caught here by the header. variants: preload linked archive static */
#include <algorithm>
#include <new>
#include <string>
#include <vector>

#include "tests/family/family.h"

#ifndef __clang__
#pragma GCC diagnostic ignored "-Wsized-deallocation"
#endif

struct header {
	std::uint64_t magic;
	std::size_t shift;
};

static const std::uint64_t magic = 0x71756172727921;
static long made, unmade;

static void *make(std::size_t n, std::size_t alignment)
{
	std::size_t shift = std::max(alignment, sizeof(header));
	char *p = static_cast<char *>(alignment ? std::aligned_alloc(alignment, n + shift) : std::malloc(n + shift));

	if (p == nullptr)
		throw std::bad_alloc();
	*reinterpret_cast<header *>(p + shift - sizeof(header)) = { magic, shift };
	made++;
	return p + shift;
}

static void unmake(void *p)
{
	if (p == nullptr)
		return;
	header *h = static_cast<header *>(p) - 1;
	CHECK(h->magic == magic);
	h->magic = 0;
	unmade++;
	std::free(static_cast<char *>(p) - h->shift);
}

void *operator new(std::size_t n)
{
	return make(n, 0);
}

void operator delete(void *p) noexcept
{
	unmake(p);
}

void *operator new(std::size_t n, std::align_val_t alignment)
{
	return make(n, static_cast<std::size_t>(alignment));
}

void operator delete(void *p, std::align_val_t) noexcept
{
	unmake(p);
}

static void all_forms(std::size_t n)
{
	const std::align_val_t wide = std::align_val_t(128);
	long before = made;
	void *p[8] = { ::operator new(n),
		       ::operator new[](n),
		       ::operator new(n, std::nothrow),
		       ::operator new[](n, std::nothrow),
		       ::operator new(n, wide),
		       ::operator new[](n, wide),
		       ::operator new(n, wide, std::nothrow),
		       ::operator new[](n, wide, std::nothrow) };

	CHECK(made == before + 8);
	for (void *q : p)
		CHECK(q != nullptr && (static_cast<header *>(q) - 1)->magic == magic);
	before = unmade;
	::operator delete(p[0], n);
	::operator delete[](p[1], n);
	::operator delete(p[2], std::nothrow);
	::operator delete[](p[3], std::nothrow);
	::operator delete(p[4], n, wide);
	::operator delete[](p[5], n, wide);
	::operator delete(p[6], wide, std::nothrow);
	::operator delete[](p[7], wide, std::nothrow);
	CHECK(unmade == before + 8);
}

int main()
{
	static volatile std::size_t too_large = static_cast<std::size_t>(PTRDIFF_MAX) - 64;

	family_in_use();
	for (std::size_t n = 1; n < 100000; n = n * 2 + 1)
		all_forms(n);
	{
		std::vector<std::string> v;
		for (int i = 0; i < 5000; i++)
			v.push_back("a string that is not short: " + std::to_string(i * 7919 % 5000));
		std::stable_sort(v.begin(), v.end()); /* a buffer by nothrow new, given back by plain delete */
		CHECK(std::is_sorted(v.begin(), v.end()));
	}
	CHECK(made == unmade);
	/* The program's operator new throws; nothrow new returns null all the same. */
	const char *variant = getenv("FAMILY_VARIANT");
	if (variant == nullptr || strcmp(variant, "static") != 0) {
		CHECK(::operator new(too_large, std::nothrow) == nullptr);
		CHECK(::operator new[](too_large, std::nothrow) == nullptr);
	}
	return 0;
}
