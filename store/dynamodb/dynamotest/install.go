//go:build unix

package dynamotest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Version is the version of dynalite that Start runs.
const Version = "4.0.0"

// ErrMissing marks a machine without Node.js or npm.
var ErrMissing = errors.New("dynamotest: DynamoDB's stand-in needs Node.js 20 and npm: " +
	`install the Debian packages "nodejs" and "npm" (apt-get install nodejs npm), or those of nodejs.org`)

const installTimeout = 3 * time.Minute

// install makes sure that dynalite is in the user's cache folder, and returns its package folder.
func install() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("dynamotest: %w", err)
	}
	parent := filepath.Join(cache, "throttlekit-tests")
	dir := filepath.Join(parent, "dynalite-"+Version)
	module := filepath.Join(dir, "node_modules", "dynalite")
	if _, err := os.Stat(module); err == nil {
		return module, nil
	}
	if err := os.MkdirAll(parent, 0o750); err != nil {
		return "", fmt.Errorf("dynamotest: %w", err)
	}
	fresh, err := os.MkdirTemp(parent, "installing-")
	if err != nil {
		return "", fmt.Errorf("dynamotest: %w", err)
	}
	defer os.RemoveAll(fresh) //nolint:errcheck // what cannot be removed lies in a cache
	if err := npmInstall(fresh); err != nil {
		return "", err
	}
	// Whoever comes second finds the folder there, with the same in it.
	if err := os.Rename(fresh, dir); err != nil {
		if _, statErr := os.Stat(module); statErr != nil {
			return "", fmt.Errorf("dynamotest: %w", err)
		}
	}
	return module, nil
}

func npmInstall(dir string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return ErrMissing
	}
	ctx, cancel := context.WithTimeout(context.Background(), installTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "install", "--no-audit", "--no-fund", "--no-update-notifier", //nolint:gosec // found on the PATH
		"--prefix", dir, "dynalite@"+Version)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("dynamotest: npm could not install dynalite %s: %w\n%s", Version, err, out)
	}
	return nil
}
