package main

import (
	"strings"
	"testing"
)

func TestSelected(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]string{
		"core":       "core",
		"grpc, core": "core grpc",
	} {
		chosen, err := selected(list)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, a := range chosen {
			names = append(names, a.name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%q: %s, want %s", list, got, want)
		}
	}
	if all, err := selected(""); err != nil || len(all) != len(areas) {
		t.Errorf("an empty list: %d areas, %v; want all %d", len(all), err, len(areas))
	}
	if _, err := selected("core,cpre"); err == nil || !strings.Contains(err.Error(), `no area "cpre"; there are core, memory, grpc`) {
		t.Errorf("an unknown area: %v", err)
	}
}
