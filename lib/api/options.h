/* SPDX-License-Identifier: MIT */
/* The options: one table behind QUARRY_OPTIONS, quarry_mallopt, quarry_ctl_* and quarry_option_describe. The values
 * stand in qy_settings (lib/base/settings.h), which only this module writes; they have their defaults before anything
 * has run. Nothing here locks or uses stdio, and only asking for a figure of an arena by its name allocates. */
#ifndef QUARRY_API_OPTIONS_H
#define QUARRY_API_OPTIONS_H

#include "lib/api/error.h"
#include "lib/base/base.h"
#include "lib/base/settings.h"

/* qy_options_init, declared in settings.h because the layer below calls it: takes the options from the environment.
 * Called once, before any other thread can be in quarry, and before the first look at the options that are only read
 * at start. A wrong name or value is told in one line on standard error, as there is no call to return it from, and is
 * kept for quarry_ctl_get("options_error"); what is right still applies. In a program that runs with more rights than
 * its user (AT_SECURE) the environment is not looked at. */

/* Taken out and called by whoever sets the option checked to 0 while the program runs. The layer above puts it there by an
 * exchange behind anything that stands by the option, and looks at the option then: of two exchanges one is the later,
 * and sees what the other did. */
extern QY_HIDDEN void (*_Atomic qy_options_unchecked)(void);

#endif
