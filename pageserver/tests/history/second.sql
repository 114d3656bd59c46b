-- Catalog moves, drops, databases, subtransactions, prepared transactions.
vacuum full pg_class;
vacuum full pg_database;
cluster t using t_k;
reindex table docs;
truncate u;
create unlogged table v (id int primary key);
create unlogged table w (id int primary key);
insert into v select generate_series(1, 1000);
drop table v;
begin;
create unlogged table never (id int primary key);
insert into never select generate_series(1, 1000);
drop table w;
rollback;
-- Hundreds of relations that one commit, and one abort, removes.
do $$ begin for i in 1..20 loop execute format('create table m%s (i int primary key)', i); end loop; end $$;
create procedure rewrite() language plpgsql as $$
declare names text := (select string_agg('m' || i, ',') from generate_series(1, 20) i);
begin
  for i in 1..20 loop
    begin
      execute 'truncate ' || names;
      insert into m7 values (i);
    exception when division_by_zero then null;
    end;
  end loop;
end $$;
call rewrite();
begin;
call rewrite();
rollback;
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
-- The same number for one database after the other.
create database same oid = 60000 template by_copy strategy file_copy;
\c same
delete from inside where i > 100;
vacuum inside;
insert into inside select i, 'second' from generate_series(1, 500) i;
vacuum full pg_class;
\c postgres
drop database same;
create database same oid = 60000 strategy wal_log;
\c same
create table inside as select i from generate_series(1, 100) i;
vacuum full pg_class;
\c postgres
drop database same;
create database same oid = 60000 template by_copy strategy file_copy;
-- In place, so that what is kept of the data directory holds them.
create tablespace stays location '';
create tablespace goes location '';
create tablespace empty location '';
create database at_home tablespace stays template by_copy strategy file_copy;
create database moving tablespace goes strategy wal_log;
create table elsewhere tablespace stays as select i, repeat('e', i % 900) v from generate_series(1, 2000) i;
create index on elsewhere (i) tablespace goes;
create table moved (like t) tablespace goes;
insert into moved select * from t;
\c moving
create table here as select i from generate_series(1, 1000) i;
create table there tablespace stays as select i from generate_series(1, 1000) i;
\c postgres
commit prepared 'one';
