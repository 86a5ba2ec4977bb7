package main

import (
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

The doors grpc and http start a server on a free port of this machine for each suite, with the suite's strategy as its
policy, and ask it over the network. A suite that a door cannot carry, such as one with fractional costs, is skipped by
name and with the reason.

Exit codes: 0 nothing differs, 1 something does or nothing was checked, 2 wrong usage or a document that cannot be read.`,
		Example: `  throttlekit conformance
  throttlekit conformance vectors.json --door grpc
  generate-vectors | throttlekit conformance - --door http`,
		Args: takes(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if store != "" && store != "memory" {
				return wrong("--store %s is not built into this version, which has memory only", shown(store))
			}
			doc, name, err := readVectors(cmd, args)
			if err != nil {
				return wrong("%w", err)
			}
			return replay(cmd, doc, name, through.value)
		},
	}
	choice(cmd, &through, "door", "", "what to replay through", memoryDoor, grpcDoor, httpDoor)
	cmd.Flags().StringVar(&store, "store", "", "`URL` of the store that keeps the state; memory is the only one yet")
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

func replay(cmd *cobra.Command, doc *vectors.Document, name, through string) error {
	report, err := vectors.Replay(cmd.Context(), doc, targets[through])
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	printReport(out, report)
	sayf(out, "%s: %s, door %s\n", name, report, through)
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
