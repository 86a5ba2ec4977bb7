-- One check in one statement: lock the key, read its record, decide, write. {{name}} decides; the rest is the same for all.
--
-- The caller takes the key's lock, in the last argument: it is evaluated before the function begins, and it is cheaper
-- there. It is the advisory lock that every implementation takes before it reads and then overwrites a record. Row locks
-- alone would not do: others hold nothing but this lock between their two statements.
--
-- At READ COMMITTED, the statements below see the table as it is once the lock is held. At the levels above it they may
-- see what was there before; then a denial is that of a moment ago, and a write fails.
--
-- The reply is a text of numbers parted by blanks: a verdict, and after 0 and 1 the time and the two numbers of the
-- record that was found. The decision's fields are not computed here: the caller runs the core on that record.
--   0  denied, nothing written
--   1  allowed and written
--   2  not decided, nothing written: the record's text, or the numbers to be written, need the core
--   3  not decided, nothing written: the settings of the session do not suit
--
-- PL/pgSQL prepares every expression anew in each transaction, used or not, as soon as its statement is reached, and takes
-- a snapshot for each that is not immutable. So what is rare stands in branches of its own, and of what is not immutable
-- there is little.
CREATE OR REPLACE FUNCTION {{function}}(p_key text, p_now float8, {{parameters}}, p_unsuited boolean) RETURNS text
LANGUAGE plpgsql VOLATILE AS $throttlekit$
DECLARE
  v_now float8;
  v_state text;
  v_expires bigint;
  v_a float8 := 0; -- the record; a fresh one is 0, 0
  v_b float8 := 0;
{{variables}}
BEGIN
  IF p_unsuited THEN
    RETURN '3';
  END IF;
  -- The clock is read after the record, and under the lock: a sweep that takes the record before this statement looks saw
  -- it expired, and so does every later time. That is also why a time that was noted before, which -infinity stands for,
  -- is too old for a record that is not there; a later one is noted then, so that time does not go back in a batch.
  SELECT state, expires_at, {{clock}} INTO v_state, v_expires, v_now FROM {{table}} WHERE key = p_key;
  IF p_now = '-infinity' THEN
    v_now := CASE WHEN FOUND THEN {{noted}} ELSE {{note}} END;
  ELSIF p_now IS NOT NULL THEN
    v_now := p_now;
  ELSIF NOT FOUND THEN
    v_now := {{clock}};
  END IF;
  IF v_expires > v_now THEN
    -- What does not read back to the same text, whether in PostgreSQL's spelling or in ours, is for the core to look at.
{{read}}
  END IF;
{{decide}}
  -- UPDATE first: most keys exist. The row may be gone all the same, since sweeps take rows that have expired without
  -- asking for the lock; then it is written anew.
  UPDATE {{table}} SET state = {{state}}, expires_at = {{until}} WHERE key = p_key;
  IF NOT FOUND THEN
    INSERT INTO {{table}} (key, state, expires_at) VALUES (p_key, {{state}}, {{until}})
      ON CONFLICT (key) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at;
  END IF;
  RETURN '1 ' || v_now || ' ' || v_a || ' ' || v_b;
END
$throttlekit$
