/* SPDX-License-Identifier: MIT */
/* A program in C loads a plugin in C++, with a C++ runtime that only the plugin sees (RTLD_LOCAL). operator new is
 * the library's, and must find that runtime to throw and to ask for the new handler. variants: preload linked */
#include <dlfcn.h>

#include "tests/family/family.h"

int main(int argc, char **argv)
{
	family_in_use();
	CHECK(argc == 2);
	void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	CHECK(plugin != NULL);
	int (*work)(int) = (int (*)(int))dlsym(plugin, "plugin_work");
	int (*runs_out)(void) = (int (*)(void))dlsym(plugin, "plugin_runs_out");
	CHECK(work != NULL && runs_out != NULL);
	CHECK(work(10000) == 1);
	CHECK(runs_out() == 1);
	CHECK(work(100) == 1);
	return 0;
}
