-- Catalog moves, drops, databases, subtransactions, prepared transactions.
vacuum full pg_class;
vacuum full pg_database;
cluster t using t_k;
reindex table docs;
truncate u;
drop table big;
create table empty (id int primary key);
begin;
create table rolled_back as select generate_series(1, 1000) i;
rollback;
begin;
create table kept_by_savepoint (id int);
savepoint a;
create table lost_by_savepoint as select generate_series(1, 500) i;
insert into kept_by_savepoint select generate_series(1, 10);
rollback to a;
insert into kept_by_savepoint select generate_series(11, 20);
commit;
do $$
begin
  for i in 1..3000 loop
    begin
      insert into kept_by_savepoint values (i);
      if i % 3 = 0 then raise exception 'undone'; end if;
    exception when raise_exception then null;
    end;
  end loop;
end $$;
begin;
insert into t select i, i, 'prepared' from generate_series(10000, 10500) i;
select count(*) from (select 1 from t where id between 300 and 400 for share) x;
prepare transaction 'one';
begin;
create table made_by_two as select generate_series(1, 100) i;
delete from docs where id < 100;
prepare transaction 'two';
create database by_log strategy wal_log;
create database by_copy strategy file_copy;
\c by_copy
create table inside as select i, md5(i::text) from generate_series(1, 2000) i;
update inside set md5 = 'changed' where i % 5 = 0;
vacuum full pg_proc;
\c by_log
create table inside as select i, md5(i::text) from generate_series(1, 2000) i;
create index on inside (i);
\c postgres
create database copy_of_copy template by_copy strategy file_copy;
create database gone template by_log strategy wal_log;
drop database gone;
create database gone template by_copy strategy file_copy;
drop database gone;
commit prepared 'one';
