-- Makes WAL of every access method, in small tables. Checkpoints make the next change of a page
-- carry its image where full_page_writes is on.

create table h (id int, k int, t text) with (fillfactor = 70);
insert into h select i, i % 97, repeat('x', i % 50) from generate_series(1, 3000) i;
create table toasted (id int primary key, t text);
insert into toasted select i, (select string_agg(md5(i::text || j), '') from generate_series(1, 200) j)
  from generate_series(1, 20) i;
update toasted set t = t || 'more' where id % 3 = 0;
delete from toasted where id % 5 = 0;

-- multi-insert
create table c (id int, t text);
copy h to '/dev/null';
copy (select i, md5(i::text) from generate_series(1, 3000) i) to program 'cat > copied.txt';
copy c from program 'cat copied.txt; rm copied.txt';
create index c_t on c (t);

set wal_compression = 'pglz';
checkpoint;
update h set k = k + 1 where id % 7 = 0;
update h set k = k + 1 where id % 7 = 0;
delete from h where id % 11 = 0;
vacuum h;
set wal_compression = 'lz4';
checkpoint;
insert into h select i, i, 'again' from generate_series(1, 500) i;
update c set t = 'b' || t where id % 3 = 0;
set wal_compression = 'zstd';
checkpoint;
delete from c where id between 1000 and 1600;
update h set t = 'z' where k = 5;
set wal_compression = off;

-- locks, subtransactions, aborts, two-phase commit
begin;
select count(*) from (select * from h where id < 50 for update) s;
savepoint a;
update h set k = 0 where id < 20;
rollback to a;
select count(*) from (select * from h where id < 90 for share) s;
insert into h values (0, 0, 'kept');
commit;
begin;
insert into c select i, 'gone' from generate_series(1, 100) i;
rollback;
begin;
insert into c select i, 'prepared' from generate_series(1, 100) i;
prepare transaction 'p';
commit prepared 'p';
vacuum (freeze) c;
insert into c select i, 'after the freeze' from generate_series(1, 300) i;

-- b-tree: splits in the middle, page deletion, deduplication, unique check, newroot
create table b (id int primary key, k int, t text);
create index b_k on b (k);
create index b_t on b (t) with (deduplicate_items = off);
insert into b select (i * 7919) % 10007, i % 10, md5(i::text) from generate_series(1, 10000) i;
delete from b where id between 2000 and 6000;
vacuum b;
insert into b select i, i % 3, 'x' || i from generate_series(2000, 3500) i;
update b set k = k + 1 where id % 13 = 0;

-- hash: overflow pages, bucket splits, squeeze
create table hs (id int, t text);
create index hs_id on hs using hash (id);
create index hs_t on hs using hash (t);
insert into hs select i, 'v' || (i % 500) from generate_series(1, 8000) i;
insert into hs select i % 20, 'same' from generate_series(1, 2000) i;
delete from hs where id % 2 = 0 or id < 20;
vacuum hs;
insert into hs select i, 'n' || i from generate_series(20000, 23000) i;

-- gin: pending list, posting trees and their splits, page deletion
create table g (id int, a int[]);
create index g_fast on g using gin (a) with (fastupdate = on, gin_pending_list_limit = 64);
create index g_slow on g using gin (a) with (fastupdate = off);
insert into g select i, array[1, i % 10, i % 100, i] from generate_series(1, 6000) i;
select gin_clean_pending_list('g_fast');
delete from g where id between 1000 and 4500;
vacuum g;
insert into g select i, array[1, 2, i] from generate_series(7000, 8000) i;

-- gist: built by sorting and by inserting, page splits, deletion
create table gi (id int, p point, r int4range);
insert into gi select i, point(i % 77, i % 131), int4range(i, i + i % 9 + 1) from generate_series(1, 4000) i;
create index gi_p on gi using gist (p);
create index gi_r on gi using gist (r);
insert into gi select i, point(i % 57, i % 331), int4range(i, i + 3) from generate_series(1, 3000) i;
delete from gi where id between 500 and 3500;
vacuum gi;
vacuum gi;
insert into gi select i, point(i, -i), int4range(-i, i) from generate_series(1, 500) i;

-- sp-gist: quad tree, k-d tree, radix tree
create table sp (id int, p point, t text);
create index sp_quad on sp using spgist (p);
create index sp_kd on sp using spgist (p kd_point_ops);
create index sp_t on sp using spgist (t);
insert into sp select i, point((i * 37) % 1009, (i * 91) % 997), 'p' || md5(i::text)
  from generate_series(1, 4000) i;
insert into sp select i, point(1, 1), repeat('long', i % 40) || i from generate_series(1, 500) i;
delete from sp where id % 3 = 0;
vacuum sp;
insert into sp select i, point(i, i), 'q' || i from generate_series(1, 800) i;

-- brin: summarising, desummarising, new revmap pages
create table br (id int, t text) with (fillfactor = 10);
create index br_id on br using brin (id) with (pages_per_range = 1);
create index br_t on br using brin (t) with (pages_per_range = 1, autosummarize = off);
insert into br select i, repeat('y', i % 900) || i from generate_series(1, 2500) i;
select brin_summarize_new_values('br_id'), brin_summarize_new_values('br_t');
update br set t = repeat('z', 800) where id % 17 = 0;
select brin_desummarize_range('br_id', 3);
delete from br where id > 2000;
vacuum br;

-- sequences, unlogged relations (their init forks), truncation
create sequence s;
select count(nextval('s')) from generate_series(1, 100);
select setval('s', 5000);
select count(nextval('s')) from generate_series(1, 40);
create unlogged table u (id int primary key, a int[]);
create index on u using gin (a);
create index on u using hash (id);
insert into u values (1, array[1]);
create table shrinks (id int, t text);
insert into shrinks select i, repeat('w', 100) from generate_series(1, 4000) i;
delete from shrinks where id > 1000;
vacuum shrinks;
insert into shrinks select i, repeat('w', 100) from generate_series(1, 300) i;
truncate u;

-- catalogs
create table wide (a int, b int, c int, d text);
alter table wide add column e numeric default 1.5;
create view v as select * from wide join h on h.id = wide.a;
analyze;
vacuum full pg_class;
vacuum full c;
reindex table b;
create database other strategy wal_log;
create database copied strategy file_copy;
drop database copied;
drop view v;
drop table wide;
vacuum;
