package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRoot assembles the command line.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "throttlekit",
		Short: "Limits on rate, concurrency and cost for services and fleets",
		Long: `throttlekit runs a rate-limit server, asks one, and checks policy files, stores and golden vectors.

Begin with "throttlekit serve".

Exit codes: 0 done, or allowed; 1 something failed; 2 flags, arguments or configuration are wrong; 3 denied.`,
		Version:       versionText(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(explainFlag)
	root.AddCommand(
		newServe(),
		newCheck(), newPeek(), newForecast(), newDebit(), newAdmit(),
		newTop(), newExplain(),
		newPolicy(), newConformance(), newDoctor(),
		newVersion(),
	)
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	for _, cmd := range append(root.Commands(), root) {
		switch {
		case cmd.Name() == "help":
			cmd.Run, cmd.RunE = nil, help
		case cmd.HasSubCommands():
			cmd.Args, cmd.RunE, cmd.DisableFlagsInUseLine = cobra.ArbitraryArgs, group, true
		}
	}
	return root
}

// group runs a command that only has subcommands: it shows them, or says which one may have been meant.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	cmd.SuggestionsMinimumDistance = 2
	typed := cmd.CommandPath() + " " + args[0]
	return wrong("unknown command %q%s; see %s --help", typed, didYouMean("", cmd.SuggestionsFor(args[0])), cmd.CommandPath())
}

// help shows the help of the command that args lead to.
func help(cmd *cobra.Command, args []string) error {
	topic, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return group(topic, rest)
	}
	topic.InitDefaultHelpFlag()
	return topic.Help()
}

// explainFlag words what is wrong with a flag.
func explainFlag(cmd *cobra.Command, err error) error {
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		rule := invalid.Unwrap().Error()
		if invalid.GetFlag().Value.Type() == "bool" {
			rule = "must be true or false"
		}
		return wrong("--%s %s, got %q", invalid.GetFlag().Name, rule, invalid.GetValue())
	}
	hint := ""
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		hint = didYouMean("--", similarFlags(cmd, unknown.GetSpecifiedName()))
	}
	return wrong("%v%s; see %s --help", err, hint, cmd.CommandPath())
}

// similarFlags are the flags that a name may have meant. To have cobra judge that as it does for commands, each flag is
// dressed as one.
func similarFlags(cmd *cobra.Command, name string) []string {
	flags := &cobra.Command{SuggestionsMinimumDistance: 2}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		flags.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	return flags.SuggestionsFor(name)
}

// didYouMean is a hint, or empty if there is nothing to suggest.
func didYouMean(prefix string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	names = slices.Clone(names)
	for i := range names {
		names[i] = fmt.Sprintf("%q", prefix+names[i])
	}
	return "; did you mean " + strings.Join(names, " or ") + "?"
}

// takes accepts from least to most arguments; a negative most sets no bound.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch n := len(args); {
		case n < least:
			return wrong("an argument is missing; usage: %s", cmd.UseLine())
		case most >= 0 && n > most:
			return wrong("unexpected argument %q; usage: %s", args[most], cmd.UseLine())
		}
		return nil
	}
}
