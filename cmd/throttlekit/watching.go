package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/server/monitor"
)

// watchVariable stands for --monitor-secret if that is not given.
const watchVariable = "THROTTLEKIT_MONITOR_SECRET"

// watching is how a command reaches a server and its Monitor door, as its flags say.
type watching struct {
	connection

	secret secret
}

func (w *watching) define(cmd *cobra.Command) {
	w.connection.define(cmd)
	cmd.Flags().Var(&w.secret, "monitor-secret",
		"what the server wants from those who watch it; better in $"+watchVariable+", as others can read flags")
}

// settle takes from the environment what the flag does not say.
func (w *watching) settle(cmd *cobra.Command) error {
	_, err := w.secret.settle(cmd, "monitor-secret", watchVariable)
	return err
}

// source is the Monitor door of a server.
func (w *watching) source(c *client.Client) (*source, error) {
	door, err := c.Monitor(string(w.secret))
	if err != nil {
		return nil, err
	}
	return &source{door}, nil
}

// explainWatch words the error of a call to the Monitor door.
func (w *watching) explainWatch(err error) error {
	switch {
	case errors.Is(err, client.ErrUnauthenticated) && w.secret == "":
		return wrong("the server at %s lets only those watch it who present its monitor secret (--monitor-secret or $%s),"+
			" or, if it has none, who are on its machine", shown(w.addr), watchVariable)
	case errors.Is(err, client.ErrUnauthenticated):
		return wrong("the server at %s refuses the monitor secret", shown(w.addr))
	case errors.Is(err, throttlekit.ErrUnsupported):
		return wrong("the server at %s cannot be watched: it has no Monitor door", shown(w.addr))
	}
	return w.explain(err)
}

// source hands on what the Monitor door tells.
type source struct{ door *client.Monitor }

// document is a snapshot as the server wrote it.
func (s *source) document(ctx context.Context) (string, error) {
	snapshot, err := s.door.Snapshot(ctx)
	return snapshot.GetRawJson(), err
}

// Snapshot implements [top.Source].
func (s *source) Snapshot(ctx context.Context) (monitor.Snapshot, error) {
	var snapshot monitor.Snapshot
	text, err := s.document(ctx)
	if err != nil {
		return snapshot, err
	}
	if err := json.Unmarshal([]byte(text), &snapshot); err != nil {
		return snapshot, fmt.Errorf("the server sent a snapshot that cannot be read: %w", err)
	}
	return snapshot, nil
}

// Watch implements [top.Source].
func (s *source) Watch(ctx context.Context, tell func(monitor.Denial)) error {
	for d, err := range s.door.Watch(ctx, "") {
		if err != nil {
			return err
		}
		tell(monitor.Denial{At: d.GetAt(), Policy: d.GetPolicy(), Key: d.GetKey(), Lane: d.GetAxis(), Decision: monitor.Decision{
			Limit: d.GetLimit(), Remaining: d.GetRemaining(), RetryAfterMs: d.GetRetryAfterMs(),
		}})
	}
	return nil
}
