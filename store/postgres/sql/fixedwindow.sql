-- parameters
p_limit float8, p_width float8, p_cost float8
-- variables
  v_start float8;
  v_count float8 := 0;
-- read
    v_a := split_part(split_part(v_state, ':', 2), ',', 1)::float8;
    v_b := rtrim(split_part(v_state, ':', 3), '}')::float8;
    IF '{"start":' || v_a || ',"count":' || v_b || '}' <> v_state OR {{beyond v_a}} OR {{beyond v_b}} THEN
      IF {{beyond v_a}} OR {{beyond v_b}} OR concat('{"start":', {{number v_a}}, ',"count":', {{number v_b}}, '}') <> v_state THEN
        RETURN '2';
      END IF;
    END IF;
-- decide
  v_start := floor(v_now / p_width) * p_width;
  IF v_b > 0 AND v_a >= v_start THEN -- windows only roll forward
    v_start := v_a;
    v_count := v_b;
  END IF;
  v_count := v_count + p_cost;
  IF v_count > p_limit THEN
    RETURN '0 ' || v_now || ' ' || v_a || ' ' || v_b;
  END IF;
  IF {{unusual v_start}} OR {{unusual v_count}} THEN
    RETURN '2';
  END IF;
-- state
'{"start":' || v_start || ',"count":' || v_count || '}'
-- until
v_now + greatest(1, ceil((v_start + p_width) - v_now))
