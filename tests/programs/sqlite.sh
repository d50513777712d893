#!/bin/bash
# SPDX-License-Identifier: MIT
# sqlite3 on a generated script: joins, indexes, blobs, full text, JSON, window functions; in memory and in a file.
. "$(dirname "$0")/lib.sh"
need sqlite3 sqlite3

rows=$(quick 20000 120000)
cat >"$work/script.sql" <<SQL
PRAGMA synchronous = OFF;
PRAGMA cache_size = -20000;
CREATE TABLE item (id INTEGER PRIMARY KEY, key TEXT, number INTEGER, part REAL, data BLOB);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < $rows)
	INSERT INTO item SELECT i, 'key-' || printf('%08x', (i * 2654435761) % 4294967296), (i * 7919) % 10007, i / 7.0,
		CASE WHEN i % 100 = 0 THEN zeroblob(i % 20000) ELSE CAST(hex(i * 1103515245) AS BLOB) END FROM c;
CREATE INDEX item_key ON item (key);
CREATE INDEX item_number ON item (number, part);
CREATE TABLE other AS SELECT id * 3 AS item, key || key AS text, number % 17 AS class FROM item WHERE id % 3 = 1;
CREATE INDEX other_item ON other (item);
SELECT count(*), sum(length(data)), min(key), max(key) FROM item;
SELECT o.class, count(*), sum(i.number), group_concat(substr(i.key, 5, 2), '')
	FROM item i JOIN other o ON o.item = i.id WHERE i.number < 3000 GROUP BY o.class ORDER BY 1;
SELECT a.number, count(*) FROM item a JOIN item b ON a.number = b.number AND b.id < 2000
	GROUP BY a.number ORDER BY 2 DESC, 1 LIMIT 50;
SELECT id, key, sum(number) OVER (ORDER BY key ROWS BETWEEN 5 PRECEDING AND CURRENT ROW)
	FROM item ORDER BY key LIMIT 3000;
SELECT json_group_array(json_object('id', id, 'key', key)) FROM (SELECT * FROM item ORDER BY id DESC LIMIT 5000);
CREATE VIRTUAL TABLE words USING fts5(text);
INSERT INTO words SELECT replace(key, '-', ' ') || ' word' || (id % 97) FROM item WHERE id <= 20000;
SELECT count(*) FROM words WHERE words MATCH 'word13 OR word77';
BEGIN;
UPDATE item SET key = upper(key) || id WHERE id % 5 = 0;
UPDATE item SET data = zeroblob(30000) WHERE id % 1999 = 0;
DELETE FROM item WHERE id % 7 = 0;
COMMIT;
BEGIN;
DELETE FROM item;
ROLLBACK;
SELECT count(*), sum(length(data)), sum(length(key)) FROM item;
PRAGMA integrity_check;
VACUUM;
PRAGMA integrity_check;
SQL
export script=$work/script.sql

in_memory() {
	sqlite3 :memory: <"$script"
}
in_file() {
	sqlite3 base.db <"$script" && sqlite3 base.db .dump | sha256sum && sha256sum <base.db
}

bound sqlite3 :memory: 'SELECT 1'
counted sqlite3 :memory: ".read $script"
both in_memory
both in_file
