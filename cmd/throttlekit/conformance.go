package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go/vectors"
)

func newConformance() *cobra.Command {
	var (
		through word
		store   string
	)
	cmd := &cobra.Command{
		Use:   "conformance [FILE]",
		Short: "Replay golden vectors and report every decision that differs",
		Long: `Conformance replays the timelines of a document of golden vectors and compares every decision with the one that stands
there. Without a file it replays the document that this program was built with; "-" is standard input.

With --store the state is kept in a store of any kind, under keys of its own that are removed at the end; the
vectors' clock replaces the store's. In PostgreSQL the keys are rows of the table throttlekit_conformance, which is
created and stays.

The doors grpc and http start a server on a free port of this machine for each suite, with the suite's strategy as its
policy, and ask it over the network. A suite that a door cannot carry, such as one with fractional costs, is skipped by
name and with the reason.

Exit codes: 0 nothing differs, 1 something does or nothing was checked, 2 wrong usage or a document that cannot be read.`,
		Example: `  throttlekit conformance
  throttlekit conformance vectors.json --door grpc
  throttlekit conformance --store redis://localhost:6379
  throttlekit conformance --store postgres://app@localhost/app --door grpc
  generate-vectors | throttlekit conformance - --door http`,
		Args: takes(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			doc, name, err := readVectors(cmd, args)
			if err != nil {
				return wrong("%w", err)
			}
			state, err := openStateful(cmd.Context(), store)
			if err != nil {
				return err
			}
			return replay(cmd, doc, name, through.value, state)
		},
	}
	choice(cmd, &through, "door", "", "what to replay through", memoryDoor, grpcDoor, httpDoor)
	cmd.Flags().StringVar(&store, "store", memoryStore,
		"`URL` of the store that keeps the state, redis://..., postgres://... or dynamodb://TABLE?region=...&endpoint=..., or memory")
	return cmd
}

// readVectors reads the document that args name, and returns what to call it.
func readVectors(cmd *cobra.Command, args []string) (doc *vectors.Document, name string, err error) {
	switch {
	case len(args) == 0:
		doc, err = vectors.Golden()
		return doc, "the built-in vectors", err
	case args[0] == stdin:
		doc, err = vectors.Read(cmd.InOrStdin())
		return doc, "standard input", err
	}
	f, err := os.Open(args[0])
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	if doc, err = vectors.Read(f); err != nil {
		return nil, "", fmt.Errorf("%s: %w", shown(args[0]), err)
	}
	return doc, shown(args[0]), nil
}

// replay replays a document, with the state in memory unless there is some.
func replay(cmd *cobra.Command, doc *vectors.Document, name, through string, state *stateful) (err error) {
	target, where := targets[through], ""
	if state != nil {
		defer func() { err = errors.Join(err, state.end(context.WithoutCancel(cmd.Context()))) }()
		target, where = state.target(through), ", store "+state.kind
	}
	report, err := vectors.Replay(cmd.Context(), doc, target)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	printReport(out, report)
	sayf(out, "%s: %s, door %s%s\n", name, report, through, where)
	switch {
	case report.Failed > 0:
		return fmt.Errorf("%s failed", count(report.Failed, "suite"))
	case report.Checked == 0:
		return errors.New("nothing was checked")
	}
	return nil
}

// printReport prints a line for everything that is not as it should be.
func printReport(out io.Writer, report vectors.Report) {
	for _, m := range report.Mismatches {
		sayf(out, "%v\n", m)
	}
	if more := report.Mismatched - len(report.Mismatches); more > 0 {
		sayf(out, "and %d more fields that differ\n", more)
	}
	for _, s := range report.Suites {
		if s.Reason != "" {
			sayf(out, "suite %q %s: %s\n", s.Name, s.Outcome, visible(s.Reason))
		}
	}
}
