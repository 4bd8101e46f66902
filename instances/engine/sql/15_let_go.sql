-- Give up held runs: back into the queue, ahead of new work; one that was asked to pause is paused now. Keys are locked.
create or replace function let_go(accs uuid[], ks uuid[], t timestamptz) returns void language plpgsql as $$
#variable_conflict use_column
begin
with gone as (
  update live l
  set phase = case when l.status = 4 then 3 else 0 end, owner = null, epoch = nextval('epoch_seq'), want = case when l.want = 1 then 0 else l.want end,
      seq = l.seq + (l.status = 4)::int, status = case l.status when 1 then 0 when 4 then 3 else l.status end,
      prio = case when l.status = 5 then -1 else 0 end, ready_at = t, modified_at = t
  from unnest(accs, ks) as c(a, k) where l.account_id = c.a and l.key = c.k and l.phase = 1
  returning l.account_id, l.key, l.workflow_key, l.seq, l.run, l.status
), told as (
  insert into feed (account_id, workflow_key, keys, first_seqs, last_seqs, at)
  select account_id, workflow_key, array_agg(key), array_agg(seq), array_agg(seq), t from gone where status = 3 group by 1, 2)
insert into journal (account_id, key, seq, run, kind, at) select account_id, key, seq, run, 17, t from gone where status = 3;
end $$;
