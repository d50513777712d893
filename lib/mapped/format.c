/* SPDX-License-Identifier: MIT */
/* The head of a heap's file: two superblocks, and where the tables behind them are. No offset is taken from the file that can
 * be computed. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/mapped.h"
#include "numa/os.h"

static const char magic[8] = "QUARRY\x1aM";

/* CRC-32C (Castagnoli), 4 bits at a time: superblocks and redo records are short. */
uint32_t qy_mapped_crc(uint32_t crc, const void *p, size_t n)
{
	static const uint32_t of[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
		0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};
	const uint8_t *b = p;

	crc = ~crc;
	for (size_t i = 0; i < n; i++) {
		crc ^= b[i];
		crc = crc >> 4 ^ of[crc & 15];
		crc = crc >> 4 ^ of[crc & 15];
	}
	return ~crc;
}

/* Where sessions, lanes, roots, the user area, the table of segments and the segments begin; head_bytes is computed. False where the
 * numbers cannot be. */
bool qy_mapped_layout(struct qy_mapped_sb *sb, uint64_t at[6])
{
	uint64_t next = QY_MAPPED_LIVE_AT + 4096;

	if (sb->max_bytes < QY_MAPPED_SEG || sb->max_bytes > QY_MAPPED_MAX || sb->max_bytes % QY_MAPPED_SEG != 0 ||
	    sb->sessions < 1 || sb->sessions > 4096 || sb->lanes < 1 || sb->lanes > 4096 || sb->roots < 1 || sb->roots > 65536 ||
	    sb->user_bytes > 1u << 20 || sb->user_bytes % 16 != 0)
		return false;
	at[0] = next;
	next += sb->sessions * sizeof(struct qy_mapped_session);
	at[1] = next = qy_align_up(next, 4096);
	next += sb->lanes * sizeof(struct qy_mapped_lane);
	at[2] = next;
	next += sb->roots * sizeof(struct qy_mapped_root);
	at[3] = next;
	next += sb->user_bytes;
	at[4] = next = qy_align_up(next, 4096);
	next += (sb->max_bytes >> QY_MAPPED_SEG_SHIFT) * sizeof(uint64_t);
	at[5] = sb->head_bytes = qy_align_up(next, (size_t)2 << 20);
	return true;
}

static uint32_t crc_of(struct qy_mapped_sb *sb)
{
	uint32_t was = sb->crc, crc;

	sb->crc = 0;
	crc = qy_mapped_crc(0, sb, sizeof(*sb));
	sb->crc = was;
	return crc;
}

void qy_mapped_sb_seal(struct qy_mapped_sb *sb)
{
	memcpy(sb->magic, magic, sizeof(magic));
	sb->version = QY_MAPPED_VERSION;
	sb->abi = (uint32_t)(sizeof(pthread_mutex_t) << 8 | sizeof(void *));
	sb->crc = crc_of(sb);
}

/* The newer of the two that has its checksum. One of them may be half written: its writer died. */
int qy_mapped_sb_read(int fd, struct qy_mapped_sb *sb)
{
	struct qy_mapped_sb is[2], unchecked;
	bool is_one = false, found = false;
	struct qy_file_info info;
	uint64_t at[6], head;

	if (qy_os->file_info(fd, &info) != 0)
		return qy_fail(errno, "mapped heap: the file cannot be looked at");
	if (!info.regular)
		return qy_fail(EMEDIUMTYPE, "mapped heap: it is no file");
	for (unsigned i = 0; i < 2; i++) {
		if (info.size < i * (uint64_t)QY_MAPPED_SB + sizeof(is[i]))
			break;
		if (qy_os->read_at(fd, &is[i], sizeof(is[i]), i * (uint64_t)QY_MAPPED_SB) != 0)
			return qy_fail(errno, "mapped heap: the file cannot be read");
		if (memcmp(is[i].magic, magic, sizeof(magic)) != 0)
			continue;
		is_one = true;
		if (is[i].crc == crc_of(&is[i]) && (!found || is[i].sequence > sb->sequence)) {
			*sb = is[i];
			found = true;
		}
	}
	if (!is_one)
		return qy_fail(EMEDIUMTYPE, "mapped heap: it is none");
	if (!found)
		return qy_fail(EUCLEAN, "mapped heap: neither superblock has its checksum");
	if (sb->version != QY_MAPPED_VERSION)
		return qy_fail(ENOTSUP, "mapped heap: version %u of the format; this is for %u", sb->version, QY_MAPPED_VERSION);
	if (sb->incompat & ~QY_MAPPED_INCOMPAT_KNOWN)
		return qy_fail(ENOTSUP, "mapped heap: incompatible feature %u is not known",
			       (unsigned)__builtin_ctz(sb->incompat & ~QY_MAPPED_INCOMPAT_KNOWN));
	if (sb->abi != (sizeof(pthread_mutex_t) << 8 | sizeof(void *)))
		return qy_fail(ENOTSUP, "mapped heap: it is of another kind of machine, or C library");
	unchecked = *sb;
	head = sb->head_bytes;
	if (!qy_mapped_layout(&unchecked, at) || unchecked.head_bytes != head || sb->mode > QUARRY_MAPPED_DURABLE ||
	    (sb->mode == QUARRY_MAPPED_DURABLE) != ((sb->incompat & QY_MAPPED_INCOMPAT_DURABLE) != 0))
		return qy_fail(EUCLEAN, "mapped heap: the superblock's numbers cannot be");
	if (info.size < head && sb->mode != QUARRY_MAPPED_DURABLE) /* (whose file is another thing) */
		return qy_fail(EUCLEAN, "mapped heap: cut short: %llu bytes, the head has %llu", (unsigned long long)info.size,
			       (unsigned long long)head);
	return 0;
}

/* In the place of the older one. */
int qy_mapped_sb_write(int fd, struct qy_mapped_sb *sb)
{
	sb->sequence++;
	qy_mapped_sb_seal(sb);
	return qy_os->write_at(fd, sb, sizeof(*sb), sb->sequence % 2 * QY_MAPPED_SB);
}

/* ---- of a new one ---- */

int qy_mapped_sb_take(struct qy_mapped_sb *sb, const quarry_mapped_attr *attr, const char *path, uint32_t *versions)
{
	quarry_mapped_attr a = { 0 };
	uint64_t at[6];

	if (attr != NULL && attr->struct_size == 0)
		return qy_fail(EINVAL, "attr: struct_size is 0");
	if (attr != NULL)
		memcpy(&a, attr, qy_min(attr->struct_size, sizeof(a)));
	if (a.mode > QUARRY_MAPPED_DURABLE || (a.mode == QUARRY_MAPPED_VOLATILE) != (path == NULL))
		return qy_fail(EINVAL, "attr: a heap without a path is volatile, and no other");
	if ((a.flags & ~(uint32_t)(QUARRY_MAPPED_SHRINK | QUARRY_MAPPED_ON_NODE | QUARRY_MAPPED_HUGE)) != 0)
		return qy_fail(EINVAL, "attr: flags %#x are not known", a.flags);
	if ((a.flags & (QUARRY_MAPPED_ON_NODE | QUARRY_MAPPED_HUGE)) != 0 && a.mode != QUARRY_MAPPED_VOLATILE)
		return qy_fail(ENOTSUP, "attr: a file's page cache can neither be bound to a node nor be of huge pages");
	sb->mode = a.mode;
	sb->incompat = a.mode == QUARRY_MAPPED_DURABLE ? QY_MAPPED_INCOMPAT_DURABLE : 0;
	if (a.versions > 31 || (a.versions != 0 && a.mode != QUARRY_MAPPED_DURABLE))
		return qy_fail(EINVAL, "attr: at most 31 old versions, and of durable heaps alone");
	*versions = a.versions;
	sb->flags = a.flags;
	if (a.max_bytes > QY_MAPPED_MAX)
		return qy_fail(EINVAL, "attr: max_bytes is more than 1 TiB");
	sb->max_bytes = a.max_bytes == 0 ? (uint64_t)64 << 30 : qy_align_up(a.max_bytes, QY_MAPPED_SEG);
	sb->sessions = a.sessions == 0 ? 64 : a.sessions;
	sb->lanes = a.lanes == 0 ? 256 : a.lanes;
	sb->roots = a.roots == 0 ? 1024 : a.roots;
	if (a.user_bytes > 1u << 20)
		return qy_fail(EINVAL, "attr: user_bytes is more than 1 MiB");
	sb->user_bytes = a.user_bytes == 0 ? 4096 : (uint32_t)qy_align_up(a.user_bytes, 16);
	if (!qy_mapped_layout(sb, at))
		return qy_fail(EINVAL, "attr: a number is too large");
	return 0;
}

/* 16 bytes of the kernel's, from the text of its 36. */
void qy_mapped_uuid(uint8_t uuid[16])
{
	char text[64] = { 0 };
	unsigned n = 0;

	(void)qy_os->read_file("/proc/sys/kernel/random/uuid", text, sizeof(text));
	for (const char *p = text; *p != 0 && n < 32; p++) {
		unsigned digit = *p >= '0' && *p <= '9' ? (unsigned)(*p - '0') : *p >= 'a' && *p <= 'f' ? (unsigned)(*p - 'a' + 10) : 16;

		if (digit < 16) {
			uuid[n / 2] = (uint8_t)(uuid[n / 2] << 4 | digit);
			n++;
		}
	}
	if (n == 0) { /* no /proc: so much as there is */
		uint64_t now = qy_os->now_ns(), id = (uint64_t)qy_os->process_id();

		memcpy(uuid, &now, 8);
		memcpy(uuid + 8, &id, 8);
	}
}
