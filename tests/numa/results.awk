# SPDX-License-Identifier: MIT
# Reads what a guest wrote to its second serial port (see run.sh and guest-init.sh). -v name=TOPOLOGY.
# Prints a line "FAIL: NAME/TEST: reason" or "SKIP: …" for each test that did not pass, as tests/driver.sh does, and
# last "figures PASSED FAILED SKIPPED PAGES BOOT-SECONDS". A guest that stopped before it was done has one more failure.

function fail(text) {
	print "FAIL: " name "/" text
	failed++
}

function reset() {
	p = f = s = 0
	summary = 0
}

BEGIN { reset() }
{ sub(/\r$/, ""); if ($0 != "") last = $0 }

/^guest: booted / { boot = $3 }
/^guest: trouble / { fail("init: " substr($0, 16)) }
/^guest: start / { running = $3; reset(); next }
running != "" && /^ok / { p++ }
running != "" && /^not ok / { f++; fail(substr($0, 8)) }
running != "" && /^skip / { s++; print "SKIP: " name "/" substr($0, 6) }
running != "" && /^suite: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped, [0-9]+ pages verified/ {
	summary++
	said_p = $2 + 0; said_f = $4 + 0; said_s = $6 + 0
	pages += $8
}
/^guest: end / {
	passed += p
	skipped += s
	if (summary != 1)
		fail(running ": it ended with status " $3 " and " (summary ? "more than one summary" : "no summary"))
	else if (said_p != p || said_f != f || said_s != s)
		fail(running ": its summary says " said_p ", " said_f ", " said_s " and its lines " p ", " f ", " s)
	else if (p + f + s == 0)
		fail(running ": it ran no test")
	else if ($3 != 0 && f == 0)
		fail(running ": it ended with status " $3 " and no failed test")
	else if ($3 == 0 && f != 0)
		fail(running ": it ended with status 0 in spite of failed tests")
	running = ""
	ran++
}
/^guest: done/ { done = 1 }

END {
	if (running != "") {
		passed += p
		skipped += s
		fail(running ": the guest stopped in it, after '" last "'")
	} else if (!done) {
		fail("boot: the guest stopped " (last == "" ? "before it said anything" : "after '" last "'"))
	} else if (!ran) {
		fail("boot: nothing was run")
	}
	print "figures", passed + 0, failed + 0, skipped + 0, pages + 0, boot == "" ? "-" : boot
}
