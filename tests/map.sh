#!/bin/bash
# SPDX-License-Identifier: MIT
# The picture of a heap that `quarry map` makes of a view's dump: what is known of each cell, reckoned anew in Python for real
# dumps, and by hand for one that has all there is; and how it looks as text and as SVG.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/map.sh
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD COLUMNS NO_COLOR

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
quarry=${QUARRY:-$build/quarry}
for program in "$quarry" "$build/tests/dump/dumps" "$build/tests/dump/fragments"; do
	if [[ ! -x $program ]]; then
		echo "map.sh: $program is not built"
		exit 99
	fi
done
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-map.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT

. "$src/tests/checks.sh"
cd "$work" || exit 99
python=$(command -v python3) || echo "SKIP: no python3: cells are not reckoned anew, XML is not parsed"
columns_within() { [[ -z $(LC_ALL=C.UTF-8 grep -aE ".{$(($1 + 1))}" out) ]]; }
shows() { grep -qE -e "$1" out; }
count() { grep -cE -e "$1" out; }
is_xml() { [[ ! $python ]] || "$python" -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$1"; }

# ---- real heaps -----------------------------------------------------------------------------------------------
check "dumps are made" "$build/tests/dump/dumps" "$work"
check "and one of a heap with holes" env QUARRY_TEST_SEED=1 "$build/tests/dump/fragments" f.bin f.json
cells_are_right() { "$python" "$src/tests/dump/cells.py" "$1" "$2"; }
for name in a b d f; do
	quarry map --json $name.json
	check "map --json $name.json" is $status 0
	mv out $name.map
	[[ ! $python ]] || check "$name: each cell" cells_are_right $name.json $name.map
	quarry map --json $name.bin
	check "$name: the binary dump says the same" cmp -s out $name.map
done
quarry map f.bin
check "map of a heap with holes" is $status 0
check "its lanes" is "$(grep -cE '^(sessions|index|buffers): ' out)" 3
check "most sessions are gone" is "$(count '^sessions: .* live \(([5-9]|1[0-9]|2[0-4]) %\)')" 1
check "the index is dense" is "$(count '^index: .* live \((8[5-9]|9[0-9]|100) %\)')" 1
check "a line of the sessions is sparse" is "$(($(count ' [012.c]{32} +[0-9]+ % base$') > 2))" 1
check "a line of the index is full" is "$(($(count ' [89]{32} +[0-9]+ % (thp|base)$') > 0))" 1
check "buffers have holes between them" is "$(($(count ' [0-9.]*9+[0-9]*\.+[0-9]*9+[0-9.]* +[0-9]+ % base$') > 2))" 1
check "80 columns" columns_within 80
check "ASCII in the locale C" is "$(grep -caP '[^\x00-\x7f]' out)" 0
check "no colours in a file" is "$(grep -c $'\033' out)" 0

# ---- one that has it all --------------------------------------------------------------------------------------
# Two adjoining regions: a slab half live and a quarter cached, one of 128 KiB whose four live objects are its first, a block of
# three cells and a half, and a mixed slab; then in base pages another block. A third region is elsewhere, a fourth is all hole.
cat >all.json <<'END'
{"quarry_view_dump":1,"exact":1,"regions":4,"slabs":4,"blocks":2,"blocks_bytes":294912,"objects":1028,"objects_bytes":145344,"cached":257,"cached_bytes":24576}
{"arena":0,"name":"one"}
{"arena":1,"name":"<two>"}
{"region":4294967296,"size":2097152,"arena":0,"node":0,"pages":2}
{"slab":4294967296,"size":65536,"object_size":64,"objects":1024,"live":512,"cached":256,"runs":[[512,1],[256,2],[256,0]]}
{"slab":4295032832,"size":131072,"object_size":16384,"objects":8,"live":4,"cached":0,"runs":[[4,1],[4,0]]}
{"block":4295163904,"size":229376}
{"slab":4295426048,"size":65536,"object_size":0,"objects":2,"live":1,"cached":1,"items":[[4096,14336,1],[32768,8192,2]]}
{"region":4297064448,"size":1048576,"arena":0,"node":0,"pages":1}
{"block":4297064448,"size":65536}
{"region":8589934592,"size":2097152,"arena":1,"node":1,"pages":3}
{"slab":8589934592,"size":65536,"object_size":64,"objects":1024,"live":511,"cached":0,"runs":[[511,1],[513,0]]}
{"region":17179869184,"size":1073741824,"arena":1,"node":-1,"pages":4}
{"end":13}
END
sed 's/"size":1073741824/"size":2097152/' all.json >small.json
quarry map --json small.json
check "map --json" is $status 0
check "each cell of the first" says out '{"address":4294967296,"size":3145728,"regions":2,"arena":0,"node":0,"cells":[[32768,16384,16384,0,0,2],[65536,0,0,0,0,2],[0,0,65536,0,0,2],[0,0,0,65536,0,2],[0,0,0,65536,0,2],[0,0,0,65536,0,2],[0,0,0,32768,32768,2],[14336,8192,43008,0,0,2],[0,0,0,0,65536,2],'
check "and of its second region" says out ',[0,0,0,0,65536,2],[0,0,0,65536,0,1],[0,0,0,0,65536,1],'
check "and sums" says out '"heap":{"exact":1,"mapped":7340032,"held":622592,"live":440256,"cached":24576,'
check "and a region of no node" says out '"regions":1,"arena":1,"node":-1,"cells":[[0,0,0,0,65536,4],'
quarry map --json all.json
check "a large region: cells are larger" says out '"cell_size":524288,'
check "and know what was in theirs" says out '"node":0,"cells":[[112640,24576,124928,229376,32768,2],'

quarry map small.json
check "text: a line of cells" is "$(grep -A 1 -n '^one: ' out | tail -1 | cut -d- -f2-)" "  0x000100000000  3.0M  59099952........................  16 % thp"
check "text: what adjoins goes on" says out '  0x000100200000        9...............                   6 % base'
check "text: another node" says out 'node 1 ---'
check "text: no one node" says out 'no one node ---'
check "text: in summary" says out '7.0 MiB mapped, 608.0 KiB held by slabs and large'
check "text: how broken up" is "$(tr '\n' ' ' <out | grep -cF '71 % of what is held lives; less than a quarter in 2 of the 10 cells of 64.0 KiB that are held; exact')" 1
check "text: 80 columns" columns_within 80
quarry map --utf8 small.json
check "text: bars" says out '▄█▁███▄▂········'
check "text, UTF-8: 80 columns" columns_within 80
COLUMNS=101 quarry map small.json
check "a wide terminal: 64 cells a line" says out '59099952........................9...............'
check "whose pages differ" says out ' 13 % mixed'
check "of which letters tell" says out "$(printf '%24s%s%s' '' tttttttttttttttttttttttttttttttt bbbbbbbbbbbbbbbb)"
check "a wide terminal: its columns" columns_within 101
sed 's/"exact":1/"exact":0/' small.json >inexact.json
quarry map inexact.json
check "not exact" says out 'not exact: what some threads held free counts as live'
check "and not said to be" is "$(grep -c '; exact' out)" 0
if script -qec true /dev/null >/dev/null 2>&1; then
	TERM=xterm script -qec "'$quarry' map small.json" /dev/null </dev/null >out 2>err
	check "in colours on a terminal" says out $'\033[0;38;5;37m5\033[0;38;5;99m9\033[0;38;5;220m0'
	TERM=xterm NO_COLOR=1 script -qec "'$quarry' map small.json" /dev/null </dev/null >out 2>err
	check "with NO_COLOR" is "$(grep -c $'\033' out)" 0
else
	echo "SKIP: script(1) is not here: colours are not looked at"
fi

# ---- as SVG ---------------------------------------------------------------------------------------------------
quarry map --svg - small.json
check "map --svg" is $status 0
cp out small.svg
check "XML" is_xml small.svg
check "SVG: a cell's figures" shows '<rect class="o5" x="206" y="[0-9]+" width="11" height="14"><title>0x100000000 \+ 64K: 32K live, 16K cached, 16K free, 0 large, 0 holes; thp</title></rect>'
check "SVG: what is cached stands on its floor" shows '<rect class="c" x="206" y="[0-9]+.5" width="11" height="3.5"/>'
check "SVG: three full ones are one" says out 'width="33" height="14"><title>0x100030000 + 192K: 0 live, 0 cached, 0 free, 192K large, 0 holes; thp</title>'
check "SVG: a hole is one frame, up to the other kind of page" shows '<rect class="hole" x="294.5" y="[0-9]+.5" width="263" height="13"><title>0x100080000 \+ 1.5M: a hole; thp</title></rect>'
check "SVG: huge pages have their texture over what is held alone" shows '<rect class="p2" x="206" y="[0-9]+" width="88" height="14"/>'
check "SVG: hugetlb pages, too" is "$(count '<rect class="p3" x="206" .* width="11"')" 1
check "SVG: none over a hole" is "$(count '<rect class="p4" x="[^"]*" y="[^"]*" width="(22|[0-9]{3,})"')" 1
check "SVG: each texture is there" is "$(count '^<pattern id="p[0234]"')" 4
check "SVG: a name" says out '&lt;two&gt;'
check "SVG: lanes by node" is "$(count 'class="name".*>(node 0|node 1|no one node)<')" 3
check "SVG: exact" says out '; exact</text>'
quarry map --svg - f.bin
check "SVG of a real heap is small" is "$(($(wc -c <out) < 60000))" 1
cp out f.svg
check "SVG of a real heap is XML" is_xml f.svg

# ---- many, large, nothing -------------------------------------------------------------------------------------
scattered() { # so many regions, each on its own
	echo '{"quarry_view_dump":1,"exact":1,"regions":'"$1"',"slabs":0,"blocks":0,"blocks_bytes":0,"objects":0,"objects_bytes":0,"cached":0,"cached_bytes":0}'
	echo '{"arena":0,"name":"scattered"}'
	awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++)
		printf "{\"region\":%d,\"size\":%d,\"arena\":0,\"node\":0,\"pages\":1}\n", 2 ^ 32 + i * 2 ^ 22, i == 7 ? 2 ^ 21 : 2 ^ 20 }'
	echo '{"end":'$(($1 + 2))'}'
}
scattered 3000 >many.json
quarry map many.json
check "many stretches: the rest is summed up" says out '  ... and 2988 more, 2.9G (--all draws them)'
check "many stretches: the largest is there, in its place" is "$(sed -n '/^scattered/{n;n;n;n;n;n;n;n;p}' out | cut -c 1-22)" "  0x000101c00000  2.0M"
quarry map --all many.json
check "many stretches: --all" is "$(count '^  0x[0-9a-f]{12} +[12].0M ')" 3000
quarry map --svg - many.json
check "many stretches: SVG sums up, too" says out '… and 2744 more, 2.6G (--all draws them)'
check "many stretches: they stand side by side" is "$(($(count 'class="address"') < 100))" 1
# 600 MiB in which each slab has another number of living objects, and 128 KiB after each fourth region: cells double twice.
awk 'BEGIN { for (i = 0; i < 300; i++) {
	at = 2 ^ 40 + i * 2 ^ 21 + int(i / 4) * 2 ^ 17
	body = body sprintf("{\"region\":%d,\"size\":2097152,\"arena\":0,\"node\":0,\"pages\":%d}\n", at, 1 + i % 3)
	for (k = 0; k < 31; k++) {
		live = (i * 31 + k) * 37 % 1025
		all += live
		slabs++
		body = body sprintf("{\"slab\":%d,\"size\":65536,\"object_size\":64,\"objects\":1024,\"live\":%d,\"cached\":0,\"runs\":[[%d,1],[%d,0]]}\n",
			at + k * 65536 + (i % 2) * 65536, live, live, 1024 - live)
	} }
	printf "{\"quarry_view_dump\":1,\"exact\":1,\"regions\":300,\"slabs\":%d,\"blocks\":0,\"blocks_bytes\":0,\"objects\":%d,", slabs, all
	printf "\"objects_bytes\":%d,\"cached\":0,\"cached_bytes\":0}\n{\"arena\":0,\"name\":\"wide\"}\n%s{\"end\":%d}\n", all * 64, body, slabs + 302
}' >wide.json
for name in wide many; do
	quarry map --json $name.json
	mv out $name.map
	[[ ! $python ]] || check "$name: each cell" cells_are_right $name.json $name.map
done
check "cells have become larger" grep -qF '"cell_size":262144,' wide.map
scattered 0 >none.json
quarry map none.json
check "no region" says out 'nothing is held; exact'
quarry map --svg none.svg none.json
check "no region: SVG" is_xml none.svg
quarry map --json none.json
check "no region: JSON" says out '"stretches":[]'
awk 'NR == 3 { sub(/"size":1048576/, "\"size\":1099511627776") } { print }' <(scattered 1) >tera.json
quarry map tera.json
check "a terabyte of holes is few lines" is "$(count '^  0x')" 1
check "and it is said how many" says out '  * 31 more lines much like this one'
sed 's/"size":1099511627776/"size":144115183780888576/' tera.json >all57.json
quarry map --json all57.json
check "all that there can be" says out '"cell_size":35184372088832,'

# ---- what is wrong --------------------------------------------------------------------------------------------
bad() { # bad SED TEXT
	sed "$1" small.json >bad.json
	check "$1 changes something" bash -c '! cmp -s small.json bad.json'
	for how in "" --json "--svg -"; do
		# shellcheck disable=SC2086 # words are meant
		quarry map $how bad.json
		check "map $how: $1" one_line_error 1 "$2"
	done
}
bad 's/"items":\[\[4096,14336,1\]/"items":[[0,65536,1]],"items":[[4096,14336,1]/;s/"objects":2,"live":1/"objects":3,"live":2/' "has place for"
bad 's/"runs":\[\[511,1\],\[513,0\]\]/&,"items":[[0,65536,1]]/;s/"objects":1024,"live":511/"objects":1025,"live":512/' "has place for"
bad 's/"objects":8,"live":4,"cached":0,"runs":\[\[4,1\],\[4,0\]\]/"objects":5,"live":5,"cached":0,"runs":[[4,1]],"items":[[0,65536,1]]/' "has place for"
bad '/"end"/d' "cut off"
bad 's/"size":229376/"size":2293760/' "not inside its region"

echo "map.sh: $checks checks, $failures failed"
[[ $failures -eq 0 ]]
