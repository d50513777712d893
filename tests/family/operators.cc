/* SPDX-License-Identifier: MIT */
/* Every operator new and delete: what they give, that bad_alloc is thrown, that the new handler is called until there
 * is memory, and that nothrow new returns null whatever the handler does. variants: preload linked archive static */
#include <new>
#include <vector>
#include <string>
#include <map>
#include <memory>
#include <algorithm>
#include <sys/resource.h>

#include "tests/family/family.h"

static volatile std::size_t too_large = static_cast<std::size_t>(PTRDIFF_MAX) + 1;
static const std::align_val_t wide = std::align_val_t(256);

static bool aligned_to(void *p, std::size_t alignment)
{
	return (reinterpret_cast<std::uintptr_t>(p) & (alignment - 1)) == 0;
}

static void use(void *p, std::size_t n, std::size_t alignment)
{
	CHECK(p != nullptr);
	CHECK(aligned_to(p, alignment));
	CHECK(quarry_usable_size(p) >= n);
	family_fill(p, n, 3);
}

/* Each way to make with each way to unmake that belongs to it. */
static void each(std::size_t n)
{
	void *p;

	use(p = ::operator new(n), n, 16);
	::operator delete(p);
	use(p = ::operator new(n), n, 16);
	::operator delete(p, n);
	use(p = ::operator new(n, std::nothrow), n, 16);
	::operator delete(p, std::nothrow);
	use(p = ::operator new[](n), n, 16);
	::operator delete[](p);
	use(p = ::operator new[](n), n, 16);
	::operator delete[](p, n);
	use(p = ::operator new[](n, std::nothrow), n, 16);
	::operator delete[](p, std::nothrow);
	use(p = ::operator new(n, wide), n, 256);
	::operator delete(p, wide);
	use(p = ::operator new(n, wide), n, 256);
	::operator delete(p, n, wide);
	use(p = ::operator new(n, wide, std::nothrow), n, 256);
	::operator delete(p, wide, std::nothrow);
	use(p = ::operator new[](n, wide), n, 256);
	::operator delete[](p, wide);
	use(p = ::operator new[](n, wide), n, 256);
	::operator delete[](p, n, wide);
	use(p = ::operator new[](n, wide, std::nothrow), n, 256);
	::operator delete[](p, wide, std::nothrow);
	::operator delete(nullptr);
	::operator delete(nullptr, n);
	::operator delete[](nullptr);
	::operator delete(nullptr, wide);
}

template <typename F> static bool throws_bad_alloc(F f)
{
	try {
		f();
	} catch (const std::bad_alloc &e) {
		return e.what() != nullptr;
	}
	return false;
}

/* A destructor between the throw and the catch must run. */
struct witness {
	int &count;
	~witness()
	{
		count++;
	}
};

static void thrown()
{
	int unwound = 0;

	CHECK(throws_bad_alloc([] { return ::operator new(too_large); }));
	CHECK(throws_bad_alloc([] { return ::operator new[](too_large); }));
	CHECK(throws_bad_alloc([] { return ::operator new(too_large, wide); }));
	CHECK(throws_bad_alloc([] { return ::operator new[](too_large, wide); }));
	CHECK(throws_bad_alloc([] { return ::operator new(100, std::align_val_t(24)); }));
	CHECK(throws_bad_alloc([&] {
		witness w{ unwound };
		std::vector<char> v;
		v.reserve(static_cast<std::size_t>(PTRDIFF_MAX) - 4096);
	}));
	CHECK(unwound == 1);
	CHECK(::operator new(too_large, std::nothrow) == nullptr);
	CHECK(::operator new[](too_large, std::nothrow) == nullptr);
	CHECK(::operator new(too_large, wide, std::nothrow) == nullptr);
	CHECK(::operator new[](too_large, wide, std::nothrow) == nullptr);
	CHECK(::operator new(100, std::align_val_t(24), std::nothrow) == nullptr);
}

static int handled;
static int handle_until;

/* Gives up after some calls by taking itself away. */
static void counting_handler()
{
	if (++handled == handle_until)
		std::set_new_handler(nullptr);
}

struct strange {
	int number;
};

static void throwing_handler()
{
	handled++;
	throw std::bad_alloc();
}

static void handlers()
{
	handled = 0;
	handle_until = 5;
	std::set_new_handler(counting_handler);
	CHECK(throws_bad_alloc([] { return ::operator new(too_large); }));
	CHECK(handled == 5);

	handled = 0;
	handle_until = 3;
	std::set_new_handler(counting_handler);
	CHECK(throws_bad_alloc([] { return ::operator new[](too_large, wide); }));
	CHECK(handled == 3);

	handled = 0;
	handle_until = 4;
	std::set_new_handler(counting_handler);
	CHECK(::operator new[](too_large, std::nothrow) == nullptr);
	CHECK(handled == 4);

	/* A bad alignment is not for the handler. */
	handled = 0;
	std::set_new_handler(counting_handler);
	CHECK(throws_bad_alloc([] { return ::operator new(100, std::align_val_t(24)); }));
	CHECK(handled == 0);
	std::set_new_handler(nullptr);
}

static void handler_that_throws()
{
	handled = 0;
	std::set_new_handler(throwing_handler);
	CHECK(throws_bad_alloc([] { return ::operator new(too_large); }));
	CHECK(handled == 1);
	/* In a static program there is no second nothrow new to catch it: see lib/api/interpose_cxx.c. */
	const char *variant = getenv("FAMILY_VARIANT");
	if (variant == nullptr || strcmp(variant, "static") != 0) {
		CHECK(::operator new(too_large, std::nothrow) == nullptr);
		CHECK(::operator new[](too_large, std::nothrow) == nullptr);
		CHECK(::operator new(too_large, wide, std::nothrow) == nullptr);
		CHECK(::operator new[](too_large, wide, std::nothrow) == nullptr);
		CHECK(handled == 5);
	}
	std::set_new_handler([] { throw strange{ 7 }; });
	int got = 0;
	try {
		::operator delete(::operator new(too_large));
	} catch (const strange &s) {
		got = s.number;
	}
	CHECK(got == 7);
	std::set_new_handler(nullptr);
}

/* The classic use of a handler: it gives up a reserve, and what it freed is what operator new then returns. For this
 * the program starts itself anew with little address space. */
static void *reserve;

static void give_up_reserve()
{
	handled++;
	std::free(reserve);
	reserve = nullptr;
}

static void handler_that_helps()
{
	const std::size_t n = static_cast<std::size_t>(500) << 20;

	reserve = std::malloc(n + (static_cast<std::size_t>(100) << 20));
	CHECK(reserve != nullptr);
	CHECK(::operator new(n, std::nothrow) == nullptr);
	CHECK(throws_bad_alloc([&] { return ::operator new(n); }));
	std::set_new_handler(give_up_reserve);
	char *p = static_cast<char *>(::operator new(n));
	CHECK(p != nullptr && handled == 1 && reserve == nullptr);
	p[0] = p[n - 1] = 1;
	::operator delete(p, n);
	std::set_new_handler(nullptr);
}

static void again_with_little_memory(char **argv)
{
	struct rlimit limit;

	CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
	limit.rlim_cur = static_cast<rlim_t>(1) << 30;
	CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
	CHECK(setenv("OPERATORS_LIMITED", "1", 1) == 0);
	execv("/proc/self/exe", argv);
	CHECK(!"exec");
}

static void containers()
{
	std::map<std::string, std::vector<int>> m;
	std::vector<std::unique_ptr<std::string>> strings;

	for (int i = 0; i < 20000; i++) {
		std::string key = "key number " + std::to_string(i * 7919 % 20000);
		m[key].assign(static_cast<std::size_t>(i % 50), i);
		strings.push_back(std::make_unique<std::string>(key));
	}
	/* stable_sort takes its buffer by nothrow new. */
	std::stable_sort(strings.begin(), strings.end(),
			 [](const auto &a, const auto &b) { return *a < *b; });
	CHECK(std::is_sorted(strings.begin(), strings.end(), [](const auto &a, const auto &b) { return *a < *b; }));
	for (int i = 0; i < 20000; i++)
		for (int v : m["key number " + std::to_string(i * 7919 % 20000)])
			CHECK(v == i);
}

int main(int, char **argv)
{
	family_in_use();
	if (getenv("OPERATORS_LIMITED") != nullptr) {
		handler_that_helps();
		return 0;
	}
	for (std::size_t n = 0; n < 3000000; n = n * 3 + 1)
		each(n);
	thrown();
	handlers();
	handler_that_throws();
	containers();
	again_with_little_memory(argv);
}
