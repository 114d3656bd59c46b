-- What was left behind goes on: prepared transactions end, truncated tables grow, databases go.
rollback prepared 'two';
truncate t;
insert into t select i, i % 10, 'new' from generate_series(1, 3000) i;
delete from docs where id > 1000;
vacuum docs;
vacuum (freeze) t, docs, kept_by_savepoint;
delete from kept_by_savepoint where id % 2 = 0;
drop database by_log;
\c copy_of_copy
delete from inside where i < 1500;
vacuum inside;
insert into inside select i, 'more' from generate_series(1, 100) i;
drop table inside;
create table inside as select i from generate_series(1, 3000) i;
\c postgres
select pg_switch_wal();
select pg_logical_emit_message(false, 'test', repeat('m', 20000000)) is not null;
insert into truncated select i, repeat('q', 300) from generate_series(1, 5000) i;
alter table truncated set tablespace pg_default;
create materialized view mv as select k, count(*) from t group by k;
refresh materialized view mv;
select count(nextval('s')) from generate_series(1, 50);
analyze;
