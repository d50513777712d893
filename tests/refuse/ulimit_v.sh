#!/bin/bash
# SPDX-License-Identifier: MIT
# ulimit -v 1000000: under 1 GiB of address space, less than the window that is reserved otherwise.
. "$(dirname "$0")/lib.sh"

cat >"$work/limited" <<'LIMITED'
#!/bin/bash
ulimit -v 1000000 || exit 125
exec "$@"
LIMITED
chmod +x "$work/limited"
[ "$("$work/limited" bash -c 'ulimit -v')" = 1000000 ] || skip "ulimit -v 1000000 is not possible here"
suite "$work/limited"
