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
drop database same;
checkpoint;
create database same oid = 60000 template template0 strategy wal_log;
\c same
create table third as select i from generate_series(1, 3000) i;
\c postgres
create database copy_in_two template moving strategy file_copy;
drop database copy_of_copy;
alter table moved set tablespace stays;
alter index elsewhere_i_idx set tablespace pg_default;
alter table elsewhere set tablespace goes;
alter table elsewhere set tablespace stays;
delete from elsewhere where i % 3 = 0;
vacuum elsewhere;
\c moving
alter table there set tablespace goes;
\c postgres
alter database moving set tablespace stays;
alter database moving set tablespace pg_default;
alter database moving set tablespace stays;
alter database copy_in_two set tablespace pg_default;
drop database at_home;
drop tablespace goes;
create tablespace again location '';
create table third tablespace again as select generate_series(1, 500) i;
\c moving
insert into here select generate_series(1, 3000);
vacuum full pg_class;
\c postgres
select pg_switch_wal();
select pg_logical_emit_message(false, 'test', repeat('m', 20000000)) is not null;
insert into truncated select i, repeat('q', 300) from generate_series(1, 5000) i;
alter table truncated set tablespace pg_default;
create materialized view mv as select k, count(*) from t group by k;
refresh materialized view mv;
select count(nextval('s')) from generate_series(1, 50);
analyze;
