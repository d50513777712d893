# SPDX-License-Identifier: MIT
# Writes the input of the sqlite workload: a small shop, as a program would ask for it. Half of the work are statements
# one by one, each with its own text to parse; the other half are long ones over tables. -v rows=N: the orders.
# Everything is from a generator of its own, so that each awk writes the same. The sums at the end tell of any mistake.
function draw(below) {
	# A multiplicative generator (Park and Miller, 1988) whose products fit a double.
	state = state * 16807 % 2147483647
	return int(state / 2147483647 * below)
}

function word(    i, n, text) {
	n = 3 + draw(10)
	for (i = 0; i < n; i++)
		text = text substr("abcdefghijklmnopqrstuvwxyz", draw(26) + 1, 1)
	return text
}

BEGIN {
	state = 20240613
	customers = int(rows / 10)
	items = int(rows / 50)
	print "PRAGMA journal_mode = MEMORY; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -65536;"
	print "CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, city TEXT, since INT);"
	print "CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT UNIQUE, price INT, text TEXT);"
	print "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INT, item INT, number INT, note TEXT);"
	print "CREATE INDEX city ON customer(city, since);"
	print "BEGIN;"
	for (i = 1; i <= customers; i++)
		printf "INSERT INTO customer VALUES(%d, '%s %s', '%s', %d);\n", i, word(), word(), "c" draw(500), draw(100000)
	for (i = 1; i <= items; i++)
		printf "INSERT INTO item VALUES(%d, '%s%d', %d, '%s %s %s');\n", i, word(), i, 1 + draw(10000), word(), word(), word()
	print "COMMIT; BEGIN;"
	for (i = 1; i <= rows; i++) {
		if (i % 3)
			printf "INSERT INTO orders VALUES(%d, %d, %d, %d, '%s');\n", i, 1 + draw(customers), 1 + draw(items), 1 + draw(9), word()
		if (i % 12 == 0)
			printf "SELECT count(*), sum(number) FROM orders WHERE id BETWEEN %d AND %d;\n", i - draw(200), i
		if (i % 16 == 0)
			printf "UPDATE orders SET number = number + 1, note = note || ' %s' WHERE id = %d;\n", word(), 1 + draw(i)
		if (i % 40 == 0)
			printf "SELECT c.name, i.name FROM orders o JOIN customer c ON c.id = o.customer JOIN item i ON i.id = o.item WHERE o.id = %d;\n", 1 + draw(i)
		if (i % 2000 == 0)
			print "COMMIT; BEGIN;"
	}
	print "COMMIT;"
	printf "INSERT INTO orders(customer, item, number, note) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)" \
		" SELECT 1 + i * 7919 %% %d, 1 + i * 104729 %% %d, 1 + i %% 7, printf('bulk %%d of %%s', i, hex(i * 31)) FROM n;\n", rows, customers, items
	print "CREATE INDEX by_customer ON orders(customer, item); CREATE INDEX by_note ON orders(note);"
	print "CREATE TABLE report AS SELECT c.city AS city, i.id AS item, sum(o.number * i.price) AS total, count(*) AS n, group_concat(o.note) AS notes" \
		" FROM orders o JOIN customer c ON c.id = o.customer JOIN item i ON i.id = o.item GROUP BY c.city, i.id;"
	print "UPDATE orders SET note = upper(note) WHERE customer % 5 = 0;"
	print "DELETE FROM orders WHERE item % 4 = 1;"
	print "SELECT city, sum(total), sum(n), sum(length(notes)) FROM report GROUP BY city ORDER BY 2 DESC LIMIT 20;"
	print "SELECT c.name, count(DISTINCT o.item), max(o.note) FROM customer c JOIN orders o ON o.customer = c.id GROUP BY c.id ORDER BY 2 DESC, 1 LIMIT 20;"
	print "SELECT substr(note, 1, 2) AS head, count(*), sum(json_extract(json_object('n', number, 'note', note), '$.n')) FROM orders GROUP BY head ORDER BY head LIMIT 50;"
	print "SELECT count(*), sum(number), sum(length(note)) FROM orders; SELECT count(*), sum(total) FROM report;"
}
