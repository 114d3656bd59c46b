-- Tables whose numbers others will get.
do $$
begin
  for i in 1..20 loop
    execute format('create table old%s as select generate_series(1, 2000) i', i);
  end loop;
end $$;
vacuum;
