-- parameters
p_capacity float8, p_per_milli float8, p_ttl float8, p_cost float8
-- variables
  v_tokens float8 := p_capacity;
  v_last float8;
-- read
    v_a := split_part(split_part(v_state, ':', 2), ',', 1)::float8;
    v_b := rtrim(split_part(v_state, ':', 3), '}')::float8;
    IF '{"tokens":' || v_a || ',"last":' || v_b || '}' <> v_state OR {{beyond v_a}} OR {{beyond v_b}} THEN
      IF {{beyond v_a}} OR {{beyond v_b}} OR concat('{"tokens":', {{number v_a}}, ',"last":', {{number v_b}}, '}') <> v_state THEN
        RETURN '2';
      END IF;
    END IF;
    v_b := v_b + 1; -- 0 marks a fresh record, so the core counts from 1
-- decide
  IF v_b = 0 THEN
    v_last := v_now;
  ELSE
    v_last := v_b - 1;
    v_tokens := least(p_capacity, v_a + greatest(0, v_now - v_last) * p_per_milli);
    v_last := v_last + greatest(0, v_now - v_last);
  END IF;
  IF v_tokens < p_cost THEN
    RETURN '0 ' || v_now || ' ' || v_a || ' ' || v_b;
  END IF;
  v_tokens := v_tokens - p_cost;
  -- What is left is often next to nothing.
  v_state := '{"tokens":' || v_tokens || ',"last":' || (v_last + 1) - 1 || '}';
  IF {{unusual v_tokens}} OR {{unusual v_last}} THEN
    IF {{beyond v_tokens}} OR {{beyond v_last}} THEN
      RETURN '2';
    END IF;
    v_state := concat('{"tokens":', {{number v_tokens}}, ',"last":', {{number ((v_last + 1) - 1)}}, '}');
  END IF;
-- state
v_state
-- until
least(9007199254740991, v_now + (p_ttl + ceil(v_last - v_now)))
