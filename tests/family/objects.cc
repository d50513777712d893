// SPDX-License-Identifier: MIT
// variants: linked both twice
// flags: -std=c++17 -fno-rtti
// flags: -std=c++20
// flags: -std=c++20 -fno-rtti
// flags: -std=c++17 -fno-rtti -fno-exceptions
// flags: -std=c++20 -fno-rtti -fno-exceptions
// The C++ header: containers on managers, handles, scopes. Each variant that it names links a library with quarry's API.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory_resource>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <quarry/quarry.hpp>

#define CHECK(x) ((x) ? (void)0 : (std::printf("%s:%d: %s\n", __FILE__, __LINE__, #x), std::exit(1)))

/* Whether an E is thrown; without exceptions, whether the program ends by abort(3). */
#ifdef __cpp_exceptions
template <class E, class F> static bool fails(F f)
{
	try {
		f();
	} catch (const E &) {
		return true;
	}
	return false;
}
#else
template <class E, class F> static bool fails(F f)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		f();
		_exit(0);
	}
	return waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}
#endif

static int alive;

struct counted {
	explicit counted(int n) : number(n), text("a text that is too long to be kept inside of a string")
	{
		if (n < 0)
			quarry::detail::fail<std::bad_exception>();
		alive++;
	}
	~counted() { alive--; }
	counted(const counted &) = delete;
	counted &operator=(const counted &) = delete;

	int number;
	std::string text;
};

struct alignas(128) wide {
	~wide() { alive--; }
	char bytes[128 * 3];
};

static quarry_manager_stats stats_of(quarry_manager *m)
{
	quarry_manager_stats stats;

	CHECK(quarry_manager_stats_get(m, &stats) == 0);
	return stats;
}

static void containers()
{
	quarry_arena *arena = quarry_arena_create(nullptr);
	quarry_manager *m = quarry::of(arena);
	{
		quarry::resource r(m), same(m), other;
		std::pmr::vector<std::pmr::string> v(&r);
		std::map<int, int, std::less<int>, quarry::allocator<std::pair<const int, int>>> map{
			quarry::allocator<std::pair<const int, int>>(m)};

		CHECK(r == same && r != other && other == *std::make_unique<quarry::resource>(quarry_manager_default()));
		for (int i = 0; i < 1000; i++) {
			v.emplace_back("a text that is too long to be kept inside of a string");
			map[i] = i * 2;
		}
		CHECK(v.size() == 1000 && map.size() == 1000 && map[77] == 154);
		CHECK(quarry_arena_of(v.data()) == arena && quarry_arena_of(v[5].data()) == arena);
		CHECK(stats_of(m).in_use > 60000);
		for (int i = 0; i < 20; i++) /* (by chance, few would be) */
			CHECK(reinterpret_cast<std::uintptr_t>(r.allocate(300, 256)) % 256 == 0);
		std::vector<long, quarry::allocator<long>> mine(100, 7, quarry::allocator<long>(m)), copy = mine;
		CHECK(quarry_arena_of(mine.data()) == arena && quarry_arena_of(copy.data()) == arena && mine == copy);
		copy = std::vector<long, quarry::allocator<long>>(10, 8);
		CHECK(quarry_arena_of(copy.data()) != arena && copy[9] == 8);
	}
	CHECK(quarry_manager_destroy(m) == 0);
	CHECK(fails<std::bad_alloc>([] {
		std::vector<long, quarry::allocator<long>> w;
		w.reserve(w.max_size());
	}));
}

/* A resource of somebody else's, with the same functions. */
class foreign : public std::pmr::memory_resource {
	void *do_allocate(std::size_t, std::size_t) override { return nullptr; }
	void do_deallocate(void *, std::size_t, std::size_t) override {}
	bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override { return this == &other; }

public:
	quarry_manager *manager = quarry_manager_default();
};

static void equal_resources()
{
	quarry::resource a, b(quarry_manager_default()), scratch(quarry::of(quarry_scratch()));
	foreign f;

	CHECK(a == a && a == b && b == a && a != scratch && scratch != a);
	CHECK(a != f && f != a && a != *std::pmr::new_delete_resource() && a != *std::pmr::null_memory_resource());
	/* What may be taken over is, and what may not is copied. */
	std::pmr::vector<int> v({1, 2, 3}, &a), same(&b), other(&scratch);
	const int *at = v.data();
	same = std::move(v);
	CHECK(same.data() == at);
	other = std::move(same);
	CHECK(other.data() != at && other[2] == 3);
}

static void handles()
{
	{
		auto u = quarry::make_unique<counted>(3);
		auto moved = std::move(u);

		CHECK(!u && moved->number == 3 && alive == 1);
	}
	CHECK(alive == 0);

	quarry::weak<counted> w;
	CHECK(!w.lock());
	{
		auto a = quarry::make_shared<counted>(7), b = a, c = std::move(a);

		w = b;
		CHECK(!a && b == c && b->number == 7 && b.use_count() == 2 && alive == 1);
		auto again = w.lock();
		CHECK(again && again->number == 7 && again.use_count() == 3);
		b = quarry::shared<counted>();
		again.reset();
		CHECK(c.use_count() == 1 && alive == 1);
		std::thread([d = c] { CHECK(d->number == 7); }).join();
		CHECK(c.use_count() == 1);
		c = c;
		CHECK(alive == 1 && c->number == 7);
	}
	CHECK(alive == 0 && !w.lock());

	quarry_stack *stack = quarry_stack_create(nullptr);
	quarry_manager *m = quarry::of(stack);
	CHECK(fails<std::bad_exception>([m] { quarry::make_shared_in<counted>(m, -1); }));
	CHECK(fails<std::bad_exception>([m] { quarry::make_unique_in<counted>(m, -1); }));
	CHECK(alive == 0 && stats_of(m).in_use == 0);
	quarry_stack_destroy(stack);

	alive = 20;
	{
		std::vector<quarry::shared<wide>> many;

		for (int i = 0; i < 20; i++) {
			many.push_back(quarry::make_shared_in<wide>(quarry::of(quarry_scratch())));
			CHECK(reinterpret_cast<std::uintptr_t>(many.back().get()) % 128 == 0);
		}
	}
	CHECK(alive == 0);

	/* The last one goes in another thread. */
	std::vector<std::thread> threads;
	{
		auto s = quarry::make_shared<counted>(9);
		for (int i = 0; i < 4; i++)
			threads.emplace_back([s] {
				for (int k = 0; k < 1000; k++)
					auto copy = s;
			});
	}
	for (auto &t : threads)
		t.join();
	CHECK(alive == 0);
}

static void blocks_and_frames()
{
	quarry::block b(100), none;

	CHECK(b.data() != nullptr && b.size() == 100 && none.data() == nullptr);
	static_cast<char *>(b.data())[99] = 'x';
	b.resize(5000);
	CHECK(b.size() == 5000 && static_cast<char *>(b.data())[99] == 'x');
	{
		quarry::block c = b.share();

		CHECK(c.data() == b.data() && quarry_refcount(b.data()) == 2);
		CHECK(fails<std::bad_alloc>([&c] { c.resize(10); }));
	}
	CHECK(quarry_refcount(b.data()) == 1);
	none = std::move(b);
	quarry_block raw = none.release();
	CHECK(quarry_block_unref(&raw) == 1);

	void *first;
	{
		quarry::frame f;
		first = f.alloc(100);
		quarry::frame inner;
		long *a = inner.array<long>(10);
		CHECK(a[9] == 0 && inner.stack() == f.stack());
		std::pmr::string s("a text that is too long to be kept inside of a string", new quarry::resource(quarry::of(f.stack())));
		CHECK(s.size() > 40);
	}
	quarry::frame f;
	CHECK(f.alloc(100) == first);
}

int main()
{
	containers();
	equal_resources();
	handles();
	blocks_and_frames();
	return 0;
}
