/* SPDX-License-Identifier: MIT */
/* What `quarry doctor` found, for people and as JSON. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/doctor.h"

#include <sched.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>

#define TABLE_NODES 16 /* beyond, a table of distances is wider than a screen; JSON has it all the same */

static int cpus_allowed(void)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* ------------------------------------------------------------------------------------------------------ */
/* For people                                                                                             */

static void print_pool(uint64_t free, uint64_t total, const char *size)
{
	if (total)
		printf(", %llu of %llu pages of %s free", (unsigned long long)free, (unsigned long long)total, size);
}

static void print_node(const struct node *node)
{
	const quarry_node_info *info = &node->info;

	printf("node %d: ", info->id);
	if (info->has_cpus == 0)
		printf("memory only");
	else if (node->cpus[0])
		printf("CPUs %s", node->cpus);
	else
		printf("CPUs");
	if (info->has_memory == 0)
		printf(", no memory");
	else if (info->memory_total && info->memory_free) /* 0 is "not told" */
		printf(", %s of %s free", bytes_text(info->memory_free), bytes_text(info->memory_total));
	else if (info->memory_total)
		printf(", %s", bytes_text(info->memory_total));
	print_pool(info->huge_free_2m, info->huge_total_2m, "2 MiB");
	print_pool(info->huge_free_1g, info->huge_total_1g, "1 GiB");
	if (info->bandwidth)
		printf(", %s/s", bytes_text(info->bandwidth * MIB));
	if (info->latency)
		printf(", %llu ns", (unsigned long long)info->latency);
	printf("%s\n", info->has_memory != 0 && info->allowed == 0 ? ", closed by the cpuset" : "");
}

/* From the node at the left to that at the top. */
static void print_distances(void)
{
	if (node_count < 2 || node_count > TABLE_NODES)
		return;
	printf("distance  ");
	for (size_t i = 0; i < node_count; i++)
		printf("%5d", nodes[i].info.id);
	printf("\n");
	for (size_t i = 0; i < node_count; i++) {
		printf("%10d", nodes[i].info.id);
		for (size_t k = 0; k < node_count; k++) {
			int d = quarry_node_distance(nodes[i].info.id, nodes[k].info.id);
			if (d < 0)
				printf("    ?");
			else
				printf("%5d", d);
		}
		printf("\n");
	}
}

static void print_machine(const struct utsname *kernel)
{
	printf("quarry %s on %s %s, %d CPUs, base pages of %ld KiB\n", quarry_version_string(), kernel->sysname,
	       kernel->release, cpus_allowed(), sysconf(_SC_PAGESIZE) / 1024);
	for (size_t i = 0; i < node_count; i++)
		print_node(&nodes[i]);
	print_distances();
}

void print_text(const struct finding *findings, size_t count, const struct utsname *kernel, const struct patient *patient)
{
	static const char *const states[] = { "ok", "LACK", "?" };
	size_t lacks = 0;

	if (patient->pid)
		printf("%s (%d) on quarry %s\n", patient->program, patient->pid, patient->library);
	else
		print_machine(kernel);
	printf("\n");
	for (size_t i = 0; i < count; i++) {
		const struct finding *f = &findings[i];
		printf("%-4s  %-19s  %s\n", states[f->state], f->name, f->detail);
		if (f->cost[0])
			printf("        costs: %s\n", f->cost);
		if (f->fix[0])
			printf("        fix:   %s\n", f->fix);
		lacks += f->state == LACK;
	}
	printf("\n%zu of %zu lacking%s\n", lacks, count, lacks && !patient->pid && geteuid() != 0 ? "; most fixes need root" : "");
}

/* ------------------------------------------------------------------------------------------------------ */
/* JSON                                                                                                   */

/* All that is printed here comes from these files, the kernel and strerror: bytes over 0x7f stand as they are. */
static void json_text(const char *name, const char *text)
{
	printf("\"%s\":\"", name);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void json_number(const char *name, uint64_t number)
{
	printf(",\"%s\":%llu", name, (unsigned long long)number);
}

static void json_node(const struct node *node)
{
	const quarry_node_info *info = &node->info;

	printf("{\"id\":%d,\"index\":%d,\"has_cpus\":%d,\"has_memory\":%d,\"allowed\":%d,", info->id, info->index,
	       info->has_cpus, info->has_memory, info->allowed);
	json_text("cpus", node->cpus);
	json_number("memory_total", info->memory_total);
	json_number("memory_free", info->memory_free);
	json_number("huge_free_2m", info->huge_free_2m);
	json_number("huge_total_2m", info->huge_total_2m);
	json_number("huge_free_1g", info->huge_free_1g);
	json_number("huge_total_1g", info->huge_total_1g);
	json_number("bandwidth", info->bandwidth);
	json_number("latency", info->latency);
	printf(",\"distances\":[");
	for (size_t i = 0; i < node_count; i++)
		printf("%s%d", i ? "," : "", quarry_node_distance(info->id, nodes[i].info.id));
	printf("]}");
}

static void json_machine(const struct utsname *kernel)
{
	json_text("kernel", kernel->release);
	printf(",\"cpus\":%d,\"page_size\":%ld,\n\"nodes\":[", cpus_allowed(), sysconf(_SC_PAGESIZE));
	for (size_t i = 0; i < node_count; i++) {
		printf("%s\n", i ? "," : "");
		json_node(&nodes[i]);
	}
	printf("]");
}

void print_json(const struct finding *findings, size_t count, const struct utsname *kernel, const struct patient *patient)
{
	static const char *const states[] = { "ok", "lack", "unknown" };

	printf("{");
	json_text("quarry", patient->pid ? patient->library : quarry_version_string());
	printf(",");
	if (patient->pid) {
		printf("\"pid\":%d,", patient->pid);
		json_text("program", patient->program);
	} else {
		json_machine(kernel);
	}
	printf(",\n\"checks\":[");
	for (size_t i = 0; i < count; i++) {
		const struct finding *f = &findings[i];
		printf("%s\n{", i ? "," : "");
		json_text("name", f->name);
		printf(",\"state\":\"%s\",", states[f->state]);
		json_text("detail", f->detail);
		printf(",");
		json_text("cost", f->cost);
		printf(",");
		json_text("fix", f->fix);
		printf("}");
	}
	printf("]}\n");
}
