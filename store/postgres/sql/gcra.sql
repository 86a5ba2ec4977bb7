-- parameters
p_interval float8, p_tolerance float8, p_cost float8
-- variables
  v_next float8;
-- read
    v_a := v_state::float8;
    IF v_a::text <> v_state OR {{beyond v_a}} THEN
      IF {{beyond v_a}} OR {{number v_a}} <> v_state THEN
        RETURN '2';
      END IF;
    END IF;
-- decide
  v_next := greatest(v_a, v_now) + p_interval * p_cost;
  IF v_now < v_next - p_tolerance THEN
    RETURN '0 ' || v_now || ' ' || v_a || ' ' || v_b;
  END IF;
  IF {{unusual v_next}} THEN
    RETURN '2';
  END IF;
-- state
v_next
-- until
v_now + greatest(1, ceil(v_next - v_now))
