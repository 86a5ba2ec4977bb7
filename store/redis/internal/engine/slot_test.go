package engine

import "testing"

func TestSlots(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]uint16{ // as CLUSTER KEYSLOT answers
		"": 0, "123456789": 12739, "foo": 12182, "{foo}bar": 12182, "a{foo}bar{baz}": 12182, "foo{}bar": slot("foo{}bar"),
		"{}": slot("{}"), "user:{42}": slot("42"), "{": slot("{"), "}{42}": slot("42"), "{{42}": slot("{42"),
	} {
		if got := slot(key); got != want {
			t.Errorf("%q lies in slot %d, want %d", key, got, want)
		}
	}
	if tag("foo{}{bar}") != "foo{}{bar}" || tag("{a}{b}") != "a" {
		t.Error("tags are not read as Redis reads them")
	}
}
