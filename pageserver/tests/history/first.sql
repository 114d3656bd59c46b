-- Their files are gone only after a checkpoint.
do $$ begin for i in 1..20 loop execute format('drop table old%s', i); end loop; end $$;
checkpoint;
-- Tables, every index type, large values, and the changes that clear visibility map bits.
create table t (id int primary key, k int, v text) with (fillfactor = 80);
insert into t select i, i % 100, repeat('x', i % 200) from generate_series(1, 5000) i;
create index t_k on t (k);
create table big (id int, v text);
insert into big select i, (select string_agg(md5(i::text || j), '') from generate_series(1, 300) j)
  from generate_series(1, 30) i;
create table docs (id int, tags int[], p point, span int4range, word text);
insert into docs select i, array[i % 7, i % 50, i], point(i % 100, i % 93), int4range(i, i + 10), md5(i::text)
  from generate_series(1, 3000) i;
create index docs_gin on docs using gin (tags);
create index docs_gist on docs using gist (p);
create index docs_spgist on docs using spgist (word);
create index docs_hash on docs using hash (word);
create index docs_brin on docs using brin (id) with (pages_per_range = 4);
create index docs_range on docs using gist (span);
create sequence s;
select count(nextval('s')) from generate_series(1, 100);
vacuum (freeze, analyze) t, docs;
delete from t where id % 50 = 0;
update t set v = v || 'y' where id % 70 = 1;
begin;
select count(*) from (select 1 from t where id between 100 and 200 for update) x;
commit;
checkpoint;
update docs set tags = tags || 9 where id % 3 = 0;
delete from docs where id % 10 = 0;
vacuum docs;
insert into docs select i, array[i], point(i, i), int4range(i, i + 1), md5(i::text)
  from generate_series(5000, 6000) i;
create unlogged table u (id int primary key, v text);
insert into u select i, 'u' from generate_series(1, 1000) i;
create table truncated as select i, repeat('z', 500) v from generate_series(1, 5000) i;
vacuum truncated;
delete from truncated where i > 1234;
vacuum truncated;
insert into truncated select i, 'again' from generate_series(1, 200) i;
