#!/bin/bash
# SPDX-License-Identifier: MIT
# Python runs its own tests, with its own small-object allocator in front and without it.
. "$(dirname "$0")/lib.sh"
# Debian's, not one that stands before it in PATH: its tests come with it.
export python=/usr/bin/python3
[ -x $python ] || skip "$python is not installed (Debian: apt-get install python3)"
$python -c 'import test.test_json, test.test_dict, test.test_threading' 2>/dev/null ||
	skip "python's own tests are not installed (Debian: apt-get install libpython3-testsuite)"

# What differs from run to run: times, load, the order of threads.
own_tests() {
	local tests="test_json test_dict test_threading" status
	[ -n "$QUARRY_QUICK" ] && tests="test_json test_dict"
	$python -m test -v $tests >log 2>&1
	status=$?
	grep -E ' \.\.\. (ok|FAIL|ERROR|skipped)' log | grep -v '^test_main_milliseconds' | sort
	grep -E '^(Ran |Result: |Tests result: |FAILED|OK)' log | sed 's/ in [0-9.]*s$//'
	[ $status -eq 0 ] || tail -n 40 log
	return $status
}
data() {
	$python - <<-'PYTHON'
		import collections, hashlib, json, random, re, threading, zlib
		random.seed(20)
		d = {str(random.random()): [random.randrange(1000) for _ in range(random.randrange(50))] for _ in range(30000)}
		text = json.dumps(d, sort_keys=True)
		assert json.loads(text) == d
		print(len(text), hashlib.sha256(text.encode()).hexdigest())
		print(zlib.crc32(zlib.decompress(zlib.compress(text.encode(), 1))))
		print(collections.Counter(re.findall(r"\d\d\d", text)).most_common(5))
		out = [None] * 8
		def work(i):
		    r = random.Random(i)
		    keep = []
		    for _ in range(20000):
		        keep.append(bytes(r.randrange(3000)))
		        if len(keep) > 500:
		            del keep[r.randrange(500)]
		    out[i] = sum(map(len, keep))
		threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
		[t.start() for t in threads]
		[t.join() for t in threads]
		print(out)
	PYTHON
}

bound $python -c 'print(1)'
counted $python -c 'print(len([str(i) for i in range(100000)]))'
both data
both data PYTHONMALLOC=malloc
both own_tests
[ -n "$QUARRY_QUICK" ] || both own_tests PYTHONMALLOC=malloc
