/* SPDX-License-Identifier: MIT */
/* The program's mistakes that quarry notices: counted always, reported or fatal by the option on_error. */
#ifndef QUARRY_MANAGER_MISTAKES_H
#define QUARRY_MANAGER_MISTAKES_H

#include "lib/base/base.h"

enum qy_mistake_kind { QY_MISTAKE_FOREIGN, QY_MISTAKE_DOUBLE_FREE, QY_MISTAKE_SIZE, QY_MISTAKES };

void qy_mistake(enum qy_mistake_kind kind, const void *p) QY_COLD;
uint64_t qy_mistake_count(void);

#endif
