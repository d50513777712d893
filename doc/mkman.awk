# SPDX-License-Identifier: MIT
# Makes the manual's section 3 from the comments of the public headers, so that there is one text to keep true: a page
# for each function and each type.
#
#   awk -v outdir=DIR -v version=0.1.0 -f mkman.awk HEADER...   writes DIR/quarry_malloc.3 and the others
#   awk -v list=1 -f mkman.awk HEADER...                         prints their names, one a line
#
# What it reads: a doc comment (slash and two stars) before a declaration; in it @param NAME, @return, and @code to
# @endcode. A line that is indented goes on with the @ before it; one that is not is description again. The sections
# of the header (a line of dashes, then a title) say which pages point to each other under SEE ALSO.
#
# Any awk: mawk's regular expressions have no {n}.

BEGIN {
	pages = 0
	section = ""
	doc = ""
	constants = ""
	holder = "" # whose page the inline functions after it go to that have no comment
}

# --- Reading --------------------------------------------------------------------------------------------------

FNR == 1 {
	section = constants = holder = ""
	forget_doc()
	header = FILENAME
	sub(/^.*\//, "", header)
}

in_doc {
	take_doc($0)
	next
}

in_declaration {
	declaration = declaration "\n" $0
	if (declaration_ends($0))
		end_declaration()
	next
}

/^\/\*\*/ {
	doc = ""
	has_doc = 1
	in_doc = 1
	take_doc(substr($0, 4))
	next
}

/^\/\* --*-- *\*\/$/ {
	title_next = 1
	next
}

title_next {
	title_next = 0
	section = $0
	sub(/^\/\* */, "", section)
	sub(/ *\*\/$/, "", section)
	next
}

# A constant that a program may use goes to the synopsis of what is declared next.
/^#define QUARRY_[A-Z0-9_]+ +[0-9]/ {
	constants = constants $0 "\n"
	next
}

/^#/ {
	forget_doc()
	next
}

/^(QUARRY_API|typedef|enum|static inline) / {
	declaration = $0
	kind = $0 ~ /^QUARRY_API/ ? "function" : $0 ~ /^static/ ? "inline" : "type"
	in_declaration = 1
	if (declaration_ends($0))
		end_declaration()
	next
}

/^[^ \t\/}{]/ {
	forget_doc()
}

function forget_doc()
{
	doc = ""
	has_doc = 0
}

function take_doc(line,  ended, at)
{
	ended = line ~ /\*\/ *$/
	sub(/ *\*\/ *$/, "", line)
	sub(/^[ \t]*\*/, "", line)
	sub(/^ /, "", line)
	# "..., when p is in this arena. @return 0; -1 with EINVAL": the same as on a line of its own.
	at = match(line, /[^ ] +@(return|param)/)
	if (at) {
		doc = doc substr(line, 1, at) "\n"
		line = substr(line, at + 1)
		sub(/^ */, "", line)
	}
	doc = doc line "\n"
	if (ended)
		in_doc = 0
}

# A function ends with ';', a body or a list of fields with a brace at the start of a line.
function declaration_ends(line)
{
	if (kind == "function" || (kind == "type" && declaration !~ /\{/))
		return line ~ /; *(\/\*.*\*\/)? *$/
	return line ~ /^\}/
}

function end_declaration(  name)
{
	in_declaration = 0
	name = kind == "type" ? type_name(declaration) : function_name(declaration)
	if (kind == "inline" && doc == "" && holder != "") {
		add_inline(name)
	} else {
		if (kind == "inline")
			declaration = inline_head(declaration)
		new_page(name)
		if (kind != "function")
			holder = name
	}
	constants = ""
	forget_doc()
}

function new_page(name)
{
	page[++pages] = name
	number[name] = pages
	page_kind[name] = kind
	page_doc[name] = has_doc ? doc : ""
	page_code[name] = declaration
	page_constants[name] = constants
	page_section[name] = header ": " section
	page_header[name] = header
}

function add_inline(name)
{
	page[++pages] = name
	number[name] = pages
	alias[name] = holder
	inlines[holder] = inlines[holder] (inlines[holder] ? "\n" : "") inline_head(declaration)
}

function type_name(code,  name)
{
	name = code
	if (code ~ /^enum/) {
		sub(/^enum +/, "", name)
		sub(/[^A-Za-z0-9_].*/, "", name)
		return name
	}
	if (code ~ /^typedef [^{]*\(/) # of a function
		sub(/\(.*/, "", name)
	sub(/;[^;]*$/, "", name)
	sub(/[^A-Za-z0-9_]+$/, "", name)
	sub(/^.*[^A-Za-z0-9_]/, "", name)
	return name
}

function function_name(code,  name)
{
	match(code, /quarry_[a-z0-9_]+\(/)
	name = substr(code, RSTART, RLENGTH - 1)
	return name
}

# --- Writing --------------------------------------------------------------------------------------------------

END {
	for (i = 1; i <= pages; i++) {
		if (list)
			print page[i] ".3"
		else
			write_page(page[i])
	}
}

function out(text)
{
	print text > file
}

function write_page(name)
{
	file = outdir "/" name ".3"
	if (name in alias) {
		out(".so man3/" alias[name] ".3")
		close(file)
		return
	}
	split_doc(page_doc[name])
	out(".\\\" Made from include/quarry/" page_header[name] " by doc/mkman.awk. Change it there.")
	out(".TH " name " 3 \"\" \"quarry " version "\" \"quarry\"")
	out(".SH NAME")
	out(name " \\- " short_description(name))
	if (page_kind[name] == "function")
		out(".SH LIBRARY\nlibquarry\n.RI ( \\-lquarry ),\nand in libquarry-malloc")
	out(".SH SYNOPSIS\n.nf\n.B #include <quarry/" page_header[name] ">\n.PP")
	write_synopsis(name)
	out(".fi")
	write_description(name)
	if (result != "") {
		out(".SH RETURN VALUE")
		paragraph(result)
	}
	if (example != "")
		out(".SH EXAMPLES\n.EX\n" code(example) "\n.EE")
	write_see_also(name)
	close(file)
}

# The comment's parts, into description, parameter_count, parameter[], meaning[], result and example.
function split_doc(text,  lines, n, i, line, where)
{
	description = result = example = ""
	parameter_count = 0
	where = "text"
	n = split(text, lines, "\n")
	for (i = 1; i <= n; i++) {
		line = lines[i]
		if (line ~ /^@code/) {
			where = "code"
		} else if (line ~ /^@endcode/) {
			where = "text"
		} else if (where == "code") {
			example = example (example == "" ? "" : "\n") line
		} else if (line ~ /^@param /) {
			sub(/^@param +/, "", line)
			parameter[++parameter_count] = line
			sub(/ .*/, "", parameter[parameter_count])
			sub(/^[^ ]+ */, "", line)
			meaning[parameter_count] = line
			where = "param"
		} else if (line ~ /^@return/) {
			sub(/^@return */, "", line)
			result = toupper(substr(line, 1, 1)) substr(line, 2)
			where = "return"
		} else if (where != "text" && line ~ /^  /) {
			sub(/^ +/, "", line)
			if (where == "return")
				result = result " " line
			else
				meaning[parameter_count] = meaning[parameter_count] " " line
		} else {
			where = "text"
			description = description (description == "" ? "" : "\n") line
		}
	}
	sub(/\n+$/, "", description)
	# What only leads to the code under it.
	sub(/ *Example:$/, "", description)
	sub(/ *Example:$/, "", result)
	sub(/ *Example:$/, "", meaning[parameter_count])
}

# The first sentence, for apropos(1): without its full stop, and not longer than a line.
function short_description(name,  s)
{
	s = description
	gsub(/\n/, " ", s)
	if (s == "")
		s = page_code[name] ~ /^enum/ ? "values for quarry's " plain_name(name) : "type of quarry's " plain_name(name)
	s = until_stop(s)
	sub(/ +$/, "", s)
	if (s ~ /^[A-Z][a-z ]/)
		s = tolower(substr(s, 1, 1)) substr(s, 2)
	return escape(s)
}

# Up to a stop that is not inside brackets.
function until_stop(s,  i, c, depth)
{
	depth = 0
	for (i = 1; i <= length(s); i++) {
		c = substr(s, i, 1)
		if (c == "(" || c == "[")
			depth++
		else if (c == ")" || c == "]")
			depth--
		else if (depth == 0 && c ~ /[.;:]/ && substr(s, i + 1, 1) ~ /^ ?$/)
			return substr(s, 1, i - 1)
	}
	return s
}

function plain_name(name)
{
	sub(/^quarry_/, "", name)
	gsub(/_/, " ", name)
	return name
}

function write_synopsis(name,  n, i, lines)
{
	if (page_constants[name] != "")
		out(code(substr(page_constants[name], 1, length(page_constants[name]) - 1)) "\n.PP")
	out(page_kind[name] == "type" ? code(page_code[name]) : prototype(page_code[name]))
	if (inlines[name] == "")
		return
	if (page_kind[name] == "type")
		out(".PP")
	n = split(inlines[name], lines, "\n")
	for (i = 1; i <= n; i++)
		out(prototype(lines[i]))
}

function inline_head(declared)
{
	sub(/^static inline /, "", declared)
	sub(/[ \n]*\{.*/, "", declared)
	return declared ";"
}

# "void *quarry_realloc(void *p, size_t size);" with its parameters in italics.
function prototype(declared,  head, n, i, parts, line, last, at)
{
	gsub(/[ \t\n]+/, " ", declared)
	sub(/^QUARRY_API /, "", declared)
	gsub(/ (QUARRY_MALLOC_LIKE|QUARRY_SIZE[12]\([0-9, ]*\))/, "", declared)
	head = declared
	sub(/\(.*/, "(", head)
	n = split_arguments(substr(declared, length(head) + 1), parts)
	line = ".BI \"" code(head)
	for (i = 1; i <= n; i++) {
		if (parts[i] == "void") {
			line = line "void"
			break
		}
		# A function's name stands in "(*fn)(...)", others' at the end.
		if (match(parts[i], /\(\*[a-z_]+\)/)) {
			at = RSTART + 2
			last = substr(parts[i], at, RLENGTH - 3)
		} else {
			last = parts[i]
			sub(/^.*[ *]/, "", last)
			at = length(parts[i]) - length(last) + 1
		}
		line = line code(substr(parts[i], 1, at - 1)) "\" " last " \"" code(substr(parts[i], at + length(last))) \
			(i < n ? ", " : "")
	}
	return line ");\""
}

# At the commas up to the bracket that ends them, and at none that is in brackets.
function split_arguments(text, parts,  i, c, depth, n)
{
	n = 1
	parts[1] = ""
	depth = 0
	for (i = 1; i <= length(text); i++) {
		c = substr(text, i, 1)
		if (c == ")" && depth-- == 0)
			break
		depth += c == "("
		if (c == "," && depth == 0)
			parts[++n] = ""
		else if (c != " " || parts[n] != "")
			parts[n] = parts[n] c
	}
	return n
}

function write_description(name,  i)
{
	out(".SH DESCRIPTION")
	if (description != "")
		paragraph(description)
	else if (page_code[name] ~ /^enum/)
		out("The values are:")
	else
		out("The fields are said above.")
	for (i = 1; i <= parameter_count; i++) {
		out(".TP\n.I " parameter[i])
		paragraph(meaning[i])
	}
	if (page_code[name] ~ /^enum/)
		write_values(page_code[name])
}

# The constants of an enum with their comments, which may go on over several lines.
function write_values(declared,  n, i, lines, constant, text)
{
	n = split(declared, lines, "\n")
	for (i = 2; i <= n; i++) {
		if (lines[i] !~ /^[ \t]*QUARRY_/)
			continue
		match(lines[i], /QUARRY_[A-Z0-9_]+/)
		constant = substr(lines[i], RSTART, RLENGTH)
		text = ""
		if (match(lines[i], /\/\*.*/)) {
			text = substr(lines[i], RSTART + 2)
			while (text !~ /\*\// && i < n) {
				i++
				sub(/^[ \t]*\* ?/, "", lines[i])
				text = text "\n" lines[i]
			}
			sub(/ *\*\/.*/, "", text)
			sub(/^ +/, "", text)
		}
		out(".TP\n.B " constant)
		if (text == "" && match(lines[i], /= *[0-9]+/))
			text = "The value " substr(lines[i], RSTART + 2, RLENGTH - 2) "."
		paragraph(text)
	}
}

function write_see_also(name,  i, other)
{
	out(".SH SEE ALSO\n.ad l\n.nh")
	for (i = 1; i <= pages; i++) {
		other = page[i]
		if (other != name && !(other in alias) && page_section[other] == page_section[name])
			out(".BR " other " (3),")
	}
	out(".BR quarry (1),\n.BR quarry (7)")
}

# Text that troff fills, a sentence's words marked: names of pages, NULL and errors in bold.
function paragraph(text,  n, i, lines)
{
	n = split(text, lines, "\n")
	for (i = 1; i <= n; i++) {
		if (lines[i] ~ /^ *$/)
			out(".PP")
		else
			out(marked(lines[i]))
	}
}

function marked(line,  n, i, words, word, before, after, result_line)
{
	sub(/^ +/, "", line)
	n = split(line, words, " ")
	result_line = ""
	for (i = 1; i <= n; i++) {
		word = words[i]
		before = after = ""
		if (match(word, /^[("]+/)) {
			before = substr(word, 1, RLENGTH)
			word = substr(word, RLENGTH + 1)
		}
		if (match(word, /^[A-Za-z0-9_]+/)) {
			after = substr(word, RLENGTH + 1)
			word = substr(word, 1, RLENGTH)
		}
		if (word ~ /^QUARRY_[A-Z]/ || word ~ /^E[A-Z0-9]+$/ || word == "NULL" || (word in number) ||
		    after ~ /^\([1-8]\)/)
			word = "\\fB" escape(word) "\\fR"
		else
			word = escape(word)
		result_line = result_line (i > 1 ? " " : "") escape(before) word escape(after)
	}
	return protect(result_line)
}

# A full stop or quote at the start of a line would be a request.
function protect(line)
{
	return line ~ /^[.']/ ? "\\&" line : line
}

function escape(text)
{
	gsub(/\\/, "\\e", text)
	gsub(/-/, "\\-", text)
	return text
}

# Code: every character as it is, quotes too, as this may stand in the argument of a request.
function code(text,  n, i, lines, all)
{
	text = escape(text)
	gsub(/"/, "\\(dq", text)
	gsub(/'/, "\\(aq", text)
	gsub(/\t/, "    ", text)
	n = split(text, lines, "\n")
	all = protect(lines[1])
	for (i = 2; i <= n; i++)
		all = all "\n" protect(lines[i])
	return all
}
