#!/bin/bash
# SPDX-License-Identifier: MIT
# git: a repository is made, repacked with threads, checked and collected.
. "$(dirname "$0")/lib.sh"
need git git
export HOME=$work GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=c \
	GIT_COMMITTER_EMAIL=c@example.org GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
git config --global core.fsync none
git config --global init.defaultBranch main
git config --global gc.autoDetach false
git config --global pack.threads 2

# Deterministic text that compresses somewhat, from a seed.
numbers() { # SEED LINES
	awk -v s="$1" -v n="$2" 'BEGIN { x = s; for (i = 0; i < n; i++) { x = (x * 16807) % 2147483647;
		printf "%d line %d of %d\n", x, i, s } }'
}
export -f numbers

repository() {
	local i commits files
	commits=$(quick 8 30) files=$(quick 10 25)
	git init -q . || return 1
	for i in $(seq "$commits"); do
		for j in $(seq "$files"); do
			numbers $((j * 31 + i / 5)) $((j * 40 + i)) >"file$j"
		done
		[ $((i % 10)) -ne 1 ] || numbers "$i" 60000 >"large$i"
		head -c 300000 </dev/zero | tr '\0' "$((i % 10))" >"zeros$((i % 3))"
		git add -A && git commit -q -m "commit $i" || return 1
	done
	git repack -adfq --depth=50 --window=50 || return 1
	git fsck --full --strict 2>&1 || return 1
	git log --format='%H %T' | sha256sum
	git rev-list --objects --all | sort | sha256sum
	git cat-file --batch-all-objects --batch | sha256sum
	git log -p --stat | sha256sum
	git blame file3 | sha256sum
	git grep -c 'line 1' HEAD | sha256sum
	git checkout -q -b side HEAD~3 && numbers 5 500 >side && git add -A && git commit -q -m side &&
		git checkout -q main && git merge -q -m merge side 2>&1 || return 1
	git reset -q --hard HEAD~1 && git gc -q --prune=now --aggressive 2>&1 || return 1
	git fsck --full 2>&1 | sort || return 1
	git clone -q --no-local . copy && git -C copy fsck --full 2>&1 || return 1
	git -C copy rev-parse HEAD
}

bound git --version
both repository
git init -q "$work/counted" && counted git -C "$work/counted" hash-object --stdin-paths
