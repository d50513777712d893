# SPDX-License-Identifier: MIT
# Macros of quarry's configure.ac.

# QUARRY_CHECK_CFLAGS(VARIABLE, FLAGS)
# Append to VARIABLE each of FLAGS that the compiler takes, and substitute it. -Werror, because clang only warns of
# flags that it does not know.
AC_DEFUN([QUARRY_CHECK_CFLAGS], [
	AC_REQUIRE([AC_PROG_CC])
	for quarry_flag in m4_normalize([$2]); do
		AC_MSG_CHECKING([whether $CC takes $quarry_flag])
		quarry_check_CFLAGS=$CFLAGS
		CFLAGS="$CFLAGS -Werror $quarry_flag"
		AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])],
			[AC_MSG_RESULT([yes])
			$1="$$1 $quarry_flag"],
			[AC_MSG_RESULT([no])])
		CFLAGS=$quarry_check_CFLAGS
	done
	AC_SUBST([$1])
])

# QUARRY_CHECK_LDFLAGS(VARIABLE, FLAGS)
# The same for the linker.
AC_DEFUN([QUARRY_CHECK_LDFLAGS], [
	AC_REQUIRE([AC_PROG_CC])
	for quarry_flag in m4_normalize([$2]); do
		AC_MSG_CHECKING([whether the linker takes $quarry_flag])
		quarry_check_LDFLAGS=$LDFLAGS
		LDFLAGS="$LDFLAGS $quarry_flag"
		AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])],
			[AC_MSG_RESULT([yes])
			$1="$$1 $quarry_flag"],
			[AC_MSG_RESULT([no])])
		LDFLAGS=$quarry_check_LDFLAGS
	done
	AC_SUBST([$1])
])

# QUARRY_CHECK_VERSION_SCRIPT
# The exports of the libraries are those of their version scripts; without them the libraries are not what they
# say they are.
AC_DEFUN([QUARRY_CHECK_VERSION_SCRIPT], [
	AC_MSG_CHECKING([whether the linker takes version scripts])
	echo 'V_1 { global: quarry_*; local: *; };' >conftest.map
	quarry_check_LDFLAGS=$LDFLAGS
	LDFLAGS="$LDFLAGS -Wl,--version-script=conftest.map"
	AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])],
		[AC_MSG_RESULT([yes])],
		[AC_MSG_RESULT([no])
		AC_MSG_ERROR([quarry needs a linker with version scripts (GNU ld, gold, lld)])])
	LDFLAGS=$quarry_check_LDFLAGS
	rm -f conftest.map
])

# QUARRY_REQUIRE_LIB(PREFIX, PKG-CONFIG-MODULE, HEADER, LIBRARY, FUNCTION, DEBIAN-PACKAGE)
# PREFIX_CFLAGS and PREFIX_LIBS by pkg-config, or by looking for the header and the library; an error that names the
# package when neither finds it.
AC_DEFUN([QUARRY_REQUIRE_LIB], [
	PKG_CHECK_MODULES([$1], [$2], [], [
		AC_CHECK_HEADER([$3], [], [AC_MSG_ERROR([$3 is missing: quarry needs $4 (Debian: $6)])])
		AC_CHECK_LIB([$4], [$5], [$1_LIBS=-l$4],
			[AC_MSG_ERROR([lib$4 is missing: quarry needs it (Debian: $6)])])
	])
])

# QUARRY_OPTIONAL_LIB(PREFIX, PKG-CONFIG-MODULE, DEBIAN-PACKAGE, WHAT-FOR)
# --with-MODULE[=auto]: PREFIX_CFLAGS and PREFIX_LIBS by pkg-config, and QUARRY_PREFIX 1 or 0.
AC_DEFUN([QUARRY_OPTIONAL_LIB], [
	AC_ARG_WITH([$2], [AS_HELP_STRING([--with-$2], [$4 @<:@auto@:>@])], [], [with_$2=auto])
	AS_CASE([$with_$2], [yes|no|auto], [], [AC_MSG_ERROR([--with-$2 takes yes, no or auto, not '$with_$2'])])
	AS_IF([test "$with_$2" != no], [
		PKG_CHECK_MODULES([$1], [$2], [quarry_have_$2=yes], [quarry_have_$2=no])
		AS_IF([test "$with_$2$quarry_have_$2" = yesno], [AC_MSG_ERROR([--with-$2 needs it (Debian: $3)])])
		with_$2=$quarry_have_$2])
	AS_IF([test "$with_$2" = yes], [QUARRY_$1=1], [QUARRY_$1=0])
	AC_SUBST([QUARRY_$1])
])
