package main

import (
	"errors"
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
)

// fleet is what the flags say about policies that several servers share.
type fleet struct {
	secret secret
	region region
}

func (f *fleet) define(cmd *cobra.Command) {
	cmd.Flags().Var(&f.secret, "fleet-secret",
		"what callers must present to lease from federated policies; better in $"+secretVariable+", as others can read flags")
	f.region = defaultRegion
	cmd.Flags().Var(&f.region, "region", "where the server runs, for federated policies that do not say; also $"+regionVariable)
}

// settle takes from the environment what the flags do not say. A variable that is empty is a mistake, as a secret that a
// script failed to read would leave leases to whoever is on the machine.
func (f *fleet) settle(cmd *cobra.Command) error {
	where, given := "--fleet-secret", cmd.Flags().Changed("fleet-secret")
	if text, set := os.LookupEnv(secretVariable); set && !given {
		where, given, f.secret = "$"+secretVariable, true, secret(text)
	}
	if err := f.secret.check(); given && err != nil {
		return wrong("%s %w", where, err)
	}
	if text, set := os.LookupEnv(regionVariable); set && !cmd.Flags().Changed("region") {
		if err := f.region.Set(text); err != nil {
			return wrong("$%s %w, got %q; unset it or give --region", regionVariable, err, text)
		}
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

// region is a flag that names a place.
type region string

// String implements pflag.Value.
func (r *region) String() string { return string(*r) }

// Type implements pflag.Value.
func (r *region) Type() string { return "name" }

// Set implements pflag.Value.
func (r *region) Set(text string) error {
	const longest = 256
	if text == "" || len(text) > longest || strings.IndexFunc(text, unicode.IsControl) >= 0 {
		return errors.New("must be a name of 1 to 256 bytes, without control characters")
	}
	*r = region(text)
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
