#!/bin/bash
# SPDX-License-Identifier: MIT
# perl: hashes, strings that grow, regular expressions, sorting, processes.
. "$(dirname "$0")/lib.sh"
need perl perl

cat >"$work/script.pl" <<'PERL'
use strict; use warnings;
my $seed = 12345;
sub rnd { $seed = ($seed * 16807) % 2147483647; return $seed % $_[0] }
my $n = $ENV{QUARRY_QUICK} ? 20000 : 150000;
my %h; $h{ "key" . rnd($n) } .= "value $_ " x (1 + rnd(4)) for 1 .. $n;
my $sum = 0; $sum += length $h{$_} for sort keys %h;
print scalar(keys %h), " $sum\n";
delete $h{ "key" . rnd($n) } for 1 .. $n; print scalar(keys %h), "\n";
my $text = ""; $text .= chr(97 + rnd(26)) x (1 + rnd(9)) . (rnd(10) ? "" : "\n") for 1 .. $n;
my %count; $count{ length $1 }++ while $text =~ /(([a-z])\2+)/g;
print join(" ", map { "$_=$count{$_}" } sort { $a <=> $b } keys %count), "\n";
my @lines = sort { length $a <=> length $b || $a cmp $b } split /\n/, $text;
print scalar(@lines), " $lines[$#lines / 2]\n";
my @deep; my $at = \@deep; for (1 .. 20000) { $$at[0] = []; $$at[1] = "x" x ($_ % 300); $at = $$at[0] }
my ($depth, $size) = (0, 0); $at = \@deep; while (@$at) { $depth++; $size += length $$at[1]; $at = $$at[0] }
print "$depth $size\n";
for my $i (1 .. 10) {
	my $pid = open(my $pipe, "-|") // die;
	if (!$pid) { my @a = map { "child $i " . rnd(100) } 1 .. 5000; print scalar(@a), " $a[-1]\n"; exit 0 }
	print <$pipe>; close $pipe or die;
}
my $packed = pack("(w/a*)*", map { $lines[$_] } 0 .. ($#lines > 5000 ? 5000 : $#lines));
print length($packed), " ", unpack("%32C*", $packed), "\n";
PERL
export script=$work/script.pl PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0
job() {
	perl "$script"
}

bound perl -e 1
counted perl "$script"
both job
