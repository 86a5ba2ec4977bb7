-- One check in one statement: lock the key, read its record, decide, write. {{name}} decides; the rest is the same for all.
--
-- The reply is a text of numbers parted by blanks: a verdict, and after 0 and 1 the time and the two numbers of the
-- record that was found. The decision's fields are not computed here: the caller runs the core on that record.
--   0  denied, nothing written
--   1  allowed and written
--   2  not decided, nothing written: the record's text, or the numbers to be written, need the core
--   3  not decided, nothing written: the settings of the session do not suit
--
-- PL/pgSQL prepares every expression anew in each transaction, used or not, as soon as its statement is reached. So what
-- is rare stands in branches of its own, and what is short-lived in no variable.
CREATE OR REPLACE FUNCTION {{function}}(p_key text, p_now float8, {{parameters}}) RETURNS text
LANGUAGE plpgsql VOLATILE AS $throttlekit$
DECLARE
  v_now float8 := p_now;
  v_state text;
  v_expires bigint;
  v_a float8 := 0; -- the record; a fresh one is 0, 0
  v_b float8 := 0;
{{variables}}
BEGIN
  -- Only READ COMMITTED gives the statements below a view of the table that is newer than the lock, and only a positive
  -- extra_float_digits writes the shortest text that reads back to the same number.
  --
  -- The lock is the one that every implementation takes before it reads and then overwrites a record. Row locks alone
  -- would not do: others hold nothing but this lock between their two statements. The function is void, which is not null.
  IF current_setting('transaction_isolation') <> 'read committed' OR current_setting('extra_float_digits')::int < 1
    OR pg_advisory_xact_lock(hashtextextended(p_key, 0)) IS NULL THEN
    RETURN '3';
  END IF;
  SELECT state, expires_at INTO v_state, v_expires FROM {{table}} WHERE key = p_key;
  -- The clock is read after the record, and under the lock: a sweep that takes the record before this statement looks saw
  -- it expired, and so does every later time. That is also why a time that was noted before, which -infinity stands for,
  -- is too old for a record that is not there; a later one is noted then, so that time does not go back in a batch.
  IF v_now IS NULL THEN
    v_now := {{clock}};
  ELSIF v_now = '-infinity' THEN
    v_now := CASE WHEN FOUND THEN {{noted}} ELSE {{note}} END;
  END IF;
  IF v_expires > v_now THEN
    -- What does not read back to the same text, whether in PostgreSQL's spelling or in ours, is for the core to look at.
{{read}}
  END IF;
{{decide}}
  -- UPDATE first: most keys exist. The row may be gone all the same, since sweeps take rows that have expired without
  -- asking for the lock; then it is written anew.
  UPDATE {{table}} SET state = v_state, expires_at = {{expires}} WHERE key = p_key;
  IF NOT FOUND THEN
    INSERT INTO {{table}} (key, state, expires_at) VALUES (p_key, v_state, {{expires}})
      ON CONFLICT (key) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at;
  END IF;
  RETURN concat_ws(' ', 1, v_now, v_a, v_b);
END
$throttlekit$
