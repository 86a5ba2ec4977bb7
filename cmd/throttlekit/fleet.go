package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go/service"
)

// The variables that stand for flags which are not given.
const (
	secretVariable = "THROTTLEKIT_FLEET_SECRET"
	regionVariable = "TK_REGION"
	nodeVariable   = "TK_NODE_ID"
)

// fleet is what the flags say about policies that several servers share.
type fleet struct {
	secret secret
	region name
	node   name
}

func (f *fleet) define(cmd *cobra.Command) {
	cmd.Flags().Var(&f.secret, "fleet-secret",
		"what callers must present to lease from federated policies; better in $"+secretVariable+", as others can read flags")
	f.region = defaultRegion
	cmd.Flags().Var(&f.region, "region", "where the server runs, for federated policies that do not say; also $"+regionVariable)
	cmd.Flags().Var(&f.node, "node-id",
		"what tells this server from others that share concurrency with it; also $"+nodeVariable+" (default its host and process id)")
}

// defaultNode is a name that no other process has at the same time.
func defaultNode() name {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return name(fmt.Sprintf("%s#%d", host, os.Getpid()))
}

// settle takes from the environment what the flags do not say.
func (f *fleet) settle(cmd *cobra.Command) error {
	if _, err := f.secret.settle(cmd, "fleet-secret", secretVariable); err != nil {
		return err
	}
	for _, v := range []struct {
		flag, variable string
		to             *name
	}{{"region", regionVariable, &f.region}, {"node-id", nodeVariable, &f.node}} {
		text, set := os.LookupEnv(v.variable)
		if !set || cmd.Flags().Changed(v.flag) {
			continue
		}
		if err := v.to.Set(text); err != nil {
			return wrong("$%s %w, got %q; unset it or give --%s", v.variable, err, text, v.flag)
		}
	}
	if f.node == "" {
		f.node = defaultNode()
	}
	return nil
}

// secret is a flag whose text is never shown, not even when it is wrong, so it is checked later.
type secret string

// String implements pflag.Value.
func (s *secret) String() string { return "" }

// Type implements pflag.Value.
func (s *secret) Type() string { return "text" }

// Set implements pflag.Value.
func (s *secret) Set(text string) error {
	*s = secret(text)
	return nil
}

// settle takes the secret from a variable if the flag does not give it. A variable that is empty is a mistake, as a secret
// that a script failed to read would open the door to whoever is on the machine.
func (s *secret) settle(cmd *cobra.Command, flag, variable string) (given bool, err error) {
	where, given := "--"+flag, cmd.Flags().Changed(flag)
	if text, set := os.LookupEnv(variable); set && !given {
		where, given, *s = "$"+variable, true, secret(text)
	}
	if err := s.check(); given && err != nil {
		return given, wrong("%s %w", where, err)
	}
	return given, nil
}

// check reports what keeps a secret from being presented.
func (s *secret) check() error {
	text := string(*s)
	switch {
	case text == "":
		return errors.New("must not be empty")
	case strings.TrimSpace(text) != text || strings.IndexFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) >= 0:
		return errors.New("must be printable ASCII text without spaces around it")
	}
	return nil
}

const defaultRegion = "default"

// name is a flag that names a place or a process.
type name string

// String implements pflag.Value.
func (n *name) String() string { return string(*n) }

// Type implements pflag.Value.
func (n *name) Type() string { return "name" }

// Set implements pflag.Value.
func (n *name) Set(text string) error {
	const longest = 256
	if text == "" || len(text) > longest || strings.IndexFunc(text, unicode.IsControl) >= 0 {
		return errors.New("must be a name of 1 to 256 bytes, without control characters")
	}
	*n = name(text)
	return nil
}

// lenders are how callers of Fleet show that they may, or empty if there is nothing to lend.
func (f *fleet) lenders(svc *service.Service) string {
	switch {
	case len(svc.Lenders()) == 0:
		return ""
	case f.secret != "":
		return "secret"
	}
	return "loopback"
}
