/* SPDX-License-Identifier: MIT */
/* A plugin in C++ for a program in C: it brings its own C++ runtime, which the program does not see. */
#include <new>
#include <string>
#include <vector>
#include <cstdint>

extern "C" int plugin_work(int rounds)
{
	std::vector<std::string> v;

	for (int i = 0; i < rounds; i++)
		v.push_back(std::string("number ") + std::to_string(i));
	for (int i = 0; i < rounds; i++)
		if (v[static_cast<std::size_t>(i)] != "number " + std::to_string(i))
			return 0;
	return 1;
}

static volatile std::size_t too_large = static_cast<std::size_t>(PTRDIFF_MAX) + 1;
static int handled;

extern "C" int plugin_runs_out()
{
	bool caught = false;

	try {
		::operator delete(::operator new(too_large));
	} catch (const std::bad_alloc &) {
		caught = true;
	}
	if (!caught || ::operator new(too_large, std::nothrow) != nullptr)
		return 0;
	std::set_new_handler([] {
		if (++handled == 3)
			throw std::bad_alloc();
	});
	if (::operator new(too_large, std::nothrow) != nullptr || handled != 3)
		return 0;
	std::set_new_handler(nullptr);
	return 1;
}
