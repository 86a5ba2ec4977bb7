package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Version is what this source calls itself. It ends in -dev between releases.
const Version = "0.1.0-dev"

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version of this program, of Go, and the platform",
		Args:              takes(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), versionText())
			return err
		},
	}
}

// versionText is two lines: what this is, and what it was built with.
func versionText() string {
	version, commit := Version, ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Sum != "" { // it was built from a published module
			version = info.Main.Version
		}
		commit = commitOf(info)
	}
	return fmt.Sprintf("throttlekit %s%s\n%s %s/%s", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// commitOf is the commit that the program was built from, in brackets, or empty if the build does not tell.
func commitOf(info *debug.BuildInfo) string {
	const short = 12
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	commit := settings["vcs.revision"]
	if commit == "" {
		return ""
	}
	commit = commit[:min(short, len(commit))]
	if settings["vcs.modified"] == "true" {
		commit += ", modified"
	}
	return " (" + commit + ")"
}
