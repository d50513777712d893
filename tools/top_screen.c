/* SPDX-License-Identifier: MIT */
/* A terminal as a screen: other lines than those that stand there, keys at once, and all as it was at the end, by a
 * signal too. Escape sequences of the VT100 and xterm, which every terminal of today knows; no library. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/top.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios before;
static bool entered;
static volatile sig_atomic_t came, wants_end, wants_stop;
static sigset_t caught;

static void say(const char *text)
{
	ssize_t n = write(STDOUT_FILENO, text, strlen(text));

	(void)n;
}

static void take_screen(void)
{
	struct termios now = before;

	now.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	now.c_cc[VMIN] = 1;
	now.c_cc[VTIME] = 0;
	(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &now);
	say("\033[?1049h\033[?25l\033[H\033[J");
}

static void give_screen(void)
{
	say("\033[0m\033[?25h\033[?1049l");
	(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
}

static void on_signal(int sig)
{
	came = 1;
	if (sig == SIGTSTP)
		wants_stop = 1;
	else if (sig != SIGWINCH)
		wants_end = sig;
}

bool screen_enter(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH };
	struct sigaction action = { .sa_handler = on_signal };

	if (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before) != 0)
		return false;
	sigemptyset(&caught);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		sigaddset(&caught, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
	take_screen();
	entered = true;
	return true;
}

void screen_leave(void)
{
	if (entered)
		give_screen();
	entered = false;
}

/* Ctrl-Z: the shell has its terminal until it wakes us up. */
static void stop(void)
{
	wants_stop = 0;
	give_screen();
	raise(SIGSTOP);
	take_screen();
}

int screen_key(unsigned ms)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	char key;
	int n = poll_unless(&came, &caught, &in, 1, (int)ms);

	if (n < 0 && errno != EINTR)
		return -1;
	came = 0; /* (before what it stands for: what comes now is seen the next time) */
	if (wants_stop)
		stop();
	if (wants_end)
		return -1;
	if (n <= 0)
		return 0;
	n = (int)read(STDIN_FILENO, &key, 1);
	return n == 1 ? (unsigned char)key : n < 0 && errno == EINTR ? 0 : -1;
}

int screen_signal(void)
{
	return wants_end;
}

void screen_size(int *columns, int *lines)
{
	struct winsize size;

	*columns = 80;
	*lines = 24;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
		*columns = size.ws_col;
		*lines = size.ws_row;
	}
}
