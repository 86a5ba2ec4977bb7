//go:build !linux

package redistest

import "syscall"

// The numbers are those of the BSDs, macOS among them; elsewhere sending them is an error.
const (
	freeze = syscall.Signal(17)
	thaw   = syscall.Signal(19)
)

func attributes() *syscall.SysProcAttr { return nil }
